//! What an update point costs while no update is asked for: a load, a test and a branch, in line.

use std::process::Command;

use crate::support::{run, version};

#[test]
fn an_idle_update_point_is_one_load_and_one_branch() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = dir.path().join("point.c");
    let text = "#include <mvedsua.h>\n\
                void point(void);\n\
                void point(void) { mvedsua_update(\"loop\"); }\n\
                int mvedsua_main(int argc, char **argv) { (void)argv; point(); return argc; }\n";
    std::fs::write(&source, text).expect("a file");
    let object = dir.path().join("point.so");
    version(&source, &object, &[]);
    let listing = run(Command::new("objdump").args(["-d", "--no-show-raw-insn", "--disassemble=point"]).arg(&object));
    let body = listing.lines().skip_while(|line| !line.contains("<point>:")).skip(1);
    let instructions: Vec<&str> = body.filter_map(|line| line.split_once('\t').map(|(_, text)| text.trim())).collect();
    println!("{}", instructions.join("\n"));
    let [load, test, branch, ret, ..] = &instructions[..] else { panic!("{listing}") };
    assert!(load.starts_with("mov ") && load.contains("(%rip)") && load.contains("<mvedsua_pending>"), "{load}");
    assert!(test.starts_with("test "), "{test}");
    assert!(branch.starts_with("jne "), "{branch}");
    assert!(ret.starts_with("ret"), "what follows is the program's own: {ret}");
}
