//! The control plane with a scripted engine behind it, through its real socket.

mod clocks;
mod connections;
mod damage;
mod events;
mod falls;
mod fuzzed;
mod gates;
mod hanging_disk;
mod http;
mod limits;
mod month;
mod packages;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::audit::Peer;
use super::daemon::{Daemon, StartError};
use super::dirs::Dirs;
use super::engine::{Ability, Engine, SessionHandle};
use super::events::What;
use super::history::History;
use super::journal::{FORMAT, Journal, JournalEntry, boot_id};
use super::observer::Observer;
use super::process::ProcessId;
use super::protocol::{MAX_REQUEST, Problem, Request};
use super::server;
use crate::compare::{Divergence, DivergenceKind};
use crate::lifecycle::{Outcome, Recovery, Stage};
use crate::monitor::{AttachOptions, Mode, StatsSnapshot, TargetInfo, Totals};
use crate::record::Slot;
use crate::update::{Command, Counters, FailureKind, Options, SessionEvent, Which};

const LIMIT: Duration = Duration::from_secs(20);

/// A process that does nothing; it is ended with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Sleeper::adopt(Program::new("sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// Starts a program and waits until it has loaded what it runs.
    fn adopt(program: &mut Program) -> Self {
        let sleeper = Sleeper(program.spawn().expect("it is installed"));
        let maps = || std::fs::read_to_string(format!("/proc/{}/maps", sleeper.pid())).unwrap_or_default();
        let deadline = std::time::Instant::now() + LIMIT;
        while !maps().contains("libc.so") {
            assert!(std::time::Instant::now() < deadline, "waited {LIMIT:?} for {program:?} to load its libraries");
            std::thread::yield_now();
        }
        sleeper
    }

    /// Starts a program that loads an object when it is told to.
    fn loader() -> (Self, Loader) {
        let program = "import ctypes, sys; ctypes.CDLL(sys.stdin.readline().strip()); sys.stdin.read()";
        let mut command = Program::new("python3");
        let mut loader = Sleeper::adopt(command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::null()));
        let maps = || std::fs::read_to_string(format!("/proc/{}/maps", loader.pid())).unwrap_or_default();
        let deadline = std::time::Instant::now() + LIMIT;
        while !maps().contains("_ctypes") {
            assert!(std::time::Instant::now() < deadline, "waited {LIMIT:?} for Python to load its modules");
            std::thread::yield_now();
        }
        let input = loader.0.stdin.take().expect("it is piped");
        let pid = loader.pid();
        (loader, Loader { input, pid })
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

/// What tells a program to load an object.
struct Loader {
    input: ChildStdin,
    pid: i32,
}

impl Loader {
    /// Has the object loaded, as a promotion brings new code into a process.
    fn load(&mut self, object: &Path) {
        writeln!(self.input, "{}", object.display()).expect("it listens");
        let maps = || std::fs::read_to_string(format!("/proc/{}/maps", self.pid)).unwrap_or_default();
        let deadline = std::time::Instant::now() + LIMIT;
        while !maps().contains(&*object.to_string_lossy()) {
            assert!(std::time::Instant::now() < deadline, "waited {LIMIT:?} for {} to be loaded", object.display());
            std::thread::yield_now();
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the scripted engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Everything goes well, and everything that is asked is done.
    Obedient,
    /// The same, and it can apply packages in place.
    Applies,
    /// The follower diverges as soon as it has caught up.
    Diverges,
    /// It cannot be started.
    Refuses,
    /// It vanishes after the fork without a last word.
    Vanishes,
    /// It panics when it is to be started.
    Falls,
}

/// An engine whose follower is a process that the test has started.
struct ScriptedEngine {
    script: Script,
    follower: i32,
    /// What a promotion brings into the leader.
    brings: Mutex<Option<(Loader, PathBuf)>>,
    recovered: Mutex<Vec<JournalEntry>>,
}

impl Engine for ScriptedEngine {
    fn start(&self, pid: i32, _options: Options) -> Result<SessionHandle, FailureKind> {
        if self.script == Script::Refuses {
            return Err(FailureKind::Refused(vec!["the script says so".to_owned()]));
        }
        assert_ne!(self.script, Script::Falls, "the script says so");
        let (commands, inbox) = unbounded();
        let (outbox, events) = unbounded();
        let (script, follower) = (self.script, self.follower);
        let mut brings = self.brings.lock().expect("no test panics in it").take();
        let session = std::thread::spawn(move || {
            let tell = |event| outbox.send(event).expect("the driver listens");
            tell(SessionEvent::Forked { leader: pid, follower, threads: 3, pause_us: 1500 });
            if script == Script::Vanishes {
                return;
            }
            tell(SessionEvent::Applied);
            tell(SessionEvent::CaughtUp);
            let counters = Counters { compared_calls: 500, compared_outputs: 50, ..Counters::default() };
            tell(SessionEvent::Progress(counters));
            if script == Script::Diverges {
                tell(SessionEvent::Failed(FailureKind::Diverged(Box::new(divergence()))));
                // What was compared since it was last told.
                tell(SessionEvent::Progress(Counters {
                    compared_calls: 777,
                    compared_outputs: 77,
                    ..Counters::default()
                }));
                tell(SessionEvent::RolledBack { leader: pid });
                return;
            }
            for command in inbox {
                match command {
                    Command::Promote => {
                        if let Some((loader, object)) = &mut brings {
                            loader.load(object);
                        }
                        tell(SessionEvent::Promoted { leader: pid, follower, moved: 9, pause_us: 700 });
                    }
                    Command::Confirm => return tell(SessionEvent::Confirmed { leader: pid }),
                    Command::Rollback { reason } => {
                        tell(SessionEvent::Failed(FailureKind::Asked(reason)));
                        return tell(SessionEvent::RolledBack { leader: pid });
                    }
                }
            }
        });
        Ok(SessionHandle { commands, events, keep: Box::new(session) })
    }

    fn abilities(&self) -> &'static [Ability] {
        if self.script == Script::Applies { &[Ability::InPlace] } else { &[] }
    }

    fn recover(&self, entry: &JournalEntry) -> Recovery {
        assert_ne!(self.script, Script::Falls, "the script says so");
        self.recovered.lock().expect("no test panics in it").push(entry.clone());
        Recovery::Serving { leader: entry.leader.pid, version: Which::Old }
    }
}

fn divergence() -> Divergence {
    Divergence {
        kind: DivergenceKind::Call,
        slot: Slot(0),
        seq: None,
        expected: None,
        actual: None,
        last_matched: vec![],
        backtrace: vec![],
        raced: false,
        unrecorded_clock: false,
        half_read: false,
        situation: None,
        remark: None,
        nearest_rule: None,
    }
}

/// A monitor that remembers what it was told to observe.
#[derive(Default)]
struct FakeObserver(Mutex<Vec<TargetInfo>>);

fn not_observed(pid: i32) -> Problem {
    Problem::new(super::Code::Usage, "observing", format!("process {pid} is not observed"), "attach it")
}

impl Observer for FakeObserver {
    fn attach(&self, pid: i32, options: AttachOptions) -> Result<TargetInfo, Problem> {
        let state = crate::monitor::ProcessState::Running;
        let target = TargetInfo { pid, name: "sleep".to_owned(), options, attached_at_ms: 0, state };
        self.0.lock().expect("no test panics in it").push(target.clone());
        Ok(target)
    }

    fn detach(&self, pid: i32) -> Result<(), Problem> {
        let mut targets = self.0.lock().expect("no test panics in it");
        let before = targets.len();
        targets.retain(|target| target.pid != pid);
        if targets.len() < before { Ok(()) } else { Err(not_observed(pid)) }
    }

    fn set_mode(&self, pid: i32, _mode: Mode) -> Result<(), Problem> {
        Err(not_observed(pid))
    }

    fn stats(&self, pid: i32) -> Result<StatsSnapshot, Problem> {
        Err(not_observed(pid))
    }

    fn export(&self, pid: i32) -> Result<String, Problem> {
        Err(not_observed(pid))
    }

    fn totals(&self, pid: i32) -> Result<Totals, Problem> {
        let targets = self.targets();
        let target = targets.iter().find(|target| target.pid == pid).ok_or_else(|| not_observed(pid))?;
        Ok(self::http::totals(target.pid))
    }

    fn targets(&self) -> Vec<TargetInfo> {
        self.0.lock().expect("no test panics in it").clone()
    }
}

/// A daemon with its socket, and two processes to play with.
struct Site {
    dir: TempDir,
    leader: Sleeper,
    follower: Sleeper,
    brings: Mutex<Option<(Loader, PathBuf)>>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Site { dir, leader: Sleeper::start(), follower: Sleeper::start(), brings: Mutex::default() }
    }

    fn dirs(&self) -> Dirs {
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        Dirs { runtime: path("run"), state: path("state"), config: path("mvedsuad.toml"), updates: path("updates") }
    }

    fn engine(&self, script: Script) -> Arc<ScriptedEngine> {
        let brings = Mutex::new(self.brings.lock().expect("no test panics in it").take());
        Arc::new(ScriptedEngine { script, follower: self.follower.pid(), brings, recovered: Mutex::default() })
    }

    fn daemon(&self, script: Script) -> Arc<Daemon> {
        Daemon::start(&self.dirs(), self.engine(script), Arc::new(FakeObserver::default())).expect("it starts")
    }

    /// Runs a test against a daemon that serves its socket.
    fn run<F: Future<Output = ()>>(&self, script: Script, test: impl FnOnce(Arc<Daemon>) -> F) {
        self.run_for(LIMIT, script, test);
    }

    /// Runs a test that may take longer than others.
    fn run_for<F: Future<Output = ()>>(&self, limit: Duration, script: Script, test: impl FnOnce(Arc<Daemon>) -> F) {
        let daemon = self.daemon(script);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = server::bind(&self.dirs(), &daemon).expect("the socket is bound").listener;
            let serving = tokio::spawn(server::serve(Arc::clone(&daemon), listener));
            tokio::time::timeout(limit, test(Arc::clone(&daemon))).await.expect("the test ends in time");
            daemon.end();
            tokio::time::timeout(LIMIT, serving).await.expect("it ends in time").expect("it does not panic");
        });
    }

    async fn connect(&self) -> Talk {
        Talk(BufReader::new(UnixStream::connect(self.dirs().socket()).await.expect("it listens")))
    }
}

struct Talk(BufReader<UnixStream>);

impl Talk {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.expect("the daemon reads");
    }

    async fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("the daemon writes");
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("it writes JSON"))
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.send(format!("{}\n", json!({"v": 1, "request": request})).as_bytes()).await;
        self.hear().await.expect("there is an answer")
    }

    /// Asks until `wanted` holds of the status of a process.
    async fn wait(&mut self, pid: i32, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let answer = self.ask(json!({"status": {"pid": pid}})).await;
            let target = answer["ok"]["status"]["targets"][0].clone();
            if wanted(&target) {
                return target;
            }
            tokio::task::yield_now().await;
        }
    }
}

fn update(pid: i32, promote: &str) -> Value {
    update_to(pid, "self", promote)
}

fn update_to(pid: i32, to: &str, promote: &str) -> Value {
    let wishes = json!({"promote": promote, "confirm": promote, "soak_ms": 20, "log_memory": 1 << 20, "log_disk": 0});
    json!({"update": {"pid": pid, "ask": {"to": to, "wishes": wishes}}})
}

#[test]
fn what_is_malformed_is_answered_with_what_and_where() {
    let site = Site::new();
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        let cases: [(&[u8], &str); 4] = [
            (b"nonsense\n", "line 1 column"),
            (b"{\"v\":2,\"request\":{\"hello\":{}}}\n", "version is 2"),
            (b"{\"v\":1,\"request\":{\"stats\":{\"pid\":\"one\"}}}\n", "expected i32"),
            (b"\xff\xff\n", "line 1 column"),
        ];
        for (line, expected) in cases {
            talk.send(line).await;
            let answer = talk.hear().await.expect("an answer");
            assert_eq!(answer["error"]["code"], 2, "{answer}");
            assert!(answer["error"]["why"].as_str().is_some_and(|why| why.contains(expected)), "{answer}");
        }
        // The connection is as good as before.
        assert_eq!(talk.ask(json!({"hello": {}})).await["ok"]["hello"]["version"], env!("CARGO_PKG_VERSION"));
    });
}

#[test]
fn a_request_that_is_too_long_or_cut_off_ends_the_connection() {
    let site = Site::new();
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        talk.send(&vec![b'x'; MAX_REQUEST + 1]).await;
        let answer = talk.hear().await.expect("an answer");
        assert!(answer["error"]["why"].as_str().is_some_and(|why| why.contains("longer than")), "{answer}");
        assert_eq!(talk.hear().await, None, "the connection ends");

        let mut talk = site.connect().await;
        talk.send(b"{\"v\":1,").await;
        talk.0.get_mut().shutdown().await.expect("it is open");
        let answer = talk.hear().await.expect("an answer");
        assert!(answer["error"]["why"].as_str().is_some_and(|why| why.contains("without a newline")), "{answer}");
        // Others are served all the same.
        assert!(site.connect().await.ask(json!({"status": {}})).await["ok"].is_object());
    });
}

#[test]
fn an_update_goes_from_the_fork_to_the_confirmation() {
    let site = Site::new();
    let (old, new) = (site.leader.pid(), site.follower.pid());
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        let attached = json!({"attach": {"pid": old, "options": AttachOptions::default()}});
        assert!(talk.ask(attached).await["ok"]["attached"].is_object());
        assert_eq!(talk.ask(update(old, "manual")).await["ok"]["started"]["update"], 1);
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        assert_eq!(target["stage"], "outdated-leader/validating", "{target}");
        assert_eq!(target["versions"][1]["role"], "follower");
        assert_eq!(target["versions"][1]["pid"], new);
        let second = talk.ask(update(old, "manual")).await;
        assert_eq!(second["error"]["code"], 20, "{second}");
        let early = talk.ask(json!({"report": {"pid": old, "update": null}})).await;
        assert!(early["error"]["why"].as_str().is_some_and(|why| why.contains("it is under way")), "{early}");
        let early = talk.ask(json!({"confirm": {"pid": old}})).await;
        assert_eq!(early["error"]["code"], 2, "{early}");

        let promoted = talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await;
        assert!(promoted["ok"].is_object(), "{promoted}");
        let target = talk.wait(old, |_| true).await;
        assert_eq!((&target["stage"], &target["pid"]), (&json!("updated-leader"), &json!(old)));
        assert_eq!((&target["versions"][0]["which"], &target["versions"][1]["which"]), (&json!("new"), &json!("old")));
        assert!(talk.ask(json!({"confirm": {"pid": old}})).await["ok"].is_object());
        let target = talk.wait(old, |_| true).await;
        assert_eq!(target["update"]["result"]["code"], 0, "{target}");
        assert_eq!(target["monitor"]["pid"], old, "it is observed as before: {target}");
        let past = talk.ask(json!({"history": {"pid": old, "limit": 5}})).await;
        assert_eq!(past["ok"]["history"][0]["outcome"]["confirmed"]["leader"], old, "{past}");
    });
    let (entries, _) = Journal::new(site.dirs().journal()).read().expect("the journal is there");
    assert_eq!(entries, [], "nothing is left in the journal");
}

#[test]
fn the_policy_promotes_and_confirms_by_itself_and_a_follower_is_told() {
    let site = Site::new();
    let old = site.leader.pid();
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "auto")).await;
        let mut told = talk.ask(json!({"follow": {"pid": old}})).await;
        let mut stages = vec![];
        while told["event"].is_object() {
            stages.push(told["event"]["status"]["targets"][0]["stage"].clone());
            told = talk.hear().await.expect("the last word comes");
        }
        let target = &told["ok"]["status"]["targets"][0];
        assert_eq!(target["update"]["result"]["outcome"]["confirmed"]["leader"], old, "{told}");
        stages.dedup();
        assert!(stages.contains(&json!("outdated-leader/validating")), "{stages:?}");
    });
}

#[test]
fn a_divergence_rolls_back_and_is_reported() {
    let site = Site::new();
    let old = site.leader.pid();
    site.run(Script::Diverges, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "auto")).await;
        let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        assert_eq!(target["update"]["result"]["code"], 10, "{target}");
        assert_eq!(target["pid"], old, "the old version serves");
        let report = talk.ask(json!({"report": {"pid": old, "update": null}})).await;
        assert!(report["ok"]["report"][0]["failures"][0]["Diverged"].is_object(), "{report}");
        assert_eq!(report["ok"]["report"][0]["counters"]["compared_calls"], 777, "{report}");
        assert_eq!(target["update"]["counters"]["compared_outputs"], 77, "{target}");
        assert_eq!(target["update"]["evidence"]["calls"], 777, "{target}");
        let again = talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await;
        assert_eq!(again["error"]["code"], 2, "{again}");
        assert!(again["error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("report")), "{again}");
    });
}

#[test]
fn nobody_is_told_to_update_a_process_that_has_ended() {
    let mut site = Site::new();
    let old = site.leader.pid();
    // The site's own are ended with it; this one ends earlier.
    let mut leader = std::mem::replace(&mut site.leader, Sleeper::start());
    site.run(Script::Diverges, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "auto")).await;
        talk.wait(old, |target| !target["update"]["result"].is_null()).await;
        leader.0.kill().expect("it is ours");
        leader.0.wait().expect("it is ours");
        for request in [json!({"confirm": {"pid": old}}), json!({"rollback": {"pid": old, "reason": "late"}})] {
            let answer = talk.ask(request).await;
            assert_eq!(answer["error"]["code"], 22, "{answer}");
            assert_eq!(answer["error"]["remedy"], format!("`mvedsuad report {old}` shows what was found"), "{answer}");
        }
        let unknown = talk.ask(json!({"confirm": {"pid": i32::MAX}})).await;
        assert_eq!(unknown["error"]["code"], 22, "{unknown}");
        let itself = talk.ask(update(std::process::id().cast_signed(), "auto")).await;
        assert!(itself["error"]["why"].as_str().is_some_and(|why| why.contains("the daemon itself")), "{itself}");
    });
}

#[test]
fn a_new_leader_that_runs_something_else_is_never_called_updated() {
    let mut site = Site::new();
    // It stands for a version that was not announced.
    let library = site.dir.path().join("other.so");
    std::fs::copy("/usr/lib/x86_64-linux-gnu/libz.so.1", &library).expect("Python needs it");
    let (leader, loader) = Sleeper::loader();
    (site.leader, site.follower) = (leader, Sleeper::loader().0);
    site.brings = Mutex::new(Some((loader, library)));
    let old = site.leader.pid();
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "manual")).await;
        talk.wait(old, |target| target["update"]["counters"]["compared_calls"] == 500).await;
        let promoted = talk.ask(json!({"promote": {"pid": old, "evidence": "required"}})).await;
        assert_eq!(promoted["error"]["code"], 23, "{promoted}");
        assert!(promoted["error"]["why"].as_str().is_some_and(|why| why.contains("/other.so")), "{promoted}");
        let target = talk.wait(old, |target| target["stage"] == "single-leader").await;
        assert_eq!(target["pid"], old, "the old version serves: {target}");
    });
}

#[test]
fn an_engine_that_refuses_or_vanishes_leaves_the_service_and_says_so() {
    for (script, code) in [(Script::Refuses, 20), (Script::Vanishes, 12)] {
        let site = Site::new();
        let old = site.leader.pid();
        site.run(script, |_| async {
            let mut talk = site.connect().await;
            talk.ask(update(old, "manual")).await;
            let target = talk.wait(old, |target| !target["update"]["result"].is_null()).await;
            assert_eq!(target["update"]["result"]["code"], code, "{script:?}: {target}");
            assert_eq!((&target["stage"], &target["pid"]), (&json!("single-leader"), &json!(old)));
        });
    }
}

#[test]
fn a_daemon_that_ends_in_order_undoes_what_is_under_way() {
    let site = Site::new();
    let old = site.leader.pid();
    site.run(Script::Obedient, |_| async {
        let mut talk = site.connect().await;
        talk.ask(update(old, "manual")).await;
        talk.wait(old, |target| target["stage"] == "outdated-leader/validating").await;
    });
    let past = History::open(site.dirs().history()).find(|_| true, 1);
    assert!(matches!(past[0].outcome, Outcome::RolledBack { leader, .. } if leader == old), "{past:?}");
    assert_eq!(Journal::new(site.dirs().journal()).read().expect("the journal is there").0, []);
}

#[test]
fn a_daemon_that_finds_a_journal_cleans_up_and_goes_on() {
    let site = Site::new();
    let dirs = site.dirs();
    dirs.create().expect("the directories are created");
    let id = |pid| ProcessId::of(pid).expect("it runs");
    let entry = JournalEntry {
        v: FORMAT,
        update: 41,
        stage: Stage::Validating,
        boot: boot_id(),
        target: id(site.leader.pid()),
        uid: 0,
        leader: id(site.leader.pid()),
        follower: Some(id(site.follower.pid())),
        spill_dir: dirs.spill(),
        asked_ms: 1,
        to: "self".to_owned(),
        package: None,
    };
    // Processes of another boot are gone, whatever runs under their numbers now.
    let earlier = JournalEntry { update: 40, boot: "another".to_owned(), ..entry.clone() };
    for entry in [&earlier, &entry] {
        Journal::new(dirs.journal()).write(entry).expect("the directory is there");
    }
    let engine = site.engine(Script::Obedient);
    let observer = Arc::new(FakeObserver::default());
    let daemon = Daemon::start(&dirs, Arc::clone(&engine) as Arc<dyn Engine>, observer).expect("it starts");
    assert_eq!(*engine.recovered.lock().expect("no panic"), [entry]);
    assert_eq!(Journal::new(dirs.journal()).read().expect("the journal is there").0, []);
    assert_eq!(daemon.next_update(), 42, "numbers are never used twice");
    let past = daemon.shared.history.find(|past| past.update == 41, 1);
    assert!(matches!(past[0].outcome, Outcome::RolledBack { .. }), "{past:?}");
    let past = daemon.shared.history.find(|past| past.update == 40, 1);
    assert!(matches!(past[0].outcome, Outcome::TargetEnded { .. }), "{past:?}");
    let audit = std::fs::read_to_string(dirs.audit()).expect("it was written");
    assert!(audit.contains("cleaned up"), "{audit}");
}

#[test]
fn there_is_one_daemon_for_one_directory() {
    let site = Site::new();
    let first = site.daemon(Script::Obedient);
    let second = Daemon::start(&site.dirs(), site.engine(Script::Obedient), Arc::new(FakeObserver::default()));
    assert!(matches!(second, Err(StartError::Running(_))));
    drop(first);
    site.daemon(Script::Obedient);
}

#[test]
fn users_get_what_the_administrator_allows_and_every_change_is_audited() {
    const NOBODY: u32 = 65534;
    let site = Site::new();
    let old = site.leader.pid();
    let peer = |uid| Peer { uid, gid: uid, pid: None };
    let config = site.dirs().config;
    std::fs::write(&config, format!("[access]\nobserve = [{NOBODY}]\n")).expect("it is ours");
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    site.run(Script::Obedient, |daemon| async move {
        let mode = |pid| Request::Mode { pid, mode: Mode::Exact };
        let refused = daemon.answer(peer(NOBODY), mode(old)).await.expect_err("the process is root's");
        assert_eq!(refused.code, super::Code::Refused);
        assert!(refused.why.contains("own"), "{refused}");
        let rollback = Request::Rollback { pid: old, reason: "mischief".to_owned() };
        let refused = daemon.answer(peer(NOBODY), rollback).await.expect_err("only observing is allowed");
        assert!(refused.why.contains("access.update"), "{refused}");
        assert!(daemon.answer(peer(NOBODY), Request::Shutdown {}).await.is_err(), "only root may end it");
        assert!(daemon.answer(peer(NOBODY), Request::Status { pid: None }).await.is_ok());
        assert!(daemon.answer(peer(NOBODY - 1), Request::Status { pid: None }).await.is_err(), "a stranger");
    });
    let audit = std::fs::read_to_string(site.dirs().audit()).expect("it was written");
    let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let verbs: Vec<&str> = lines.iter().filter_map(|line| line["what"].as_str()).collect();
    assert_eq!(verbs, ["mode", "rollback", "shutdown"], "looking is not audited");
    assert!(lines.iter().all(|line| line["who"]["uid"] == NOBODY && line["code"] == 20), "{audit}");
}
