//! Drives one session by hand: `session <pid>`, then `promote`, `confirm`, `rollback` on standard input.
use mvedsua_daemon::ptrace::Pid;
use mvedsua_daemon::update::{Command, Options, Session, SessionEvent};
use std::io::BufRead;
fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let pid = std::env::args().nth(1).and_then(|a| a.parse().ok()).expect("a pid");
    let spill = std::env::temp_dir();
    let session = Session::start(Pid(pid), Options { spill_dir: spill, ..Options::default() }).expect("start");
    let commands = session.commands();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command = match line.trim() {
                "promote" => Command::Promote,
                "confirm" => Command::Confirm,
                _ => Command::Rollback { reason: line },
            };
            let _ = commands.send(command);
        }
    });
    for event in session.events() {
        if !matches!(event, SessionEvent::Progress(c) if c.backlog == 0 && std::env::var("V").is_err()) {
            println!("{event:?}");
        }
        if matches!(
            event,
            SessionEvent::RolledBack { .. } | SessionEvent::Confirmed { .. } | SessionEvent::TargetEnded { .. }
        ) {
            break;
        }
    }
}
