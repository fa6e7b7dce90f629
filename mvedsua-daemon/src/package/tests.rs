//! Packages that are wrong, one way at a time, and what is said of each.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;
use crate::lifecycle::Promotion;
use crate::update::OnFull;

const OLD: &str = "00112233445566778899";
const NEW: &str = "aabbccddeeff00112233";
const NOBODY: u32 = 65534;

/// A manifest without a fault.
const SOUND: &str = r#"name = "v2"
description = "typed values"
method = "in-place"
from = ["00112233445566778899"]
to = "aabbccddeeff00112233"
object = "v2.so"
entry = "v2_main"
rules = ["v1-v2.rules"]

[policy]
promote = "auto"
soak = "30s"
on-full = "block"
log-memory = "1M"
"#;

/// Another one, for a program that knows nothing of updates.
const BINARY: &str = r#"name = "v2"
method = "binary"
from = "00112233445566778899"
to = "aabbccddeeff00112233"
object = "v2.so"
"#;

/// A package in a directory of its own.
struct Draft {
    dir: TempDir,
}

impl Draft {
    fn new() -> Draft {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let draft = Draft { dir };
        fs::create_dir(draft.root()).expect("it is new");
        draft.chmod("", 0o755);
        draft.write("update.toml", SOUND);
        draft.write("v1-v2.rules", "# none yet\n");
        draft.build("v2.so", &["-shared", "-fPIC", &format!("-Wl,--build-id=0x{NEW}")]);
        draft
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("package")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root().join(name), text).expect("the directory is ours");
        self.chmod(name, 0o644);
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.root().join(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    /// Compiles the new version.
    fn build(&self, name: &str, flags: &[&str]) {
        let mut cc = Command::new("cc")
            .args(["-x", "c", "-", "-nostdlib", "-o"])
            .arg(self.root().join(name))
            .args(flags)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a C compiler is installed");
        let source = b"static int hidden(void) { return 1; }\nint v2_main(void) { return hidden(); }\n";
        cc.stdin.take().expect("a pipe").write_all(source).expect("it reads");
        assert!(cc.wait().expect("it ends").success(), "cc {flags:?}");
        self.chmod(name, 0o755);
    }

    fn open(&self) -> Result<Package, Faults> {
        Package::open(&self.root(), &Trust::new(None, 0), self.dir.path())
    }

    /// Returns what is said of the package, with the temporary directory as `/tmp/x`.
    fn said(&self) -> String {
        let text = self.open().expect_err("something is wrong").to_string();
        let dir = fs::canonicalize(self.dir.path()).expect("it is there");
        text.replace(&dir.display().to_string(), "/tmp/x")
    }
}

#[test]
fn a_sound_package_says_what_it_changes() {
    let draft = Draft::new();
    let package = draft.open().expect("nothing is wrong");
    let id = |text| BuildId::parse(text).expect("it is one");
    assert_eq!((package.info.name.as_str(), package.info.method), ("v2", Method::InPlace));
    assert_eq!((&package.info.from, &package.info.to), (&vec![id(OLD)], &Some(id(NEW))));
    let new = package.new.as_ref().expect("it changes something");
    assert!(new.object.ends_with("package/v2.so"), "{new:?}");
    assert_eq!(new.way, Way::InPlace { entry: "v2_main".to_owned() });
    assert_eq!(package.rules.len(), 1);
    let terms = package.wishes.terms();
    assert_eq!((terms.policy.promote, terms.policy.soak), (Promotion::Auto, Duration::from_secs(30)));
    assert_eq!((terms.on_full, terms.log_memory), (OnFull::Block, 1 << 20));
    assert!(package.updates([NEW, OLD]) && !package.updates([NEW]) && !package.updates([]));
}

#[test]
fn the_policy_that_the_readme_shows_is_taken() {
    let readme = include_str!("../../../README.md");
    let shown = readme.split("```toml\n").find_map(|block| block.split("```").next()?.split_once("[policy]"));
    let policy = shown.expect("the README shows a manifest").1;
    let draft = Draft::new();
    draft.write("update.toml", &format!("name = \"shown\"\nmethod = \"self\"\n[policy]{policy}"));
    draft.open().expect("nothing is wrong");
    let keys = policy.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    let known = manifest::POLICY_KEYS.iter().copied();
    assert_eq!(keys.collect::<BTreeSet<_>>(), known.collect(), "every key is shown");
}

#[test]
fn a_rehearsal_with_a_policy_needs_no_object() {
    let draft = Draft::new();
    draft.write("update.toml", "name = \"rehearsal\"\nmethod = \"self\"\n[policy]\nsoak = \"1s\"\n");
    let package = draft.open().expect("nothing is wrong");
    assert_eq!((package.info.method, package.info.to.clone()), (Method::Itself, None));
    assert!(package.new.is_none() && package.updates([OLD]) && package.updates([]));
}

/// Each line of the manifest that is replaced, by what, and what is said of it.
#[test]
fn every_fault_of_a_manifest_has_its_place_and_says_what_was_expected() {
    let cases = [
        (
            "method = \"in-place\"",
            "metod = \"in-place\"",
            "update.toml: `method` is missing
  expected: `method` = one of `in-place`, `binary`, `self`
update.toml:3:1: unknown key `metod` in the package
  3 | metod = \"in-place\"
    | ^^^^^
  expected: one of `name`, `description`, `method`, `from`, `to`, `object`, `entry`, `hooks`, `transforms`, `proof`, `rules`, `policy`
  hint: did you mean `method`?",
        ),
        (
            "method = \"in-place\"",
            "method = \"inplace\"",
            "update.toml:3:10: `method`: there is no method `inplace`; did you mean `in-place`?
  3 | method = \"inplace\"
    |          ^^^^^^^^^
  expected: one of `in-place`, `binary`, `self`",
        ),
        (
            "method = \"in-place\"",
            "method = \"exec\"",
            "update.toml:3:10: `method`: `exec` is planned and not there yet
  3 | method = \"exec\"
    |          ^^^^^^
  expected: one of `in-place`, `binary`, `self`",
        ),
        (
            "method = \"in-place\"",
            "method = \"self\"",
            "update.toml:5:6: `to` goes with another method
  5 | to = \"aabbccddeeff00112233\"
    |      ^^^^^^^^^^^^^^^^^^^^^^
  expected: no such key
  hint: with `method = \"self\"` the same version is rehearsed",
        ),
        (
            "name = \"v2\"",
            "name = \"v2/../..\"",
            "update.toml:1:8: `name`: '/' has no place in a name
  1 | name = \"v2/../..\"
    |        ^^^^^^^^^^
  expected: a short name such as \"v2\"",
        ),
        (
            "name = \"v2\"",
            "name = 2",
            "update.toml:1:8: `name` is a number
  1 | name = 2
    |        ^
  expected: a short name such as \"v2\"",
        ),
        (
            "name = \"v2\"",
            "name = v2",
            "update.toml:1:8: string values must be quoted, expected literal string
  1 | name = v2
    |        ^^
  expected: a file in TOML
  hint: strings stand in quotes: name = \"v2\"",
        ),
        (
            "from = [\"00112233445566778899\"]",
            "from = [\"0011223344556677889\"]",
            "update.toml:4:9: `0011223344556677889` is no build-id: it has 19 digits
  4 | from = [\"0011223344556677889\"]
    |         ^^^^^^^^^^^^^^^^^^^^^
  expected: a build-id in hexadecimal digits, as `file` or `readelf -n` shows it",
        ),
        (
            "from = [\"00112233445566778899\"]",
            "from = []",
            "update.toml:4:8: `from` is empty
  4 | from = []
    |        ^^
  expected: at least one item, each a build-id in hexadecimal digits, as `file` or `readelf -n` shows it",
        ),
        (
            "from = [\"00112233445566778899\"]",
            "",
            "update.toml: `from` is missing
  expected: `from` = a list of the build-ids that this updates",
        ),
        (
            "from = [\"00112233445566778899\"]",
            "from = [\"aabbccddeeff00112233\"]",
            "update.toml:4:9: `v2.so` is the version that it is to update
  4 | from = [\"aabbccddeeff00112233\"]
    |         ^^^^^^^^^^^^^^^^^^^^^^
  expected: the build-id of another version than the object's
  hint: a rehearsal of the same version needs no package: `--to self`",
        ),
        (
            "to = \"aabbccddeeff00112233\"",
            "to = \"aabbccddeeff00112244\"",
            "update.toml:5:6: `v2.so` is another build: aabbccddeeff00112233
  5 | to = \"aabbccddeeff00112244\"
    |      ^^^^^^^^^^^^^^^^^^^^^^
  expected: the build-id of the object
  hint: to = \"aabbccddeeff00112233\", if that is the build that was meant",
        ),
        (
            "object = \"v2.so\"",
            "object = \"../v2.so\"",
            "update.toml:6:10: `../v2.so` leads out of the package
  6 | object = \"../v2.so\"
    |          ^^^^^^^^^^
  expected: the name of a file in the package, relative to its directory",
        ),
        (
            "object = \"v2.so\"",
            "object = \"/lib/x86_64-linux-gnu/libc.so.6\"",
            "update.toml:6:10: `/lib/x86_64-linux-gnu/libc.so.6` leads out of the package
  6 | object = \"/lib/x86_64-linux-gnu/libc.so.6\"
    |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  expected: the name of a file in the package, relative to its directory",
        ),
        (
            "object = \"v2.so\"",
            "object = \"v3.so\"",
            "update.toml:6:10: there is no `v3.so`
  6 | object = \"v3.so\"
    |          ^^^^^^^
  expected: the name of a file in the package, relative to its directory",
        ),
        (
            "entry = \"v2_main\"",
            "entry = \"v2_mian\"",
            "update.toml:7:9: `v2.so` exports no symbol `v2_mian`
  7 | entry = \"v2_mian\"
    |         ^^^^^^^^^
  expected: an exported function of the object
  hint: did you mean `v2_main`?",
        ),
        (
            "entry = \"v2_main\"",
            "entry = \"hidden\"",
            "update.toml:7:9: `v2.so` exports no symbol `hidden`
  7 | entry = \"hidden\"
    |         ^^^^^^^^
  expected: an exported function of the object
  hint: `nm -D v2.so` lists what it exports; a static function is not",
        ),
        (
            "rules = [\"v1-v2.rules\"]",
            "rules = \"v1-v2.rules\"",
            "update.toml:8:9: `rules` is a text
  8 | rules = \"v1-v2.rules\"
    |         ^^^^^^^^^^^^^
  expected: a list of the names of files in the package
  hint: write a list even of one: rules = [\"…\"]",
        ),
        (
            "rules = [\"v1-v2.rules\"]",
            "rules = [\"more.rules\"]",
            "update.toml:8:10: there is no `more.rules`
  8 | rules = [\"more.rules\"]
    |          ^^^^^^^^^^^^
  expected: the name of a file in the package, relative to its directory",
        ),
        (
            "soak = \"30s\"",
            "soak = 30",
            "update.toml:12:8: `soak` is a number
  12 | soak = 30
     |        ^^
  expected: a duration such as \"90s\" or \"5m\"",
        ),
        (
            "soak = \"30s\"",
            "min_calls = 30",
            "update.toml:12:1: unknown key `min_calls` in `policy`
  12 | min_calls = 30
     | ^^^^^^^^^
  expected: one of `promote`, `confirm`, `soak`, `min-calls`, `min-outputs`, `retries`, `retry-after`, `timeout`, \
`hang-timeout`, `log-memory`, `log-disk`, `on-full`, `threads`, `stops`, `on-parting`, `lockstep`, `memory-limit`, \
`latency-budget`, `max-slowdown`, `accept`, `gate`, `gate-before`, `gate-timeout`, `gate-again-after`, \
`gate-on-failure`
  hint: did you mean `min-calls`?",
        ),
        (
            "soak = \"30s\"",
            "timeout = \"5s\"",
            "update.toml:10:1: the timeout is not longer than the soak time, so the update could never be promoted
  10 | [policy]
     | ^
  expected: a policy that can be met
  hint: give a longer timeout, or a shorter soak",
        ),
        (
            "on-full = \"block\"",
            "on-full = \"wait\"",
            "update.toml:13:11: `on-full`: `wait` is not one of the words for it
  13 | on-full = \"wait\"
     |           ^^^^^^
  expected: `rollback` or `block`",
        ),
        (
            "log-memory = \"1M\"",
            "log-memory = \"1 mile\"",
            "update.toml:14:14: `log-memory`: `1 mile` is no size; write 512M, 4G or a number
  14 | log-memory = \"1 mile\"
     |              ^^^^^^^^
  expected: a size such as \"512M\", or a number of bytes",
        ),
        (
            "log-memory = \"1M\"",
            "latency-budget = \"50%\"",
            "update.toml:14:18: `latency-budget` is 50 %, so the same version would fail
  14 | latency-budget = \"50%\"
     |                  ^^^^^
  expected: a percentage of the old version's time, at least \"100%\"",
        ),
        (
            "log-memory = \"1M\"",
            "retries = -1",
            "update.toml:14:11: `retries`: `-1` is out of range
  14 | retries = -1
     |           ^^
  expected: a whole number from 0",
        ),
        (
            "log-memory = \"1M\"",
            "accept = \"all\"",
            "update.toml:14:10: `accept`: `all` is not one of the words for it
  14 | accept = \"all\"
     |          ^^^^^
  expected: `proved` or `inferred`",
        ),
    ];
    let draft = Draft::new();
    let mut wrong = vec![];
    for (line, instead, said) in cases {
        draft.write("update.toml", &SOUND.replace(line, instead));
        let heard = draft.said();
        // The first fault; what follows from it may follow.
        let heard = if said.starts_with("update.toml:5:6: `to` goes") { &heard[..said.len()] } else { &heard[..] };
        if heard != said {
            wrong.push(format!("`{line}` became `{instead}`, and this was said:\n{heard}\nand not:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_package_with_changed_functions_names_two_builds_and_a_file() {
    let draft = Draft::new();
    draft.write("update.toml", BINARY);
    let package = draft.open().expect("nothing is wrong");
    let id = |text| BuildId::parse(text).expect("it is one");
    assert_eq!((package.info.method, package.info.from.clone()), (Method::Binary, vec![id(OLD)]));
    let new = package.new.as_ref().expect("it changes something");
    assert!(new.object.ends_with("package/v2.so"), "{new:?}");
    assert_eq!((&new.build_id, &new.way), (&id(NEW), &Way::Binary));
    assert!(package.updates([NEW, OLD]) && !package.updates([NEW]));
    // An executable with fixed addresses, and one without.
    for flags in [&["-no-pie", "-static", "-Wl,--entry=v2_main"][..], &["-pie", "-fPIE", "-Wl,--entry=v2_main"]] {
        draft.build("v2.so", &[flags, &[&format!("-Wl,--build-id=0x{NEW}")]].concat());
        draft.open().unwrap_or_else(|faults| panic!("{flags:?}: {faults}"));
    }
    draft.build("v2.so", &["-c", "-fPIC"]);
    let said = draft.said();
    let first = said.lines().next().unwrap_or_default();
    assert_eq!(first, "update.toml:5:10: `v2.so` is neither an executable nor a shared library, it is Relocatable");
}

#[test]
fn a_package_may_bring_hooks_and_says_what_they_convert() {
    let draft = Draft::new();
    let object = fs::read(draft.root().join("v2.so")).expect("it was built");
    draft.build("hooks.so", &["-shared", "-fPIC", "-Dv2_main=mvedsua_after"]);
    let bytes = fs::read(draft.root().join("hooks.so")).expect("it was built");
    let one = |name: &str, numbers: &[(u64, u64)]| Transform {
        name: name.to_owned(),
        old: 0x4060..0x40e0,
        new: 0x5080..0x5180,
        numbers: numbers.to_vec(),
    };
    let transforms = vec![one("entries", &[(15, 31)]), one("0x4060", &[])];
    let dir = draft.dir.path().join("written");
    let whole = Contents { hooks: Some((bytes, transforms.clone())), ..contents(&object) };
    whole.write(&dir).expect("it is sound");
    let trust = Trust::new(None, 0);
    let package = Package::open(&dir, &trust, draft.dir.path()).expect("it can be read again");
    let hooks = package.new.and_then(|new| new.hooks).expect("it has some");
    assert_eq!((hooks.transforms, hooks.file.before, hooks.file.after.is_some()), (transforms, None, true));
    // Another object is none with hooks.
    let wrong = Contents { hooks: Some((object.clone(), vec![])), ..contents(&object) };
    let said = wrong.write(&draft.dir.path().join("wrong")).expect_err("it exports nothing").to_string();
    assert!(said.contains("exports neither `mvedsua_before` nor `mvedsua_after`"), "{said}");
}

#[test]
fn every_fault_of_hooks_says_what_was_expected() {
    let draft = Draft::new();
    draft.build("hooks.so", &["-shared", "-fPIC", "-Dv2_main=mvedsua_after"]);
    let whole = "name = \"a\"\nold = 1\nold-size = 8\nnew = 2\nnew-size = 8\n";
    for (lines, said) in [
        (format!("[[transforms]]\n{whole}"), "`transforms` says what hooks convert, and there are none"),
        ("hooks = \"none.so\"".to_owned(), "`none.so`"),
        ("hooks = \"hooks.so\"\ntransforms = 1".to_owned(), "`transforms` is no list of tables"),
        ("hooks = \"hooks.so\"\n[[transforms]]\nname = \"a\"".to_owned(), "`old` is missing"),
        (format!("hooks = \"hooks.so\"\n[[transforms]]\n{whole}size = 1"), "unknown key `size` in `transforms`"),
        (
            format!("hooks = \"hooks.so\"\n[[transforms]]\n{whole}numbers = [[1]]"),
            "`numbers`: each is a list of two numbers: before and now",
        ),
        (format!("hooks = \"hooks.so\"\n[[transforms]]\n{whole}[[transforms]]\n{whole}"), "`a` is listed twice"),
    ] {
        draft.write("update.toml", &format!("{BINARY}{lines}\n"));
        let heard = draft.said();
        assert!(heard.contains(said), "{lines}:\n{heard}");
    }
}

#[test]
fn every_fault_of_a_package_with_changed_functions_says_what_was_expected() {
    let cases = [
        (
            "object = \"v2.so\"",
            "object = \"v2.so\"\nentry = \"v2_main\"",
            "update.toml:6:9: `entry` goes with another method
  6 | entry = \"v2_main\"
    |         ^^^^^^^^^
  expected: no such key
  hint: with `method = \"binary\"` every changed function goes over",
        ),
        (
            "from = \"00112233445566778899\"",
            "from = [\"00112233445566778899\", \"00112233445566778800\"]",
            "update.toml:3:33: `from` names more than one file
  3 | from = [\"00112233445566778899\", \"00112233445566778800\"]
    |                                 ^^^^^^^^^^^^^^^^^^^^^^
  expected: one build-id, that of the file which was compared with the object
  hint: make a package for each version with `mvedsuad package build`",
        ),
        (
            "from = \"00112233445566778899\"",
            "",
            "update.toml: `from` is missing
  expected: `from` = the build-id of the file that this updates",
        ),
        (
            "to = \"aabbccddeeff00112233\"",
            "",
            "update.toml: `to` is missing
  expected: `to` = a build-id in hexadecimal digits, as `file` or `readelf -n` shows it",
        ),
        (
            "object = \"v2.so\"",
            "",
            "update.toml: `object` is missing
  expected: `object` = the name of the new version's file in the package",
        ),
        (
            "from = \"00112233445566778899\"",
            "from = \"aabbccddeeff00112233\"",
            "update.toml:3:8: `v2.so` is the version that it is to update
  3 | from = \"aabbccddeeff00112233\"
    |        ^^^^^^^^^^^^^^^^^^^^^^
  expected: the build-id of another version than the object's
  hint: a rehearsal of the same version needs no package: `--to self`",
        ),
    ];
    let draft = Draft::new();
    for (line, instead, said) in cases {
        draft.write("update.toml", &BINARY.replace(line, instead));
        assert_eq!(draft.said(), said, "`{line}` became `{instead}`");
    }
}

/// Returns what a package of the draft's object would be made of.
fn contents(object: &[u8]) -> Contents<'_> {
    let id = |text| BuildId::parse(text).expect("it is one");
    Contents {
        proof: None,
        hooks: None,
        name: "v2".to_owned(),
        description: "\u{fc}ber \"v1\"\tand \\".to_owned(),
        from: id(OLD),
        to: id(NEW),
        object: ("the server".to_owned(), object),
        rules: vec![("a\"b.rules".to_owned(), "# none yet\n".to_owned())],
        report_text: "can be updated\n".to_owned(),
        report_json: "{}\n".to_owned(),
    }
}

#[test]
fn a_package_that_was_written_is_sound() {
    let draft = Draft::new();
    let object = fs::read(draft.root().join("v2.so")).expect("it was built");
    let dir = draft.dir.path().join("written");
    let contents = contents(&object);
    let info = contents.write(&dir).expect("it can be written");
    fs::set_permissions(draft.dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let package = Package::open(&dir, &Trust::new(None, NOBODY), draft.dir.path()).expect("everybody may read it");
    assert_eq!((&package.info, package.info.method), (&info, Method::Binary));
    assert_eq!(info.description.as_deref(), Some(contents.description.as_str()));
    let new = package.new.as_ref().expect("it changes something");
    assert_eq!((fs::read(&new.object).expect("it is there"), package.rules.len()), (object.clone(), 1));
    assert_eq!(package.wishes, Wishes::default(), "the policy is the operator's");
    assert_eq!(fs::read_to_string(dir.join("report.txt")).expect("it is there"), contents.report_text);
    let again = contents.write(&dir).expect_err("it is there");
    assert!(matches!(again, BuildError::Exists(_)), "{again}");
}

#[test]
fn nothing_is_left_of_a_package_that_cannot_be_written() {
    let draft = Draft::new();
    let object = fs::read(draft.root().join("v2.so")).expect("it was built");
    let names = || {
        let entries = fs::read_dir(draft.dir.path()).expect("it is there").flatten();
        entries.map(|entry| entry.file_name()).collect::<BTreeSet<_>>()
    };
    let before = names();
    let dir = draft.dir.path().join("written");
    let mut twice = contents(&object);
    twice.rules.extend(twice.rules.clone());
    let said = twice.write(&dir).expect_err("two files of one name").to_string();
    assert!(said.contains("written/a\"b.rules cannot be written: File exists"), "{said}");
    let other = Contents { to: BuildId::parse("aabbccddeeff00112244").expect("it is one"), ..contents(&object) };
    let said = other.write(&dir).expect_err("another build").to_string();
    assert!(said.contains("`the server` is another build: aabbccddeeff00112233"), "{said}");
    let nowhere = contents(&object).write(&dir.join("below")).expect_err("there is no such directory");
    assert!(matches!(nowhere, BuildError::Write { .. }), "{nowhere}");
    assert_eq!(names(), before);
}

#[test]
fn a_package_gets_a_name_that_a_manifest_may_have() {
    let id = BuildId::parse(NEW).expect("it is one");
    let long = "x".repeat(300);
    for (file, name) in [
        ("redis-server", "redis-server-aabbccdd"),
        ("libstdc++.so.6", "libstdc__.so.6-aabbccdd"),
        ("..hidden", "hidden-aabbccdd"),
        ("", "aabbccdd"),
        (long.as_str(), &format!("{}-aabbccdd", "x".repeat(55))),
    ] {
        let made = default_name(file.as_ref(), &id);
        assert_eq!((made.as_str(), parse_name(&made)), (name, Ok(name.to_owned())));
    }
}

#[test]
fn only_a_wrong_build_id_is_told_apart_from_other_faults() {
    let draft = Draft::new();
    draft.write("update.toml", &SOUND.replace(NEW, "aabbccddeeff00112244"));
    assert!(draft.open().expect_err("another build").only_build_ids());
    draft.write("update.toml", &SOUND.replace(NEW, "aabbccddeeff00112244").replace("v2_main", "v3_main"));
    assert!(!draft.open().expect_err("another build, and no entry").only_build_ids());
}

#[test]
fn the_object_must_be_a_shared_object_for_this_machine_with_a_build_id() {
    let draft = Draft::new();
    let first_line = || draft.said().lines().next().unwrap_or_default().to_owned();
    draft.write("v2.so", "#!/bin/sh\n");
    assert!(first_line().starts_with("update.toml:6:10: `v2.so` is no ELF file"), "{}", first_line());
    draft.build("v2.so", &["-c", "-fPIC"]);
    assert_eq!(first_line(), "update.toml:6:10: `v2.so` is no shared object, it is Relocatable");
    draft.build("v2.so", &["-shared", "-fPIC", "-Wl,--build-id=none"]);
    assert_eq!(first_line(), "update.toml:6:10: `v2.so` has no build-id");
    // The machine is bytes 18 and 19 of the header; 183 is AArch64.
    draft.build("v2.so", &["-shared", "-fPIC", &format!("-Wl,--build-id=0x{NEW}")]);
    let mut bytes = fs::read(draft.root().join("v2.so")).expect("it was built");
    bytes[18] = 183;
    fs::write(draft.root().join("v2.so"), bytes).expect("it is ours");
    assert_eq!(first_line(), "update.toml:6:10: `v2.so` is for Aarch64");
}

#[test]
fn what_others_could_write_is_refused_before_it_is_read() {
    let draft = Draft::new();
    draft.write("update.toml", "secret = ");
    for (name, mode, shown) in [
        ("update.toml", 0o664, "update.toml"),
        ("v1-v2.rules", 0o646, "v1-v2.rules"),
        ("", 0o775, "/tmp/x/package"),
        ("", 0o1777, "/tmp/x/package"),
    ] {
        draft.chmod(name, mode);
        let said = draft.said();
        let expected = format!(
            "{shown}: others may write it (mode {mode:04o})\n  expected: a mode in which only the owner may write\n  \
             hint: chmod go-w {shown}"
        );
        assert_eq!(said, expected);
        draft.chmod(name, if name.is_empty() { 0o755 } else { 0o644 });
    }
    // A directory above the package.
    let above = |mode| fs::set_permissions(draft.dir.path(), fs::Permissions::from_mode(mode)).expect("it is ours");
    above(0o777);
    assert!(draft.said().starts_with("/tmp/x: others may write it (mode 0777)"), "{}", draft.said());
    // In a sticky one nobody else can put another in the package's place.
    above(0o1777);
    assert!(draft.said().starts_with("update.toml:1:10: "), "{}", draft.said());
}

#[test]
fn what_belongs_to_a_stranger_or_cannot_be_read_by_the_program_is_refused() {
    let draft = Draft::new();
    std::os::unix::fs::chown(draft.root().join("v2.so"), Some(NOBODY), None).expect("the test runs as root");
    assert!(draft.said().starts_with("v2.so: it belongs to user 65534\n"), "{}", draft.said());
    fs::set_permissions(draft.dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let open = |trust: &Trust| Package::open(&draft.root(), trust, draft.dir.path());
    open(&Trust::new(Some(NOBODY), NOBODY)).expect("the user may update");
    std::os::unix::fs::chown(draft.root().join("v2.so"), Some(0), None).expect("the test runs as root");
    draft.chmod("v2.so", 0o700);
    let said = open(&Trust::new(None, NOBODY)).expect_err("root's only").to_string();
    assert!(said.starts_with("v2.so: user 65534 may not read it (mode 0700)\n"), "{said}");
    draft.open().expect("root may");
}

#[test]
fn nothing_is_told_of_places_where_the_user_may_not_go() {
    let draft = Draft::new();
    draft.write("secret-name", "");
    draft.chmod("secret-name", 0o666);
    let said = |path: &Path| {
        let faults = Package::open(path, &Trust::new(None, NOBODY), draft.dir.path()).expect_err("root's only");
        faults.to_string()
    };
    fs::set_permissions(draft.dir.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    let told = said(&draft.root());
    assert!(told.contains("user 65534 may not enter it (mode 0700)"), "{told}");
    assert_eq!(told, said(&draft.root().join("there/is/none")), "what is there cannot be told from what is not");
    fs::set_permissions(draft.dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    draft.chmod("", 0o700);
    let told = said(&draft.root());
    assert!(told.contains("may not enter it") && !told.contains("secret-name"), "{told}");
}

#[test]
fn links_and_special_files_lead_nowhere() {
    let draft = Draft::new();
    let link = draft.root().join("passwd");
    symlink("/etc/passwd", &link).expect("the directory is ours");
    assert!(draft.said().starts_with("passwd: it is a symbolic link out of the package, to /etc/passwd\n"));
    fs::remove_file(&link).expect("it is ours");
    symlink("nothing", &link).expect("the directory is ours");
    assert!(draft.said().starts_with("passwd: it is a symbolic link to nowhere: "), "{}", draft.said());
    fs::remove_file(&link).expect("it is ours");
    symlink("v2.so", &link).expect("the directory is ours");
    draft.open().expect("a link within the package is fine");
    fs::remove_file(&link).expect("it is ours");
    let pipe = draft.root().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("the directory is ours");
    assert!(draft.said().starts_with("pipe: it is neither a file nor a directory\n"), "{}", draft.said());
}

#[test]
fn a_package_that_is_not_there_says_so() {
    let draft = Draft::new();
    fs::remove_file(draft.root().join("update.toml")).expect("it is ours");
    let said = draft.said();
    assert!(said.starts_with("update.toml: it cannot be read: No such file"), "{said}");
    fs::remove_dir_all(draft.root()).expect("it is ours");
    let said = draft.open().expect_err("it is gone").to_string();
    assert!(said.contains("package: it cannot be opened: No such file"), "{said}");
}

fn tar(draft: &Draft, args: &[&str]) -> PathBuf {
    let path = draft.dir.path().join("package.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&path).arg("-C").arg(draft.dir.path()).args(args);
    assert!(tar.status().expect("tar is installed").success(), "{args:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    path
}

#[test]
fn faulty_rules_are_faults_of_the_package() {
    let draft = Draft::new();
    draft.write("v1-v2.rules", "rule a\n    raed(client, _) => nothing\n");
    let said = Package::open(&draft.root(), &Trust::new(None, NOBODY), draft.dir.path()).expect_err("it is wrong");
    assert_eq!(
        said.to_string().trim_end(),
        "v1-v2.rules:2:5: `raed` is not a system call
  2 |     raed(client, _) => nothing
    |     ^^^^
  expected: the name of a system call
  hint: did you mean `read`?"
    );
}

#[test]
fn an_archive_is_a_package_and_is_unpacked_only_as_long_as_it_is_needed() {
    let draft = Draft::new();
    let open = |path: &Path| Package::open(path, &Trust::new(None, NOBODY), draft.dir.path());
    fs::set_permissions(draft.dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    for args in [&["package"][..], &["-C", "package", "."]] {
        let path = tar(&draft, args);
        let package = open(&path).expect("nothing is wrong");
        let object = package.new.as_ref().expect("it changes something").object.clone();
        assert!(object.is_file() && !object.starts_with(draft.root()), "{}", object.display());
        assert_eq!(package.info.path, fs::canonicalize(&path).expect("it is there"));
        drop(package);
        assert!(!object.exists(), "it was removed");
    }
    let mut package = open(&tar(&draft, &["package"])).expect("nothing is wrong");
    let object = package.new.as_ref().expect("it changes something").object.clone();
    package.keep_files();
    drop(package);
    assert!(object.exists(), "it was kept");
}

#[test]
fn an_archive_that_leads_out_or_is_none_is_refused() {
    let draft = Draft::new();
    let open = |path: &Path| {
        let faults = Package::open(path, &Trust::new(None, 0), draft.dir.path()).expect_err("something is wrong");
        faults.to_string()
    };
    draft.write("v3.rules", "");
    let said = open(&tar(&draft, &["-P", "package", "--transform", "s,package/v3,../v3,"]));
    assert!(said.contains("`../v3.rules` leads out of the package"), "{said}");
    symlink("/etc/passwd", draft.root().join("passwd")).expect("the directory is ours");
    let said = open(&tar(&draft, &["package"]));
    assert!(said.contains("`package/passwd` is neither a file nor a directory (Symlink)"), "{said}");
    let said = open(&tar(&draft, &["-z", "package"]));
    assert!(said.contains("it is compressed") && said.contains("`gunzip`"), "{said}");
    let path = draft.dir.path().join("package.tar");
    fs::write(&path, "nonsense").expect("it is ours");
    assert!(open(&path).contains("it cannot be unpacked"), "{}", open(&path));
    // As the password file begins, which nobody is to be told.
    let secret = format!("root:$6$secret:{}\n", "daemon:*:20228:0:99999:7:::\n".repeat(40));
    fs::write(&path, secret).expect("it is ours");
    let said = open(&path);
    assert!(said.contains("it is no tar archive") && !said.contains("secret") && !said.contains("20228"), "{said}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("it is ours");
    assert!(open(&path).contains("others may write it"), "{}", open(&path));
}
