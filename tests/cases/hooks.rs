//! Hooks of packages: code that converts, in the new version alone, what the comparison of two files refuses otherwise.

use std::path::{Path, PathBuf};

use harness::load::lines::{LineClient, ask};
use harness::load::{Load, Plan};
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use harness::stock::{Addresses, Versions};

/// Outputs that must be compared before a promotion.
const COMPARED: u64 = 100;

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn say(stand: &Stand, line: &str) -> String {
    ask(stand.server.address, line, STEP_LIMIT).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn load(stand: &Stand) -> Load<LineClient> {
    Load::start(Plan::busy(stand.server.address, 10), |_| LineClient::default())
}

/// Two versions of the service, each with its debug file.
struct Pair {
    versions: Versions,
    old: (PathBuf, PathBuf),
    new: (PathBuf, PathBuf),
}

impl Pair {
    fn new(changes: &[&str]) -> Pair {
        let versions = Versions::new(Addresses::Anywhere).unwrap();
        let old = versions.service_with_debug("1", &[]).unwrap();
        let new = versions.service_with_debug("2", changes).unwrap();
        Pair { versions, old, new }
    }

    fn stand(&self) -> Stand {
        Stand::new(self.versions.start(&self.old.0).unwrap())
    }

    /// Builds a package; returns where it is, and what was said.
    #[track_caller]
    fn package(&self, stand: &Stand, name: &str, hooks: &[&str], extra: &[&str], code: i32) -> (PathBuf, String) {
        let package = self.versions.path().join(name);
        let hooks = self.versions.hooks(&format!("{name}.so"), hooks).unwrap();
        let (old, new, hooks, out) = (text(&self.old.0), text(&self.new.0), text(&hooks), text(&package));
        let args = ["package", "build", "--old", &old, "--new", &new, "--hooks", &hooks, "-o", &out];
        let output = stand.daemon.expect(&[&args[..], extra].concat(), code);
        (package, output.stdout + &output.stderr)
    }

    /// The options that name both debug files.
    fn debug(&self) -> [String; 4] {
        ["--debug-old".to_owned(), text(&self.old.1), "--debug-new".to_owned(), text(&self.new.1)]
    }
}

fn update(stand: &Stand, package: &Path, extra: &[&str]) {
    let (pid, to) = (stand.serving.to_string(), text(package));
    let args = ["update", &pid, "--to", &to, "--accept", "inferred"];
    stand.daemon.expect(&[&args[..], extra].concat(), code::DONE);
}

#[track_caller]
fn validate(stand: &Stand, package: &Path) {
    update(stand, package, &[]);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(COMPARED);
}

#[track_caller]
fn go_to(stand: &mut Stand, package: &Path) {
    validate(stand, package);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
}

#[test]
fn a_hook_sets_what_begins_with_another_value() {
    let pair = Pair::new(&["-DVALUE", "-DAREA"]);
    let mut stand = pair.stand();
    let clients = load(&stand);
    assert_eq!((say(&stand, "unit"), say(&stand, "area d 3 4")), ("100".into(), "24".into()));
    // What no hook answers for is refused.
    let (_, told) = pair.package(&stand, "none", &["-DVALUE"], &[], code::REFUSED);
    assert!(told.contains("1 initial values of existing data differ"), "{told}");
    let debug = pair.debug();
    let options: Vec<&str> = ["--transforms", "unit"].into_iter().chain(debug.iter().map(String::as_str)).collect();
    let (package, told) = pair.package(&stand, "value", &["-DVALUE"], &options, code::DONE);
    assert!(told.contains("a hook answers for what `unit`"), "{told}");
    let checked = stand.daemon.expect(&["package", "check", &text(&package)], code::DONE).stdout;
    assert!(checked.contains("hooks.so, converts unit"), "{checked}");
    // Undone, it never was.
    validate(&stand, &package);
    stand.rollback();
    stand.expect_restored();
    assert_eq!(say(&stand, "unit"), "100");
    go_to(&mut stand, &package);
    assert_eq!((say(&stand, "unit"), say(&stand, "area d 3 4")), ("250".into(), "36".into()));
    // The way back has no hook: what the object holds, it holds.
    go_to(&mut stand, &pair.old.0);
    assert_eq!((say(&stand, "unit"), say(&stand, "area d 3 4")), ("250".into(), "24".into()));
    assert_eq!(say(&stand, "unit 7"), "7");
    go_to(&mut stand, &package);
    assert_eq!(say(&stand, "unit"), "7");
    stand.expect_clean(clients);
}

#[test]
fn a_hook_moves_a_table_that_grew() {
    let pair = Pair::new(&["-DGROWN"]);
    let mut stand = pair.stand();
    let clients = load(&stand);
    for key in 0..200 {
        assert_eq!(say(&stand, &format!("add key{key}")), "1");
    }
    let debug = pair.debug();
    let options: Vec<&str> = ["--transforms", "entries"].into_iter().chain(debug.iter().map(String::as_str)).collect();
    let (_, told) = pair.package(&stand, "none", &["-DGROWN"], &[], code::REFUSED);
    assert!(told.contains("an object may have changed its size"), "{told}");
    let (package, told) = pair.package(&stand, "grown", &["-DGROWN"], &options, code::DONE);
    assert!(told.contains("`entries` had 128 bytes"), "{told}");
    validate(&stand, &package);
    stand.rollback();
    stand.expect_restored();
    assert_eq!(say(&stand, "add key0"), "2");
    go_to(&mut stand, &package);
    assert_eq!(say(&stand, "add key0"), "3");
    for key in 1..200 {
        assert_eq!(say(&stand, &format!("add key{key}")), "2");
    }
    // What the old table holds is out of date.
    let pid = stand.serving.to_string();
    let args = ["update", &pid, "--to", &text(&pair.old.0), "--accept", "inferred"];
    let told = stand.daemon.expect(&args, code::REFUSED).stderr;
    assert!(told.contains("moved 1 of its objects"), "{told}");
    stand.expect_clean(clients);
}

/// Nothing may lead to the old table afterwards; a hook that sees to that is not believed.
#[test]
fn what_still_leads_to_what_moved_is_found() {
    let pair = Pair::new(&["-DGROWN"]);
    let mut stand = pair.stand();
    let clients = load(&stand);
    let debug = pair.debug();
    let options: Vec<&str> = ["--transforms", "entries"].into_iter().chain(debug.iter().map(String::as_str)).collect();
    let (package, _) = pair.package(&stand, "keeps", &["-DGROWN", "-DKEEPS"], &options, code::DONE);
    update(&stand, &package, &["--retries", "0"]);
    let (_, why) = stand.settled().result.expect("it is over");
    assert!(why.contains("leads to the old `entries`"), "{why}");
    stand.expect_restored();
    stand.expect_clean(clients);
}

/// Whatever a hook does: the service is not touched, and the reason is told.
#[test]
fn a_hook_that_fails_ends_the_update_alone() {
    let pair = Pair::new(&["-DAREA"]);
    let mut stand = pair.stand();
    let clients = load(&stand);
    let (_, told) = pair.package(&stand, "unknown", &["-DFAILS"], &["--transforms", "nobody"], code::REFUSED);
    assert!(told.contains("there is no such object in the old file"), "{told}");
    for (name, reason) in [
        ("-DFAILS", "`mvedsua_after` returned 1: there is no object `nobody`"),
        ("-DCRASHES", "`mvedsua_after` came upon signal 11, at hooks.so+0x"),
        ("-DCALLS", "`mvedsua_after` made the system call write"),
        ("-DSPINS", "`mvedsua_after` did not return in time, at hooks.so+0x"),
    ] {
        let (package, _) = pair.package(&stand, &name[2..], &[name], &[], code::DONE);
        update(&stand, &package, &[]);
        let (_, why) = stand.settled().result.expect("it is over");
        assert!(why.contains(reason), "{name}: {why}");
        stand.expect_restored();
        assert_eq!(say(&stand, "area d 3 4"), "24");
    }
    stand.expect_clean(clients);
}
