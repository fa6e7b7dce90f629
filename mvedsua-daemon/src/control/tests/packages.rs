//! Updates to a package, with an engine that says it can apply them.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::control::process;
use crate::package::BuildId;

const NEW: &str = "aabbccddeeff00112233";

/// Writes a package in the site's directory, for what the leader runs, and returns its path and its object.
fn write_package(site: &Site) -> (String, PathBuf) {
    let dir = site.dir.path().join("v2");
    fs::create_dir(&dir).expect("it is ours");
    let object = dir.join("v2.so");
    let mut cc = Program::new("cc")
        .args(["-x", "c", "-", "-nostdlib", "-shared", "-fPIC", &format!("-Wl,--build-id=0x{NEW}"), "-o"])
        .arg(&object)
        .stdin(Stdio::piped())
        .spawn()
        .expect("a C compiler is installed");
    cc.stdin.take().expect("a pipe").write_all(b"int v2_main(void) { return 0; }\n").expect("it reads");
    assert!(cc.wait().expect("it ends").success());
    let from = process::program_of(site.leader.pid()).build_id.expect("it has one");
    let manifest = format!(
        "name = \"v2\"\nmethod = \"in-place\"\nfrom = [\"{from}\"]\nto = \"{NEW}\"\nobject = \"v2.so\"\n\
         entry = \"v2_main\"\n"
    );
    fs::write(dir.join("update.toml"), manifest).expect("it is ours");
    for (path, mode) in [(&dir, 0o755), (&object, 0o755), (&dir.join("update.toml"), 0o644)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    (dir.display().to_string(), object)
}

/// Asks for the update, and to promote as soon as that is possible; returns the answer.
async fn promoted(site: &Site, package: &str) -> Value {
    let old = site.leader.pid();
    let mut talk = site.connect().await;
    let started = talk.ask(update_to(old, package, "manual")).await;
    assert!(started["ok"].is_object(), "{started}");
    let target = talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
    assert_eq!(target["update"]["package"]["to"], NEW, "{target}");
    let (entries, _) = Journal::new(site.dirs().journal()).read().expect("the journal is there");
    let package = entries[0].package.as_ref().expect("the journal names it");
    assert_eq!(package.to, BuildId::parse(NEW).ok());
    talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await
}

#[test]
fn a_promotion_is_one_to_the_build_that_the_package_promised() {
    let mut site = Site::new();
    let (leader, loader) = Sleeper::loader();
    site.leader = leader;
    let (package, object) = write_package(&site);
    // The program ends where nobody can tell it anything any more, and the session's end is not that of the service.
    let _still_there = loader.input.as_fd().try_clone_to_owned().expect("it is open");
    site.brings = Mutex::new(Some((loader, object)));
    site.run(Script::Applies, |_| async {
        let answer = promoted(&site, &package).await;
        assert!(answer["ok"].is_object(), "{answer}");
        let mut talk = site.connect().await;
        let again = talk.ask(json!({"confirm": {"pid": site.leader.pid()}})).await;
        assert!(again["ok"].is_object(), "{again}");
        let again = talk.ask(update_to(site.leader.pid(), &package, "manual")).await;
        assert_eq!(again["error"]["code"], 23, "it is that far already: {again}");
    });
    let past = History::open(site.dirs().history()).find(|_| true, 1);
    assert_eq!(past[0].package.as_ref().map(|package| package.name.as_str()), Some("v2"));
    let audit = fs::read_to_string(site.dirs().audit()).expect("it was written");
    let named = audit.lines().filter(|line| line.contains(NEW)).count();
    assert!(named >= 3, "asked, promoted, ended: {audit}");
}

#[test]
fn a_new_leader_without_the_promised_build_is_rolled_back_with_23() {
    let site = Site::new();
    let (package, _) = write_package(&site);
    site.run(Script::Applies, |_| async {
        let answer = promoted(&site, &package).await;
        assert_eq!(answer["error"]["code"], 23, "{answer}");
        let why = answer["error"]["why"].as_str().unwrap_or_default();
        assert!(why.contains(&format!("does not run build-id {NEW}")), "{answer}");
    });
}

#[test]
fn an_engine_that_cannot_apply_a_package_is_not_asked_to() {
    let site = Site::new();
    let (package, _) = write_package(&site);
    let manifest = PathBuf::from(&package).join("update.toml");
    let in_place = fs::read_to_string(&manifest).expect("it was written");
    let binary = in_place.replace("in-place", "binary").replace("entry = \"v2_main\"\n", "");
    site.run(Script::Obedient, |_| async {
        for (method, text) in [("in-place", in_place), ("binary", binary)] {
            fs::write(&manifest, text).expect("it is ours");
            let answer = site.connect().await.ask(update_to(site.leader.pid(), &package, "manual")).await;
            assert_eq!(answer["error"]["code"], 20, "{answer}");
            let why = answer["error"]["why"].as_str().unwrap_or_default();
            assert!(why.contains(&format!("`{method}` is not built into it yet")), "{answer}");
        }
    });
}
