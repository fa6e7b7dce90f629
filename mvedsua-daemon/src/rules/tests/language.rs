//! What the parser and the checks say.

use super::*;

fn messages(source: &str) -> String {
    check(source).diagnostics.iter().map(|d| d.render("x.rules", source)).collect()
}

#[test]
fn slips_are_pointed_at() {
    for (source, wanted) in [
        ("rule a raed(5) => nothing", "did you mean `read`?"),
        ("rul a read(5) => nothing", "did you mean `rule`?"),
        ("direction outdated-leder rule a read(5) => nothing", "did you mean `outdated-leader`?"),
        ("rule a read(5)", "expected `=>`, or `,` and one more call"),
        ("rule a read(5, /(/) => nothing", "the regular expression cannot be used: unclosed group"),
        ("rule a read(5, /(?=x)/) => nothing", "look-around and back references are not in it"),
        ("rule a read(5, /a{1000}{1000}{1000}/) => nothing", "the regular expression cannot be used"),
        ("rule a read(5, \"x) => nothing", "a string without an end"),
        ("rule a read(\"x\") => nothing", "argument 1 of `read` is a descriptor"),
        ("rule a read(5, 7) => nothing", "argument 2 of `read` points to bytes"),
        ("rule a read(5, _, _, 3) => nothing", "`read` has 3 arguments"),
        ("rule a read(5, x) => read(5, y)", "`y` has no value"),
        ("rule a read(5, key) => read(5, \"{kye}\")", "did you mean `key`?"),
        ("rule a read(5, x) => read(5, _) = x", "its length is `len(x)`"),
        ("rule a read(5, _, n) => read(5, n)", "its digits are `\"{n}\"`"),
        ("rule a x: read(5) => y", "`y` is not a label of the left side"),
        ("rule a read(5) = EAGIAN => nothing", "did you mean `EAGAIN`?"),
        ("rule a mprotect(5) => nothing", "each version makes it for itself"),
        ("rule a clone(5) => nothing", "both versions must make it"),
        ("rule a write($log, _) => nothing", "no rule remembers anything as `log`"),
        ("rule a readv(5) => readv(5, \"x\")", "several buffers cannot be rewritten"),
        ("rule a read(5) => read(5, /x/)", "must be certain"),
        ("rule a write(5) => write(5) = ok", "one certain result"),
        ("rule a any* => nothing", "matches even no call at all"),
        ("rule a nothing => nothing", "says nothing"),
        ("rule a read(5)=>nothing rule a read(6)=>nothing", "two rules are called `a`"),
        ("rule a write(_) => nothing", "hides every `write`"),
        ("rule a any => nothing", "hides every call"),
        ("rule a write(_) => write(_) rule b write(1) => nothing", "rule `b` is never reached"),
        ("rule a (((read(5){64}){64}){64}){64} => nothing", "the left side is too large"),
        ("rule a read(5) => nothing where x ==", "expected a number or a variable"),
        ("rule where read(5) => nothing", "`where` is a word of the language"),
    ] {
        let found = messages(source);
        assert!(found.contains(wanted), "{source}: {wanted:?} is not in\n{found}");
    }
}

#[test]
fn every_faulty_rule_is_reported_at_its_place() {
    let source = "rule a\n    read(5 => nothing\nrule b\n    write(1, \"ok\") => nothing\nrule c\n    write 5\n";
    assert_eq!(
        messages(source),
        "error: `=>` is not expected here\n --> x.rules:2:12\n  |\n2 |     read(5 => nothing\n  |            ^^ expected `,` or `)`\n\
         error: the number 5 is not expected here\n --> x.rules:6:11\n  |\n6 |     write 5\n  |           ^ expected `(` and the call's arguments\n"
    );
}

#[test]
fn the_manual_is_right() {
    let manual = include_str!("../../../../docs/rules.md");
    let mut examples = 0;
    for block in manual.split("```rules\n").skip(1) {
        let source = block.split("```").next().unwrap_or_default();
        let errors: String = check(source).diagnostics.iter().map(|d| d.render("rules.md", source)).collect();
        assert!(errors.is_empty(), "{errors}");
        examples += 1;
    }
    assert!(examples > 10);
}
