//! Packages that debug files prove: they need no consent, and prove nothing but what they were made for.

use std::fs;
use std::path::{Path, PathBuf};

use harness::load::lines::{LineClient, ask};
use harness::load::{Load, Plan};
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use harness::stock::{Addresses, Versions};

/// Outputs that must be compared before a promotion.
const COMPARED: u64 = 100;
/// What is told where a build is another one than was promised.
const OTHER_BUILD: i32 = 23;

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn say(stand: &Stand, line: &str) -> String {
    ask(stand.server.address, line, STEP_LIMIT).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// A running service, and its next version; each with its debug file.
struct Pair {
    versions: Versions,
    stand: Stand,
    old: (PathBuf, PathBuf),
    new: (PathBuf, PathBuf),
}

impl Pair {
    fn new(changes: &[&str]) -> Pair {
        let versions = Versions::new(Addresses::Anywhere).unwrap();
        let old = versions.service_with_debug("1", &[]).unwrap();
        let new = versions.service_with_debug("2", changes).unwrap();
        let stand = Stand::new(versions.start(&old.0).unwrap());
        Pair { versions, stand, old, new }
    }

    /// Builds a package with these debug files; returns where it is, and what was said.
    #[track_caller]
    fn package(&self, debug_old: &Path, debug_new: &Path, code: i32) -> (PathBuf, String) {
        let package = self.versions.path().join("package");
        let (old, new, out) = (text(&self.old.0), text(&self.new.0), text(&package));
        let debug = [text(debug_old), text(debug_new)];
        let args = ["package", "build", "--old", &old, "--new", &new, "-o", &out];
        let output = self
            .stand
            .daemon
            .expect(&[&args[..], &["--debug-old", &debug[0], "--debug-new", &debug[1]]].concat(), code);
        (package, output.stdout + &output.stderr)
    }

    /// Asks for an update without any consent.
    #[track_caller]
    fn update(&self, package: &Path, code: i32) -> String {
        let (pid, to) = (self.stand.serving.to_string(), text(package));
        self.stand.daemon.expect(&["update", &pid, "--to", &to], code).stderr
    }
}

#[test]
fn what_is_proved_needs_no_consent() {
    let mut pair = Pair::new(&["-DAREA"]);
    let clients = Load::start(Plan::busy(pair.stand.server.address, 10), |_| LineClient::default());
    let told = pair.update(&pair.new.0, code::REFUSED);
    assert!(told.contains("no types are known that would prove it") && told.contains("--debug-old"), "{told}");
    let (package, told) = pair.package(&pair.old.1, &pair.new.1, code::DONE);
    assert!(told.contains("proved with the debug files of both") && !told.contains("--accept"), "{told}");
    let checked =
        pair.stand.daemon.expect(&["package", "check", &text(&package), "--old", &text(&pair.old.0)], code::DONE);
    assert!(checked.stdout.contains("can be updated in place (proved"), "{}", checked.stdout);
    assert!(checked.stdout.contains("with service.debug and service.debug"), "{}", checked.stdout);
    assert_eq!(say(&pair.stand, "area d 3 4"), "24");
    pair.update(&package, code::DONE);
    pair.stand.daemon.wait_stage(pair.stand.serving, VALIDATING, STEP_LIMIT);
    pair.stand.wait_compared(COMPARED);
    pair.stand.promote();
    pair.stand.confirm();
    pair.stand.expect_alone();
    assert_eq!(say(&pair.stand, "area d 3 4"), "36");
    pair.stand.expect_clean(clients);
}

/// A table among the others is new, or another one grew: the files do not tell, and symbols do.
#[test]
fn what_the_files_do_not_tell_is_proved() {
    let mut pair = Pair::new(&["-DTALLY"]);
    let clients = Load::start(Plan::busy(pair.stand.server.address, 10), |_| LineClient::default());
    let inferred = |pair: &Pair, to: &Path| {
        let (pid, to) = (pair.stand.serving.to_string(), text(to));
        pair.stand.daemon.expect(&["update", &pid, "--to", &to, "--accept", "inferred"], code::REFUSED).stderr
    };
    let told = inferred(&pair, &pair.new.0);
    assert!(told.contains("neither bound nor shown to be new"), "{told}");
    let (package, told) = pair.package(&pair.old.1, &pair.new.1, code::DONE);
    assert!(told.contains("proved with the debug files of both") && told.contains("or to be new, which"), "{told}");
    let checked =
        pair.stand.daemon.expect(&["package", "check", &text(&package), "--old", &text(&pair.old.0)], code::DONE);
    assert!(checked.stdout.contains("can be updated in place (proved"), "{}", checked.stdout);
    // What was shown holds for what was proved, and for nothing else.
    let manifest = package.join("update.toml");
    let said = fs::read_to_string(&manifest).unwrap();
    assert!(said.contains("\nfresh = [[0x"), "{said}");
    let digest = said.lines().find_map(|line| line.strip_prefix("patch = ")).unwrap();
    fs::write(&manifest, said.replace(digest, &format!("\"{}\"", "0".repeat(64)))).unwrap();
    let told = inferred(&pair, &package);
    assert!(told.contains("without a proof the two versions are refused"), "{told}");
    let args = ["package", "check", &text(&package), "--old", &text(&pair.old.0)];
    pair.stand.daemon.expect(&args, code::REFUSED);
    fs::write(&manifest, said).unwrap();
    assert_eq!(say(&pair.stand, "area d 3 4"), "24");
    pair.update(&package, code::DONE);
    pair.stand.daemon.wait_stage(pair.stand.serving, VALIDATING, STEP_LIMIT);
    pair.stand.wait_compared(COMPARED);
    pair.stand.promote();
    pair.stand.confirm();
    pair.stand.expect_alone();
    assert_eq!([say(&pair.stand, "area d 3 4"), say(&pair.stand, "area d 3 4")], ["25", "26"]);
    pair.stand.expect_clean(clients);
}

#[test]
fn a_proof_of_something_else_is_none() {
    let pair = Pair::new(&["-DAREA"]);
    let (package, _) = pair.package(&pair.old.1, &pair.new.1, code::DONE);
    let manifest = package.join("update.toml");
    let said = fs::read_to_string(&manifest).unwrap();
    let digest = said.lines().find_map(|line| line.strip_prefix("patch = ")).unwrap();
    fs::write(&manifest, said.replace(digest, &format!("\"{}\"", "0".repeat(64)))).unwrap();
    let told = pair.update(&package, code::REFUSED);
    assert!(told.contains("was proved for another comparison than this one"), "{told}");
    pair.stand.expect_restored();
}

#[test]
fn debug_files_of_other_builds_are_not_taken() {
    let pair = Pair::new(&["-DAREA"]);
    let (package, told) = pair.package(&pair.new.1, &pair.new.1, OTHER_BUILD);
    assert!(told.contains("it is of another build: its build-id is") && !package.exists(), "{told}");
    let (package, told) = pair.package(&pair.old.0, &pair.new.1, code::USAGE);
    assert!(told.contains("service: it has no t") && !package.exists(), "{told}");
}

/// As packages with debug files lay them down.
#[test]
fn debug_files_are_found_in_a_directory() {
    let pair = Pair::new(&["-DAREA"]);
    let dir = pair.versions.path().join("debug");
    for (file, debug) in [&pair.old, &pair.new] {
        let shown =
            pair.stand.daemon.expect(&["compare", &text(file), &text(file), "--json"], code::DONE).json().unwrap();
        let id = shown["old"]["build_id"].as_str().unwrap();
        let place = dir.join(".build-id").join(&id[..2]);
        fs::create_dir_all(&place).unwrap();
        fs::copy(debug, place.join(format!("{}.debug", &id[2..]))).unwrap();
    }
    let (old, new, dir) = (text(&pair.old.0), text(&pair.new.0), text(&dir));
    let args = ["compare", &old, &new, "--debug-old", &dir, "--debug-new", &dir, "--json"];
    let shown = pair.stand.daemon.expect(&args, code::DONE).json().unwrap();
    assert_eq!((&shown["verdict"], &shown["certainty"]), (&"updatable".into(), &"proved".into()));
    assert!(shown["proof"]["types"].as_u64().is_some_and(|types| types > 3), "{}", shown["proof"]);
    let args = ["compare", &old, &new, "--debug-old", &dir, "--debug-new", &text(pair.versions.path())];
    let told = pair.stand.daemon.expect(&args, code::USAGE).stderr;
    assert!(told.contains("has none for build-id"), "{told}");
}
