//! The update itself: the barrier at the update points, and the way into the new version.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use mvedsua_common::cooperation::{
    BEGIN, DAEMON, DIRECT, DOING, DONE, FAILED, LASTING, LEADER, MARKER, NONE, REMARK, TIMING,
};

use crate::escape;
use crate::exports::mvedsua_control as CONTROL;
use crate::object::Version;
use crate::threads::{self, Key, MAIN, Order, Place, Thread};
use crate::wait::{Monitor, STEP_MS, Woken};
use crate::{direct, registry};

/// How far an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    /// The threads come to their update points.
    Gathering,
    /// All are there; the new version is loaded and its entry runs.
    Migrating,
    /// The entry has come to the update point; the other threads follow.
    Launching,
}

/// Why an update is given up.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    class: u64,
    reason: String,
}

impl Failure {
    fn timing(reason: String) -> Failure {
        Failure { class: TIMING, reason }
    }

    fn lasting(reason: String) -> Failure {
        Failure { class: LASTING, reason }
    }
}

/// A function to be called when an update was given up, with its argument.
type Callback = (unsafe extern "C" fn(*mut c_void), usize);

/// Everything that the threads share.
#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) phase: Phase,
    pub(crate) threads: Vec<Thread>,
    pub(crate) last_key: Key,
    running: Option<Version>,
    /// The version that is on its way.
    coming: Option<Version>,
    /// What went wrong in the new version before it was there.
    spoilt: Option<String>,
    /// Update points that the new version's entry has passed on its way to the one that it is to come to.
    passed: Vec<String>,
    arguments: (c_int, usize),
    on_abort: Option<Callback>,
    last_error: Option<CString>,
}

pub(crate) static RUNTIME: Monitor<Runtime> = Monitor::new(Runtime {
    phase: Phase::Idle,
    threads: Vec::new(),
    last_key: MAIN,
    running: None,
    coming: None,
    spoilt: None,
    passed: Vec::new(),
    arguments: (0, 0),
    on_abort: None,
    last_error: None,
});

/// Where the new version's entry is to be left, see [`escape`].
static WAY_BACK: AtomicUsize = AtomicUsize::new(0);

impl Runtime {
    pub(crate) fn thread(&mut self, key: Key) -> Option<&mut Thread> {
        self.threads.iter_mut().find(|thread| thread.key == key)
    }

    fn place(&mut self, key: Key, place: Place) {
        if let Some(thread) = self.thread(key) {
            thread.place = place;
        }
    }

    fn order(&mut self, key: Key) -> Option<Order> {
        self.thread(key)?.order.take()
    }

    /// Everybody who is stopped goes on in the old version.
    fn call_off(&mut self) {
        self.phase = Phase::Idle;
        for thread in &mut self.threads {
            if matches!(thread.place, Place::Stopped(_)) {
                thread.order = Some(Order::GoOn);
            }
        }
    }

    pub(crate) fn set_on_abort(&mut self, callback: Callback) {
        self.on_abort = Some(callback);
        CONTROL.wants_to_know.store(1, Ordering::SeqCst);
    }

    pub(crate) fn last_error(&self) -> *const c_char {
        self.last_error.as_deref().unwrap_or(c"").as_ptr()
    }

    /// The versions of an update that is under way: old, new.
    pub(crate) fn versions(&self) -> Option<(Version, Version)> {
        self.running.clone().zip(self.coming.clone())
    }
}

/// Loads the first version and runs its entry.
pub(crate) fn run(object: &CStr, argc: c_int, argv: *mut *mut c_char) -> Result<c_int, String> {
    let given = PathBuf::from(OsStr::from_bytes(object.to_bytes()));
    let path = given.canonicalize().map_err(|error| format!("{}: {error}", given.display()))?;
    let version = Version::load(&path)?;
    let entry = version.entry().ok_or_else(|| format!("{} has no entry", path.display()))?;
    CONTROL.flag.store(version.flag() as u64, Ordering::SeqCst);
    {
        let mut runtime = RUNTIME.lock();
        runtime.running = Some(version);
        runtime.arguments = (argc, argv as usize);
        runtime.threads.push(Thread::new(MAIN, "mvedsua_main".to_owned(), 0));
    }
    threads::join(MAIN);
    direct::prepare();
    // SAFETY: the version's entry, with the program's arguments.
    Ok(unsafe { entry(argc, argv) })
}

/// Asks for an update: the next update points look.
pub(crate) fn raise_flag() {
    let flag = CONTROL.flag.load(Ordering::SeqCst) as *mut c_int;
    if !flag.is_null() {
        // SAFETY: the running version's own variable.
        unsafe { flag.write_volatile(1) };
    }
}

/// How many waits a thread may make.
fn patience() -> u32 {
    (CONTROL.limit_ms.load(Ordering::Relaxed) / STEP_MS).max(1)
}

fn requested_path() -> PathBuf {
    let bytes: Vec<u8> = CONTROL.path.iter().map(|byte| byte.load(Ordering::Relaxed)).take_while(|b| *b != 0).collect();
    let path = PathBuf::from(OsStr::from_bytes(&bytes));
    // The loader knows objects by name; behind a link there may be another one by now. A daemon gives the real path.
    if direct::is_under_way() { path.canonicalize().unwrap_or(path) } else { path }
}

/// Speaks to the daemon; says whether it listens.
fn tell(marker: u64, reason: &str, class: u64) -> bool {
    if CONTROL.request.load(Ordering::SeqCst) != DAEMON {
        return true;
    }
    let (address, len) = (reason.as_ptr() as u64, reason.len() as u64);
    // SAFETY: an option that no kernel knows; the daemon reads the reason before it answers.
    unsafe { libc::prctl(MARKER as c_int, marker, address, len, class) == 0 }
}

/// Tells the daemon what is done now.
pub(crate) fn doing(what: &str) {
    tell(DOING, what, 0);
}

/// How many update points are named that were passed.
const MOST_PASSED: usize = 8;

/// The new version's entry has come to an update point of another name.
fn pass(point: &CStr) {
    let name = point.to_string_lossy().into_owned();
    let mut runtime = RUNTIME.lock();
    if runtime.passed.contains(&name) || runtime.passed.len() >= MOST_PASSED {
        return;
    }
    runtime.passed.push(name);
    let passed = runtime.passed.clone();
    drop(runtime);
    doing(&on_its_way(&passed));
}

/// Says where the new version's entry is going.
fn on_its_way(passed: &[String]) -> String {
    let to = threads::wanted();
    match passed {
        [] => format!("the new version's entry was on its way to the update point `{to}` and had come to none"),
        passed => format!(
            "the new version's entry was on its way to the update point `{to}` and had come to {} only; an update point must \
             keep its name",
            passed.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// An update point that looks closer: an update is asked for, or under way.
pub(crate) fn at_point(point: &CStr) {
    let Some(me) = threads::me() else { return };
    if threads::is_updating() {
        if threads::is_updating_from(point) {
            arrive(me);
        } else if me == MAIN {
            pass(point);
        }
        return;
    }
    stop(me, point);
}

/// A thread of the old version stops.
fn stop(me: Key, point: &CStr) {
    let mut runtime = RUNTIME.lock();
    let request = CONTROL.request.load(Ordering::SeqCst);
    if request == LEADER && me != MAIN {
        return;
    }
    if request == NONE || request == LEADER {
        CONTROL.request.store(NONE, Ordering::SeqCst);
        if let Some(version) = &runtime.running {
            version.set_flag(0);
        }
        let callback = runtime.on_abort.filter(|_| request == LEADER);
        drop(runtime);
        if let Some((function, context)) = callback {
            // SAFETY: the program's own function with its own argument.
            unsafe { function(context as *mut c_void) };
        }
        return;
    }
    if runtime.phase == Phase::Idle {
        runtime.phase = Phase::Gathering;
    }
    let name = point.to_string_lossy().into_owned();
    let held = threads::held();
    if held > 0 {
        let function = runtime.thread(me).map(|thread| thread.function.clone()).unwrap_or_default();
        let reason = format!("a thread in {function} holds {held} lock(s) at the update point `{name}`");
        drop(runtime);
        return give_up(Failure::timing(reason));
    }
    runtime.place(me, Place::Stopped(name));
    drop(runtime);
    RUNTIME.changed();
    if me == MAIN { gather(point) } else { wait_for_orders(me, point) }
}

/// A thread that is not the first one waits for what comes.
fn wait_for_orders(me: Key, point: &CStr) {
    let mut runtime = RUNTIME.lock();
    let mut waited = 0;
    loop {
        match runtime.order(me) {
            Some(Order::GoOn) => return runtime.place(me, Place::Running),
            Some(Order::Enter(function, argument)) => {
                runtime.place(me, Place::Entering);
                drop(runtime);
                threads::set_updating(Some(point.to_owned()));
                registry::hand_over_locals();
                threads::enter(function, argument);
            }
            None => {}
        }
        if runtime.phase == Phase::Gathering && waited > patience() {
            let function = runtime.threads.first().map(|main| main.function.clone()).unwrap_or_default();
            drop(runtime);
            give_up(Failure::timing(format!("the thread in {function} does not come to an update point")));
            runtime = RUNTIME.lock();
            continue;
        }
        let (guard, woken) = RUNTIME.wait(runtime);
        runtime = guard;
        waited += u32::from(woken == Woken::ByTime);
    }
}

/// The first thread waits for all others, and leads the update.
fn gather(point: &CStr) {
    let mut runtime = RUNTIME.lock();
    let mut waited = 0;
    loop {
        if runtime.phase != Phase::Gathering {
            // Another thread gave it up.
            runtime.order(MAIN);
            return runtime.place(MAIN, Place::Running);
        }
        let late: Vec<String> = runtime
            .threads
            .iter()
            .filter(|thread| thread.place == Place::Running)
            .map(|thread| format!("{} (thread {})", thread.function, thread.tid))
            .collect();
        if late.is_empty() {
            break;
        }
        if waited > patience() {
            drop(runtime);
            let reason = format!("not every thread comes to an update point: {}", late.join(", "));
            return give_up(Failure::timing(reason));
        }
        for thread in runtime.threads.iter().filter(|thread| thread.condition != 0) {
            // SAFETY: the thread waits for the condition, or is about to leave the wait and then to take it out of here.
            unsafe { libc::pthread_cond_broadcast(thread.condition as *mut libc::pthread_cond_t) };
        }
        let (guard, woken) = RUNTIME.wait(runtime);
        runtime = guard;
        waited += u32::from(woken == Woken::ByTime);
        if woken == Woken::ByTime && direct::is_under_way() {
            runtime.threads.iter().filter(|thread| thread.place == Place::Running).for_each(|t| direct::wake(t.tid));
        }
    }
    runtime.phase = Phase::Migrating;
    drop(runtime);
    if let Err(failure) = migrate(point) {
        give_up(failure);
    }
}

/// The old version goes on.
fn give_up(failure: Failure) {
    tell(FAILED, &failure.reason, failure.class);
    let direct = CONTROL.request.swap(NONE, Ordering::SeqCst) == DIRECT;
    let mut runtime = RUNTIME.lock();
    if let Some(version) = &runtime.running {
        version.set_flag(0);
    }
    runtime.call_off();
    if threads::me() == Some(MAIN) {
        runtime.order(MAIN);
        runtime.place(MAIN, Place::Running);
    }
    let text = failure.reason.replace('\0', " ");
    runtime.last_error = CString::new(text).ok();
    let callback = runtime.on_abort;
    drop(runtime);
    RUNTIME.changed();
    if direct {
        direct::over(&format!("not updated: {}", failure.reason));
    }
    if let Some((function, context)) = callback {
        // SAFETY: the program's own function with its own argument.
        unsafe { function(context as *mut c_void) };
    }
}

/// Loads the new version, makes its state, runs its entry. Comes back only where the update is given up.
fn migrate(point: &CStr) -> Result<(), Failure> {
    if !tell(BEGIN, "", 0) {
        return Err(Failure::lasting("nobody listens to the update that was asked for".to_owned()));
    }
    let (argc, argv) = RUNTIME.lock().arguments;
    let Some(old) = RUNTIME.lock().running.clone() else {
        return Err(Failure::lasting("no version runs".to_owned()));
    };
    let new = Version::load(&requested_path()).map_err(Failure::lasting)?;
    if new.is_same_object(&old) {
        new.unload();
        let reason = format!("{} is the version that runs; a new one needs a file name of its own", old.path.display());
        return Err(Failure::lasting(reason));
    }
    let undo = |failure: Failure| {
        threads::set_updating(None);
        registry::take_locals_back();
        CONTROL.flag.store(old.flag() as u64, Ordering::SeqCst);
        RUNTIME.lock().coming = None;
        failure
    };
    if let Err(failure) = check_threads(&new) {
        new.unload();
        return Err(failure);
    }
    RUNTIME.lock().coming = Some(new.clone());
    new.set_flag(1);
    CONTROL.flag.store(new.flag() as u64, Ordering::SeqCst);
    registry::hand_over_locals();
    if let Err(reason) = registry::make_globals(&old, &new) {
        let failure = undo(Failure::lasting(reason));
        new.unload();
        return Err(failure);
    }
    threads::set_updating(Some(point.to_owned()));
    RUNTIME.lock().passed.clear();
    doing(&on_its_way(&[]));
    let Some(entry) = new.entry() else {
        let failure = undo(Failure::lasting("the new version has no entry".to_owned()));
        new.unload();
        return Err(failure);
    };
    // SAFETY: the version's entry, with the program's arguments.
    let code = unsafe { escape::enter(entry, argc, argv as *mut *mut c_char, WAY_BACK.as_ptr()) };
    if RUNTIME.lock().phase == Phase::Idle {
        // It was there long ago, and now the program ends.
        std::process::exit(code);
    }
    let reason = RUNTIME.lock().spoilt.take();
    let reason = reason.unwrap_or_else(|| returned(code, point, &RUNTIME.lock().passed));
    let failure = undo(Failure::lasting(reason));
    new.unload();
    Err(failure)
}

/// Says that the new version's entry has returned where it must not.
fn returned(code: c_int, point: &CStr, passed: &[String]) -> String {
    let passed = match passed {
        [] => String::new(),
        passed => format!("; it had come to `{}`, and an update point must keep its name", passed.join("`, `")),
    };
    let point = point.to_string_lossy();
    format!("the new version's entry returned {code} before it came to the update point `{point}`{passed}")
}

/// Looks whether every thread can go over.
fn check_threads(new: &Version) -> Result<(), Failure> {
    let runtime = RUNTIME.lock();
    let strangers = threads::strangers(runtime.threads.len());
    if strangers > 0 {
        let reason = format!("{strangers} thread(s) do not take part: make them with mvedsua_thread_create");
        return Err(Failure::lasting(reason));
    }
    for thread in runtime.threads.iter().filter(|thread| thread.key != MAIN) {
        if !new.threads().iter().any(|function| function.old_name() == thread.function) {
            let function = &thread.function;
            let reason =
                format!("the new version has no thread function for `{function}`: add MVEDSUA_THREAD({function})");
            return Err(Failure::lasting(reason));
        }
    }
    Ok(())
}

/// Something went wrong in the new version where it cannot be returned: the update ends at the next update point.
pub(crate) fn spoil(reason: String) {
    let mut runtime = RUNTIME.lock();
    if runtime.phase == Phase::Migrating {
        runtime.spoilt.get_or_insert(reason);
        return;
    }
    drop(runtime);
    too_late(&reason);
}

/// The threads have left the old version already: only a daemon can undo that, by ending this follower.
fn too_late(reason: &str) {
    tell(FAILED, reason, LASTING);
    if CONTROL.request.load(Ordering::SeqCst) == DIRECT {
        eprintln!("mvedsua: {reason}; the old version was left already, so this process ends");
        std::process::abort();
    }
}

/// A thread of the new version is at the update point.
fn arrive(me: Key) {
    if me == MAIN {
        arrive_first();
    } else {
        let mut runtime = RUNTIME.lock();
        runtime.place(me, Place::Arrived);
        drop(runtime);
        RUNTIME.changed();
        runtime = RUNTIME.lock();
        while runtime.order(me).is_none() {
            runtime = RUNTIME.wait(runtime).0;
        }
        runtime.place(me, Place::Running);
    }
    threads::set_updating(None);
    registry::forget_old_locals();
}

/// Called by a thread whose new function has returned before it was there: it is missed by nobody.
pub(crate) fn thread_returned() {
    threads::set_updating(None);
    registry::forget_old_locals();
}

/// The entry is there: the other threads follow, and the update is done.
fn arrive_first() {
    if let Err(reason) = launch() {
        RUNTIME.lock().spoilt.get_or_insert(reason);
        leave_entry();
    }
    let mut runtime = RUNTIME.lock();
    let mut waited = 0;
    let entering = |thread: &Thread| thread.key != MAIN && thread.place != Place::Arrived;
    while runtime.threads.iter().any(entering) {
        let (guard, woken) = RUNTIME.wait(runtime);
        runtime = guard;
        waited += u32::from(woken == Woken::ByTime);
        if waited == patience() {
            let late: Vec<&str> = runtime
                .threads
                .iter()
                .filter(|thread| entering(thread))
                .map(|thread| thread.function.as_str())
                .collect();
            let reason = format!("threads of the new version do not come to their update points: {}", late.join(", "));
            drop(runtime);
            tell(FAILED, &reason, LASTING);
            if CONTROL.request.load(Ordering::SeqCst) == DIRECT {
                eprintln!("mvedsua: {reason}; waiting on");
            }
            runtime = RUNTIME.lock();
        }
    }
    drop(runtime);
    finish();
}

/// Gives up from inside the new version's entry.
fn leave_entry() -> ! {
    // SAFETY: `migrate` waits in `enter` on this thread; this frame and its callers have nothing to drop.
    unsafe { escape::escape(WAY_BACK.load(Ordering::SeqCst), -1) }
}

/// Looks whether nothing holds the update back, and sends the other threads into the new version.
fn launch() -> Result<(), String> {
    let mut runtime = RUNTIME.lock();
    if let Some(reason) = runtime.spoilt.take() {
        return Err(reason);
    }
    let Some((old, new)) = runtime.versions() else { return Err("no new version was loaded".to_owned()) };
    if let Some(remark) = registry::check_left(&old, &new)? {
        tell(REMARK, &remark, 0);
    }
    if let Some(signo) = handled_by(&old) {
        return Err(format!("signal {signo} still goes to a function of the old version"));
    }
    let others = runtime.threads.iter().filter(|thread| thread.key != MAIN);
    let others: Vec<_> = others.map(|thread| (thread.key, thread.function.clone(), thread.argument)).collect();
    // Transformers ask for old variables, which takes the lock.
    drop(runtime);
    let mut orders = Vec::new();
    for (key, name, argument) in others {
        let known = new.threads().iter().find(|function| function.old_name() == name);
        let Some(function) = known else { return Err(format!("`{name}` has no successor")) };
        orders.push((key, function, registry::make_argument(function.name(), argument, &new)?));
    }
    let mut runtime = RUNTIME.lock();
    runtime.phase = Phase::Launching;
    for (key, function, argument) in orders {
        if let Some(thread) = runtime.thread(key) {
            thread.function = function.name().to_owned();
            thread.argument = argument;
            thread.order = Some(Order::Enter(function.address as usize, argument));
        }
    }
    drop(runtime);
    RUNTIME.changed();
    Ok(())
}

/// Returns a signal whose handler is a function of the version.
fn handled_by(version: &Version) -> Option<c_int> {
    (1..=64).find(|signo| {
        // SAFETY: all zero is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks only; the numbers that libc keeps to itself are refused.
        let known = unsafe { libc::sigaction(*signo, std::ptr::null(), &raw mut action) } == 0;
        known && version.contains(action.sa_sigaction)
    })
}

/// Every thread is there.
fn finish() {
    let mut runtime = RUNTIME.lock();
    let coming = runtime.coming.take();
    let old = std::mem::replace(&mut runtime.running, coming);
    if let Some(version) = &runtime.running {
        version.set_flag(0);
    }
    let path = runtime.running.as_ref().map(|version| version.path.display().to_string()).unwrap_or_default();
    drop(runtime);
    if let Some(old) = old {
        old.retire();
    }
    CONTROL.generation.fetch_add(1, Ordering::SeqCst);
    tell(DONE, "", 0);
    let direct = CONTROL.request.swap(NONE, Ordering::SeqCst) == DIRECT;
    if direct {
        direct::over(&format!("updated to {path}"));
    }
    let mut runtime = RUNTIME.lock();
    runtime.phase = Phase::Idle;
    for thread in &mut runtime.threads {
        thread.order = (thread.key != MAIN).then_some(Order::GoOn);
    }
    runtime.place(MAIN, Place::Running);
    drop(runtime);
    RUNTIME.changed();
}
