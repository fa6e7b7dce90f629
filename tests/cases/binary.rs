//! The method `binary`: stripped programs and libraries, which know nothing of updates, go to their next version under load.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use harness::load::lines::{LineClient, ask};
use harness::load::{Load, Plan};
use harness::process;
use harness::server::Server;
use harness::stand::{STEP_LIMIT, Stand, VALIDATING, code};
use harness::stock::{Addresses, Versions};
use harness::wait::wait_for;

const CLIENTS: usize = 10;
/// Outputs that must be compared before a promotion.
const COMPARED: u64 = 100;

fn load(stand: &Stand) -> Load<LineClient> {
    Load::start(Plan::busy(stand.server.address, CLIENTS), |_| LineClient::default())
}

/// Asks the service one thing.
#[track_caller]
fn say(server: &Server, line: &str) -> String {
    ask(server.address, line, STEP_LIMIT).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Asks for a next version; `code` is what the command is to come to.
#[track_caller]
fn update(stand: &Stand, to: &Path, extra: &[&str], code: i32) -> String {
    let (pid, to) = (stand.serving.to_string(), to.display().to_string());
    let args = [&["update", &pid, "--to", &to, "--accept", "inferred"], extra].concat();
    let output = stand.daemon.expect(&args, code);
    output.stderr + &output.stdout
}

#[track_caller]
fn validate(stand: &Stand, to: &Path) {
    update(stand, to, &[], code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(COMPARED);
}

/// The whole way to a version.
#[track_caller]
fn go_to(stand: &mut Stand, to: &Path) {
    validate(stand, to);
    stand.promote();
    stand.confirm();
    stand.expect_alone();
}

/// What the service says of everything that differs between its versions.
fn answers(server: &Server) -> Vec<String> {
    let questions = ["hello", "area a 3 4", "area d 3 4", "kind old", "kind new", "name 4", "name 5"];
    questions.iter().map(|question| say(server, question)).collect()
}

const OLD: [&str; 7] = ["hello", "12", "24", "tock", "tick", "four", "five"];
const NEW: [&str; 7] = ["good morning, this is version 2 (two), yours", "12", "36", "tock", "tick", "quattro", "five"];

fn goes_to_its_next_version_and_back(addresses: Addresses) {
    let versions = Versions::new(addresses).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let changes = ["-DGREETING", "-DAREA", "-DCALLBACK", "-DHELPER", "-DNAMES", "-DDIVIDES"];
    let new = versions.service("2", &changes).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    assert_eq!([say(&stand.server, "add old"), say(&stand.server, "add old")], ["1", "2"]);
    assert_eq!((say(&stand.server, "turn old"), say(&stand.server, "add new")), ("tock".into(), "1".into()));
    assert_eq!(answers(&stand.server), OLD);

    // Undone before the promotion.
    validate(&stand, &new);
    stand.rollback();
    stand.expect_restored();
    assert_eq!(answers(&stand.server), OLD);

    // Undone after it.
    validate(&stand, &new);
    stand.promote();
    assert_eq!(say(&stand.server, "area d 3 4"), "36");
    clients.wait_requests(100, STEP_LIMIT);
    // The old version, which follows, says something else: it leads again.
    stand.settled();
    stand.expect_alone();
    assert_eq!(answers(&stand.server), OLD);

    // And for good. Pointers to functions that were stored before mean the same ones.
    go_to(&mut stand, &new);
    assert_eq!(answers(&stand.server), NEW);
    let symbols = stand.daemon.expect(&["symbols", &stand.serving.to_string()], code::DONE).stdout;
    assert!(symbols.lines().count() >= 7 && symbols.lines().all(|line| line.ends_with(" [service]")), "{symbols}");
    assert_eq!([say(&stand.server, "add new"), say(&stand.server, "add new")], ["2", "5"]);
    assert_eq!((say(&stand.server, "turn new"), say(&stand.server, "turn new")), ("tock".into(), "tick".into()));
    assert_eq!((say(&stand.server, "add later"), say(&stand.server, "kind later")), ("1".into(), "tick".into()));
    assert_eq!((say(&stand.server, "divide 7 0"), say(&stand.server, "divide 7 2")), ("by zero".into(), "3".into()));

    // The way back is an update, too.
    go_to(&mut stand, &old);
    assert_eq!(answers(&stand.server), OLD);
    assert_eq!(say(&stand.server, "add new"), "6");
    stand.expect_clean(clients);
}

#[test]
fn a_stripped_program_goes_to_its_next_version_and_back() {
    goes_to_its_next_version_and_back(Addresses::Anywhere);
}

#[test]
fn so_does_one_with_fixed_addresses() {
    goes_to_its_next_version_and_back(Addresses::Fixed);
}

/// The way back is a way like any other, and what was loaded once is used again.
#[test]
fn versions_follow_each_other_and_nothing_piles_up() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let first = versions.service("1", &[]).unwrap();
    let second = versions.service("2", &["-DAREA"]).unwrap();
    let third = versions.service("3", &["-DAREA", "-DNAMES", "-DHELPER"]).unwrap();
    let mut stand = Stand::new(versions.start(&first).unwrap());
    let clients = load(&stand);
    let is = |stand: &Stand| [say(&stand.server, "area d 3 4"), say(&stand.server, "name 4")];
    let areas = |stand: &Stand| fs::read_to_string(format!("/proc/{}/maps", stand.serving)).unwrap().lines().count();
    let mut counts = vec![];
    for _ in 0..3 {
        go_to(&mut stand, &second);
        assert_eq!(is(&stand), ["36", "four"]);
        go_to(&mut stand, &third);
        assert_eq!(is(&stand), ["36", "quattro"]);
        let told = update(&stand, &third, &[], 23);
        assert!(told.contains("already"), "{told}");
        go_to(&mut stand, &first);
        assert_eq!(is(&stand), ["24", "four"]);
        counts.push(areas(&stand));
    }
    assert_eq!(counts[1], counts[2], "nothing is loaded a second time");
    stand.expect_clean(clients);
}

/// Variables that only the new version has begin anew each time it comes.
#[test]
fn a_version_brings_variables_of_its_own() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let named = ["-rdynamic", "-Dstatic="];
    let first = versions.service("1", &named).unwrap();
    let second = versions.service("2", &[&named[..], &["-DFRESH"]].concat()).unwrap();
    let third = versions.service("3", &[&named[..], &["-DFRESH", "-DAREA"]].concat()).unwrap();
    let mut stand = Stand::new(versions.start(&first).unwrap());
    let clients = load(&stand);
    let own = |stand: &Stand| say(&stand.server, "seen").split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(own(&stand), Vec::<String>::new());
    for _ in 0..2 {
        go_to(&mut stand, &second);
        assert_eq!((own(&stand), own(&stand)), (vec!["1".into(), "2".into()], vec!["2".into(), "4".into()]));
        // What they hold would be lost.
        let told = update(&stand, &third, &[], code::REFUSED);
        assert!(told.contains("2 variables of its own"), "{told}");
        go_to(&mut stand, &first);
    }
    stand.expect_clean(clients);
}

/// The old version meets what the new one mends, while both run.
fn takes_over(both: &[&str]) {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", both).unwrap();
    let new = versions.service("2", &[both, &["-DDIVIDES"]].concat()).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    assert_eq!(say(&stand.server, "add key"), "1");
    validate(&stand, &new);
    assert_eq!(say(&stand.server, "divide 1 0"), "by zero");
    stand.taken_over();
    assert_eq!((say(&stand.server, "divide 1 0"), say(&stand.server, "add key")), ("by zero".into(), "2".into()));
    stand.expect_alone();
    stand.expect_clean(clients);
}

#[test]
fn the_new_version_takes_over_where_the_old_one_crashes() {
    takes_over(&[]);
}

/// It has a handler, which reads files and writes a report before it ends.
#[test]
fn the_new_version_takes_over_where_the_old_one_would_tell_of_its_crash() {
    takes_over(&["-DREPORTS"]);
}

/// The new version aborts while it leads, and tells of it in a handler; the old one, which does not, leads again.
#[test]
fn the_old_version_takes_over_where_the_new_one_would_tell_that_it_aborts() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &["-DREPORTS"]).unwrap();
    let new = versions.service("2", &["-DREPORTS", "-DABORTS"]).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    for _ in 0..5 {
        validate(&stand, &new);
        stand.promote();
        assert_eq!(say(&stand.server, "boom"), "what?");
        stand.taken_over();
        assert_eq!(say(&stand.server, "boom"), "what?");
        stand.expect_alone();
    }
    stand.expect_clean(clients);
}

#[test]
fn a_new_version_that_is_wrong_is_found_out() {
    for (name, expected) in [("-DWRONG", code::DIVERGED), ("-DSPINS", code::CRASHED)] {
        let versions = Versions::new(Addresses::Anywhere).unwrap();
        let old = versions.service("1", &[]).unwrap();
        let new = versions.service("2", &[name]).unwrap();
        let mut stand = Stand::new(versions.start(&old).unwrap());
        let clients = load(&stand);
        update(&stand, &new, &["--retries", "0"], code::DONE);
        let status = stand.settled();
        let (found, text) = status.result.expect("it is over");
        assert_eq!(found, expected as u64, "{name}: {text}");
        if expected == code::DIVERGED {
            // The stack leads through what was loaded.
            let report = stand.daemon.expect(&["report", &stand.serving.to_string()], code::DONE).stdout;
            assert!(report.contains("(next version of service)"), "{report}");
        }
        stand.expect_restored();
        stand.expect_clean(clients);
    }
}

/// A function that never returns cannot be changed: who is in it, and where, is told.
#[test]
fn a_function_that_is_never_left_is_told() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DLOOP"]).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    update(&stand, &new, &[], code::DONE);
    let status = stand.settled();
    let (_, text) = status.result.expect("it is over");
    assert!(text.contains("is inside a function of service at 0x"), "{text}");
    stand.expect_restored();
    stand.expect_clean(clients);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_touched() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DAREA"]).unwrap();
    let grown = versions.service("3", &["-DGROWN"]).unwrap();
    let stand = Stand::new(versions.start(&old).unwrap());
    let (pid, to) = (stand.serving.to_string(), new.display().to_string());
    let refused = stand.daemon.expect(&["update", &pid, "--to", &to], code::REFUSED);
    assert!(refused.stderr.contains("--accept inferred"), "{}", refused.stderr);
    let told = update(&stand, &grown, &[], code::REFUSED);
    assert!(told.contains("an object may have changed its size"), "{told}");
    let told = update(&stand, &old, &[], 23);
    assert!(told.contains("already"), "{told}");
    let told = update(&stand, Path::new("/bin/sleep"), &[], code::REFUSED);
    assert!(told.contains("too far apart"), "{told}");
    let told = update(&stand, &new, &["--library", "libnone.so"], code::REFUSED);
    assert!(told.contains("no file `libnone.so` mapped"), "{told}");
    stand.expect_restored();
}

/// Somebody has written a breakpoint to where a jump would stand.
#[test]
fn code_that_somebody_changed_is_left_alone() {
    let versions = Versions::new(Addresses::Fixed).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DAREA"]).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    let text = |path: &Path| path.display().to_string();
    let compared = stand.daemon.expect(&["compare", &text(&old), &text(&new), "--json"], code::DONE).json().unwrap();
    let at = compared["functions"][0]["old"].as_u64().unwrap();
    let memory = fs::File::options().read(true).write(true).open(format!("/proc/{}/mem", stand.serving)).unwrap();
    let mut before = [0];
    memory.read_exact_at(&mut before, at).unwrap();
    memory.write_all_at(&[0xcc], at).unwrap();
    update(&stand, &new, &[], code::DONE);
    let status = stand.settled();
    let (_, why) = status.result.expect("it is over");
    assert!(why.contains("somebody has changed it"), "{why}");
    memory.write_all_at(&before, at).unwrap();
    assert_eq!(say(&stand.server, "area d 3 4"), "24");
    go_to(&mut stand, &new);
    assert_eq!(say(&stand.server, "area d 3 4"), "36");
    stand.expect_clean(clients);
}

/// What the package manager has put in the file's place.
#[test]
fn what_is_installed_is_found() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DAREA"]).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let pid = stand.serving.to_string();
    let args = ["update", &pid, "--to", "installed", "--accept", "inferred"];
    let told = stand.daemon.expect(&args, 23);
    assert!(told.stderr.contains("it runs what is installed"), "{}", told.stderr);
    fs::rename(&new, &old).unwrap();
    let clients = load(&stand);
    stand.daemon.expect(&args, code::DONE);
    stand.daemon.wait_stage(stand.serving, VALIDATING, STEP_LIMIT);
    stand.wait_compared(COMPARED);
    stand.promote();
    stand.confirm();
    assert_eq!(say(&stand.server, "area d 3 4"), "36");
    stand.daemon.expect(&args, 23);
    stand.expect_clean(clients);
}

#[test]
fn a_package_brings_a_next_version() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DAREA"]).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    let package = versions.path().join("package");
    let text = |path: &Path| path.display().to_string();
    let args = ["package", "build", "--old", &text(&old), "--new", &text(&new), "-o", &text(&package)];
    stand.daemon.expect(&args, code::DONE);
    stand.daemon.expect(&["package", "check", &text(&package)], code::DONE);
    go_to(&mut stand, &package);
    assert_eq!(say(&stand.server, "area d 3 4"), "36");
    update(&stand, &package, &[], 23);
    stand.expect_clean(clients);
}

/// Functions of the C library that the old version did not use; one of them is chosen when a program starts (IFUNC).
#[test]
fn functions_of_libraries_are_found() {
    for (name, greeting) in [("-DIMPORT", "hello"), ("-DCHOSEN", "hello again")] {
        let versions = Versions::new(Addresses::Anywhere).unwrap();
        let old = versions.service("1", &[]).unwrap();
        let new = versions.service("2", &[name]).unwrap();
        let mut stand = Stand::new(versions.start(&old).unwrap());
        let clients = load(&stand);
        assert_eq!(say(&stand.server, "hello"), "hello");
        go_to(&mut stand, &new);
        assert_eq!(say(&stand.server, "hello"), greeting, "{name}");
        stand.expect_clean(clients);
    }
}

/// A later daemon reads from the process which version it runs.
#[test]
fn a_later_daemon_knows_what_was_loaded() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let old = versions.service("1", &[]).unwrap();
    let new = versions.service("2", &["-DAREA"]).unwrap();
    let mut stand = Stand::new(versions.start(&old).unwrap());
    let clients = load(&stand);
    validate(&stand, &new);
    stand.daemon.kill();
    stand.daemon.start_again().unwrap();
    assert_eq!(say(&stand.server, "area d 3 4"), "24");
    validate(&stand, &new);
    stand.promote();
    stand.daemon.kill();
    stand.daemon.start_again().unwrap();
    assert_eq!(say(&stand.server, "area d 3 4"), "36");
    let told = update(&stand, &new, &[], 23);
    assert!(told.contains("already"), "{told}");
    go_to(&mut stand, &old);
    assert_eq!(say(&stand.server, "area d 3 4"), "24");
    stand.expect_clean(clients);
}

/// A library in C++: exceptions of old and new types pass through its functions, threads have their own variables, and one is
/// cancelled in it.
#[test]
fn a_library_goes_to_its_next_version() {
    let versions = Versions::new(Addresses::Anywhere).unwrap();
    let first = versions.shapes("1", &[]).unwrap();
    let second = versions.shapes("2", &["-DBODY"]).unwrap();
    let third = versions.shapes("3", &["-DBODY", "-DLATER"]).unwrap();
    let program = versions.draw(&first).unwrap();
    let mut stand = Stand::new(versions.start(&program).unwrap());
    let clients = load(&stand);
    let is =
        |stand: &Stand| ["square 3", "square -1", "square 200", "square 13", "cancel"].map(|it| say(&stand.server, it));
    assert_eq!(is(&stand), ["9.000000", "error: no square", "40000.000000", "169.000000", "1"]);
    go_to(&mut stand, &second);
    assert_eq!(is(&stand), ["9.000000", "error: no square", "out of range: a large square", "169.000000", "1"]);
    go_to(&mut stand, &third);
    assert_eq!(is(&stand), ["9.000000", "error: no square", "out of range: a large square", "0.000000", "1"]);
    go_to(&mut stand, &first);
    assert_eq!(is(&stand), ["9.000000", "error: no square", "40000.000000", "169.000000", "1"]);
    stand.expect_clean(clients);
    wait_for("the library's threads to end", STEP_LIMIT, || {
        (process::thread_states(stand.serving).len() == 1).then_some(())
    });
}
