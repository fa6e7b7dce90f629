//! Update packages, from `package check` to what the history says of them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Place, Server, quiet, redis_ping, wait_for};

const NEW: &str = "aabbccddeeff00112233";
const OTHER: &str = "00112233445566778899";

/// Writes a package whose object is really of build `NEW`.
fn write_package(dir: &Path, from: &str, more: &str) {
    fs::create_dir_all(dir).expect("it is ours");
    let manifest = format!(
        "name = \"v2\"\nmethod = \"in-place\"\nfrom = [\"{from}\"]\nto = \"{NEW}\"\nobject = \"v2.so\"\n\
         entry = \"v2_main\"\n{more}"
    );
    fs::write(dir.join("update.toml"), manifest).expect("it is ours");
    let mut cc = Command::new("cc")
        .args(["-x", "c", "-", "-nostdlib", "-shared", "-fPIC", &format!("-Wl,--build-id=0x{NEW}"), "-o"])
        .arg(dir.join("v2.so"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler is installed");
    cc.stdin.take().expect("a pipe").write_all(b"int v2_main(void) { return 0; }\n").expect("it reads");
    assert!(cc.wait().expect("it ends").success());
    only_the_owner_writes(dir);
}

/// Makes the modes what they should be, whatever the mask of the test is.
fn only_the_owner_writes(dir: &Path) {
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    set(dir, 0o755);
    for file in fs::read_dir(dir).expect("it is there").flatten() {
        set(&file.path(), if file.path().is_dir() { 0o755 } else { 0o644 });
    }
}

fn path(dir: &Path) -> String {
    dir.display().to_string()
}

#[test]
fn check_says_what_a_package_would_do_or_everything_that_is_wrong() {
    let place = Place::new();
    let dir = place.dir.path().join("v2");
    write_package(&dir, OTHER, "rules = []\n[policy]\nsoak = \"1m\"\nmemory-limit = \"1G\"\n");
    let good = place.expect(&["package", "check", &path(&dir)], 0);
    assert!(good.out.contains("nothing is wrong") && good.out.contains("after 1m"), "{}", good.out);
    assert!(good.out.contains("memory up to 1024 MiB"), "{}", good.out);
    assert!(good.out.lines().all(|line| line.chars().count() <= 100), "{}", good.out);
    let json = place.expect(&["package", "check", &path(&dir), "--json"], 0).json();
    assert_eq!((&json["package"]["to"], &json["terms"]["policy"]["soak_ms"]), (&NEW.into(), &60_000.into()), "{json}");

    let manifest = fs::read_to_string(dir.join("update.toml")).expect("it is there");
    fs::write(dir.join("update.toml"), manifest.replace("entry", "entri").replace("1m", "1x")).expect("it is ours");
    let bad = place.expect(&["package", "check", &path(&dir)], 20);
    for said in ["update.toml:6:1: unknown key `entri`", "did you mean `entry`?", "update.toml:9:8: `soak`", "3 things"]
    {
        assert!(bad.out.contains(said), "{said}: {}", bad.out);
    }
    let json = place.expect(&["package", "check", &path(&dir), "--json"], 20).json();
    assert_eq!((&json["package"], &json["faults"][1]["place"]["line"]), (&Value::Null, &6.into()), "{json}");

    fs::write(dir.join("update.toml"), manifest.replace(NEW, "aabbccddeeff00112244")).expect("it is ours");
    let other = place.expect(&["package", "check", &path(&dir)], 23);
    assert!(other.out.contains("`v2.so` is another build"), "{}", other.out);
    place.expect(&["package", "check", "/no/such/package"], 20);
    assert_eq!(place.daemon(), None, "nothing was started for that");
}

#[test]
fn a_package_for_another_version_exits_with_23_and_a_program_without_the_sdk_with_20() {
    let place = Place::new();
    let server = Server::sleep();
    let pid = server.pid();
    let program = fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
    let updates = place.dir.path().join("updates").join(program.file_name().expect("it has a name"));
    fs::create_dir_all(&updates).expect("it is ours");
    write_package(&updates.join("v2"), OTHER, "");
    let refused = place.expect(&["update", &pid, "--to", "v2"], 23);
    assert!(refused.err.contains(&format!("it updates {OTHER}; the process runs")), "{}", refused.err);
    assert!(refused.err.contains("libc.so.6"), "the libraries are named: {}", refused.err);
    place.expect(&["package", "check", &path(&updates.join("v2")), "--target", &pid], 23);

    let build_id = build_id_of(&program);
    write_package(&updates.join("v2"), &build_id, "");
    place.expect(&["package", "check", &path(&updates.join("v2")), "--target", &pid], 0);
    for to in ["v2".to_owned(), path(&updates.join("v2"))] {
        let refused = place.expect(&["update", &pid, "--to", &to], 20);
        assert!(refused.err.contains("its executable was not built with the SDK"), "{}", refused.err);
    }
    let missing = place.expect(&["update", &pid, "--to", "v3"], 20);
    assert!(missing.err.contains("there are `v2`"), "{}", missing.err);
    // Relative to where the command is given, not to the daemon's directory.
    let mut here = place.command(&["update", &pid, "--to", "./v2"]);
    let refused = crate::support::said(here.current_dir(&updates));
    assert!(refused.code == 20 && refused.err.contains("not built with the SDK"), "{}", refused.err);
    fs::set_permissions(updates.join("v2/v2.so"), fs::Permissions::from_mode(0o666)).expect("it is ours");
    let refused = place.expect(&["update", &pid, "--to", "v2"], 20);
    assert!(refused.err.contains("v2.so: others may write it (mode 0666)"), "{}", refused.err);
    let audit = fs::read_to_string(place.dir.path().join("state/audit.jsonl")).expect("it was written");
    let last: Value = serde_json::from_str(audit.lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["what"], &last["to"], &last["code"]), (&"update".into(), &"v2".into(), &20.into()), "{last}");
}

/// Compiles a version of a small library. Its `digit` is what changes between versions.
fn compile(file: &Path, digit: u8, id: &str, more: &str) {
    let source = format!(
        "extern int puts(const char *);
         static int calls;
         static __attribute__((noinline)) int step(int x) {{ calls++; return x * 3 + calls; }}
         int answer(int x) {{ puts(\"asked\"); return step(x) ^ {digit}; }}
         int count(void) {{ return calls; }}
         int twice(int x) {{ return step(step(x)); }}
         int thrice(int x) {{ return step(twice(x)); }}
         int a(int x) {{ return step(x) + 4; }} int b(int x) {{ return step(x) / 7; }}
         int c(int x) {{ return step(x) - 9; }} int d(int x) {{ return step(x) % 11; }}
         int e(int x) {{ return thrice(x) | 3; }} int f(int x) {{ return twice(x) & 12; }}\n{more}\n"
    );
    let mut cc = Command::new("cc")
        .args(["-x", "c", "-", "-O1", "-shared", "-fPIC", &format!("-Wl,--build-id={id}"), "-o"])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler is installed");
    cc.stdin.take().expect("a pipe").write_all(source.as_bytes()).expect("it reads");
    assert!(cc.wait().expect("it ends").success());
}

#[test]
fn build_makes_a_package_of_what_changed_between_two_files() {
    let place = Place::new();
    let at = |name: &str| place.dir.path().join(name);
    compile(&at("old.so"), 5, &format!("0x{OTHER}"), "");
    compile(&at("new.so"), 6, &format!("0x{NEW}"), "");
    fs::write(at("kv"), "# none yet\n").expect("it is ours");
    let (old, new) = (path(&at("old.so")), path(&at("new.so")));
    let build = |args: &[&str], code| {
        let mut command = place.command(&[&["package", "build"][..], args].concat());
        let said = crate::support::said(command.current_dir(place.dir.path()));
        assert_eq!(said.code, code, "{args:?}: {} {}", said.out, said.err);
        said
    };
    let good = build(&["--old", &old, "--new", &new, "--rules", &path(&at("kv"))], 0);
    assert!(good.out.starts_with("can be updated in place"), "{}", good.out);
    assert!(good.out.contains("the package `new.so-aabbccdd` is in new.so-aabbccdd"), "{}", good.out);
    assert!(good.out.contains("changed body") && good.out.contains("answer"), "{}", good.out);
    assert!(good.out.contains("--accept inferred"), "{}", good.out);
    let package = at("new.so-aabbccdd");
    let mut names: Vec<_> = fs::read_dir(&package).expect("it is there").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["kv.rules", "new.so", "report.json", "report.txt", "update.toml"]);
    let report: Value =
        serde_json::from_str(&fs::read_to_string(package.join("report.json")).expect("it is there")).expect("JSON");
    assert_eq!((&report["verdict"], &report["new"]["build_id"]), (&"updatable".into(), &NEW.into()), "{report}");

    let checked = place.expect(&["package", "check", &path(&package)], 0).out;
    for said in ["nothing is wrong", "binary", OTHER, NEW, "new.so: 1 of "] {
        assert!(checked.contains(said), "{said}: {checked}");
    }
    let checked = place.expect(&["package", "check", &path(&package), "--old", &old], 0).out;
    assert!(checked.contains("changed body") && checked.contains("answer"), "{checked}");
    let json = place.expect(&["package", "check", &path(&package), "--old", &old, "--json"], 0).json();
    assert_eq!(json["comparison"]["verdict"], "updatable", "{json}");
    let other = place.expect(&["package", "check", &path(&package), "--old", &new], 23);
    assert!(other.err.contains(&format!("updates build-id {OTHER}, and this is {NEW}")), "{}", other.err);
    place.expect(&["package", "check", &path(&package), "--file", "new.so"], 2);

    let again = build(&["--old", &old, "--new", &new], 2);
    assert!(again.err.contains("is there already"), "{}", again.err);
    let named = build(&["--old", &old, "--new", &new, "--name", "v2", "--json"], 0).json();
    assert_eq!((&named["package"]["name"], &named["package"]["method"]), (&"v2".into(), &"binary".into()), "{named}");
    place.expect(&["package", "check", &path(&at("v2"))], 0);
    build(&["--old", &old, "--new", &new, "--name", "../v3"], 2);
    assert_eq!(place.daemon(), None, "nothing was started for that");
}

#[test]
fn build_writes_nothing_where_the_versions_do_not_fit_or_cannot_be_told_apart() {
    let place = Place::new();
    let at = |name: &str| place.dir.path().join(name);
    compile(&at("old.so"), 5, &format!("0x{OTHER}"), "int size[4] = { 1, 2, 3, 4 };");
    compile(&at("new.so"), 6, &format!("0x{NEW}"), "int size[5] = { 1, 2, 3, 4, 5 };");
    compile(&at("unnamed.so"), 6, "none", "");
    let (old, new, unnamed) = (path(&at("old.so")), path(&at("new.so")), path(&at("unnamed.so")));
    let package = path(&at("package"));
    let build = |new: &str| place.expect(&["package", "build", "--old", &old, "--new", new, "-o", &package], 20);
    let refused = build(&new).out;
    assert!(refused.starts_with("refused, for ") && refused.contains("size"), "{refused}");
    let json = place.expect(&["package", "build", "--old", &old, "--new", &new, "-o", &package, "--json"], 20).json();
    assert_eq!((&json["package"], &json["comparison"]["verdict"]), (&Value::Null, &"refused".into()), "{json}");
    let nameless = build(&unnamed).err;
    assert!(nameless.contains("unnamed.so has no build-id") && nameless.contains("--build-id"), "{nameless}");
    let same = build(&old).err;
    assert!(same.contains("it is the same build") && same.contains("--to self"), "{same}");
    let mut left: Vec<_> =
        fs::read_dir(place.dir.path()).expect("it is there").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["new.so", "old.so", "unnamed.so"]);
}

/// What a process has mapped is compared, also where the file is gone.
#[test]
fn check_compares_a_package_with_what_a_process_runs() {
    let place = Place::new();
    let at = |name: &str| place.dir.path().join(name);
    let program = fs::canonicalize("/bin/sleep").expect("it is there");
    let id = build_id_of(&program);
    let digits = |text: &str| -> Vec<u8> {
        let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("digits")).collect()
    };
    // The same program under another build-id.
    let mut bytes = fs::read(&program).expect("everybody may read it");
    let old = digits(&id);
    let note = bytes.windows(old.len()).position(|window| window == old).expect("the note is in the file");
    bytes[note] ^= 0xff;
    fs::write(at("sleep"), &bytes).expect("it is ours");
    fs::copy(&program, at("running")).expect("it is ours");
    let server = Server { child: quiet(Command::new(at("running")).arg("1000")), port: 0 };
    let pid = server.pid();
    wait_for("the new program", || (fs::read_link(format!("/proc/{pid}/exe")).ok()? == at("running")).then_some(()));
    let package = path(&at("package"));
    place.expect(&["package", "build", "--old", &path(&program), "--new", &path(&at("sleep")), "-o", &package], 0);
    fs::remove_file(at("running")).expect("it is ours");
    let said = place.expect(&["package", "check", &package, "--target", &pid, "--json"], 0).json();
    assert_eq!((&said["comparison"]["old"]["build_id"], &said["package"]["from"][0]), (&id.clone().into(), &id.into()));
    assert_eq!(said["comparison"]["functions"], serde_json::json!([]), "{said}");
}

/// Returns the build-id that `readelf` finds in a file.
fn build_id_of(file: &Path) -> String {
    let output = Command::new("readelf").arg("-n").arg(file).output().expect("binutils are installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| Some(line.trim().strip_prefix("Build ID: ")?.to_owned())).expect("it has one")
}

/// A rehearsal as a package: its policy holds but for what the command line says, and it is named everywhere.
#[test]
fn the_policy_of_a_package_holds_where_the_command_line_says_nothing() {
    let place = Place::new();
    let server = Server::redis(place.dir.path());
    let pid = server.pid();
    let package = place.dir.path().join("rehearsal");
    fs::create_dir_all(&package).expect("it is ours");
    let program = fs::read_link(format!("/proc/{pid}/exe")).expect("it runs");
    let from = build_id_of(&program);
    let manifest = format!(
        "name = \"dry-run\"\nmethod = \"self\"\nfrom = \"{from}\"\n\
         [policy]\nsoak = \"100ms\"\nmin-calls = 20\nmin-outputs = 1000000\ntimeout = \"1m\"\nlog-disk = 0\n"
    );
    fs::write(package.join("update.toml"), manifest).expect("it is ours");
    only_the_owner_writes(&package);
    let tar = tar_of(&package);
    place.expect(&["update", &pid, "--to", &path(&tar), "--min-outputs", "5"], 0);
    let update = wait_for("a verdict", || {
        redis_ping(server.port);
        let status = place.expect(&["status", &pid, "--json"], 0).json();
        let update = status["targets"][0]["update"].clone();
        (!update["result"].is_null()).then_some(update)
    });
    assert_eq!(update["result"]["code"], 0, "{update}\n{}", place.log());
    let terms = &update["terms"];
    let policy = &terms["policy"];
    assert_eq!((&policy["soak_ms"], &policy["timeout_ms"]), (&100.into(), &60_000.into()), "{terms}");
    assert_eq!(policy["thresholds"], serde_json::json!({"min_calls": 20, "min_outputs": 5}));
    assert_eq!((&terms["log_disk"], &terms["log_memory"]), (&0.into(), &(512_u64 << 20).into()), "{terms}");
    assert_eq!((&update["package"]["name"], &update["package"]["from"][0]), (&"dry-run".into(), &from.clone().into()));
    let text = place.expect(&["status", &pid], 0).out;
    assert!(text.contains("dry-run (self)") && text.contains("after 100ms"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    place.expect(&["rollback", &pid], 0);

    let history = place.expect(&["history", "--json"], 0).json();
    assert_eq!(history[0]["package"]["name"], "dry-run", "{history}");
    assert!(place.expect(&["history"], 0).out.contains("dry-run: rolled back"));
    assert!(place.expect(&["report", &pid], 0).out.contains(&from));
    let audit = fs::read_to_string(place.dir.path().join("state/audit.jsonl")).expect("it was written");
    let named = audit.lines().filter(|line| line.contains("\"dry-run\"") && line.contains(&from)).count();
    assert!(named >= 2, "what was asked and what came of it: {audit}");
    let unpacked = fs::read_dir(place.dir.path().join("state/packages")).expect("it is there").count();
    assert_eq!(unpacked, 0, "what the archive was unpacked to is gone");
}

fn tar_of(package: &Path) -> PathBuf {
    let path = package.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&path).arg("-C").arg(package).arg(".");
    assert!(tar.status().expect("tar is installed").success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    path
}
