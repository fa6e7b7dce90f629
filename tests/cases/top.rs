//! What a real terminal shows of a real server that is updated: the display of `top`, and the progress of what takes long.

use harness::load::resp::RedisClient;
use harness::load::{Load, Plan};
use harness::process;
use harness::server;
use harness::stand::{STEP_LIMIT, Stand, UPDATED, VALIDATING};
use harness::tmux::Terminal;
use harness::wait::wait_for;
use nix::sys::signal::Signal;

/// Runs the display; the shell says how it ended, and what the terminal is like before and after.
fn top(stand: &Stand, size: (u16, u16), environment: &[(&str, &str)]) -> Terminal {
    let command = stand.daemon.command(&["top", "--interval", "200ms"]);
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_str().expect("paths of tests are text")))
        .collect();
    // A number that is the display's own as soon as it runs.
    let display = format!("sh -c 'echo $$ > pid; exec \"$@\"' top {}", words.join(" "));
    let script = format!("stty -a > before; {display}; echo \"END $?\"; stty -a > after; echo READY; exec cat");
    Terminal::open(&script, size, environment).expect("tmux runs")
}

/// The terminal is as it was before the display had it.
fn expect_given_back(terminal: &Terminal, end: &str) {
    terminal.wait(&[end, "READY"]);
    assert_eq!(terminal.knows("#{alternate_on} #{cursor_flag}").unwrap(), "0 1", "the screen and the cursor are back");
    let modes = |name: &str| std::fs::read_to_string(terminal.dir().join(name)).unwrap();
    assert_eq!(modes("after"), modes("before"));
}

fn signal_display(terminal: &Terminal, signal: Signal) {
    let pid = std::fs::read_to_string(terminal.dir().join("pid")).unwrap();
    process::signal(pid.trim().parse().unwrap(), signal);
}

#[test]
fn an_update_is_watched_and_led_to_its_end_by_keys() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let pid = stand.serving.to_string();
    let load = Load::start(Plan::busy(stand.server.address, 5), |index| RedisClient::new(&format!("c{index}")));
    stand.daemon.expect(&["attach", &pid, "--mode", "exact"], 0);
    load.wait_requests(200, STEP_LIMIT);
    let terminal = top(&stand, (80, 24), &[]);
    terminal.wait(&[&format!("({pid}): exact"), "single-leader", "epoll_wait", "write", "p99", "mean"]);
    // What the histogram is made of.
    terminal.wait(&["█"]);

    terminal.press(&["/", "r", "e", "a", "d"]).unwrap();
    terminal.wait(&["only calls with: read_", "> read"]);
    terminal.press(&["Escape"]).unwrap();
    terminal.press(&["P"]).unwrap();
    terminal.wait(&["no promotion now", "no update of process"]);
    terminal.press(&["Enter"]).unwrap();

    stand.update(&["--soak", "1s"]);
    terminal.wait(&["update 1 of process", "▶ validating", "the old version leads", "enough", "pauses", "fork"]);
    terminal.resize(50, 16).unwrap();
    terminal.wait(&["▶ vali", "compared"]);
    terminal.resize(120, 40).unwrap();
    terminal.wait(&["▶ validating", "next", "confirm"]);
    terminal.resize(80, 24).unwrap();
    terminal.wait(&["`promote` or `rollback` decides"]);

    terminal.press(&["P"]).unwrap();
    terminal.wait(&["Promote update 1 of process", "y yes    n no"]);
    terminal.press(&["n"]).unwrap();
    wait_for("the question to go", STEP_LIMIT, || (!terminal.screen().unwrap().contains("y yes")).then_some(()));
    assert_eq!(stand.daemon.status(stand.serving).unwrap().unwrap().stage, VALIDATING, "no is no");
    terminal.press(&["P"]).unwrap();
    terminal.wait(&["y yes    n no"]);
    terminal.press(&["y"]).unwrap();
    terminal.wait(&["promotion done"]);
    stand.daemon.wait_stage(stand.serving, UPDATED, STEP_LIMIT);
    terminal.press(&["Enter"]).unwrap();
    load.wait_requests(200, STEP_LIMIT);
    let both = terminal.wait(&["▶ new leads", "the old version leads", "the new version leads"]);
    let calls = both.lines().find(|line| line.starts_with("write")).unwrap_or_else(|| panic!("no latencies:\n{both}"));
    let numbers = calls.split_whitespace().skip(1).filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(numbers.count(), 8, "calls, p50, p99 and max of both versions: {calls}");

    terminal.press(&["C"]).unwrap();
    terminal.wait(&["Confirm update 1 of process"]);
    terminal.press(&["y"]).unwrap();
    terminal.wait(&["confirmation done"]);
    terminal.press(&["Enter"]).unwrap();
    // Nothing is under way any more, so the calls come back by themselves.
    terminal.wait(&["single-leader", "calls of redis-server"]);
    terminal.press(&["v"]).unwrap();
    terminal.wait(&["✓ confirmed", "result", "updated: process"]);
    terminal.press(&["q"]).unwrap();
    expect_given_back(&terminal, "END 0");
    stand.expect_alone();
    load.stop().expect_clean();
}

#[test]
fn an_update_is_rolled_back_by_a_key() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let terminal = top(&stand, (80, 24), &[("NO_COLOR", "1")]);
    terminal.wait(&["nothing is observed or updated"]);
    stand.validate(&[]);
    terminal.wait(&["▶ validating", "latencies not known, nobody observes", "R roll back"]);
    let coloured = terminal.coloured().unwrap();
    // Bold, dim and reversed are no colours.
    let colours = ["\u{1b}[3", "\u{1b}[4"].map(|start| {
        let rest = coloured.split(start).skip(1);
        // 9 is the terminal's own.
        rest.filter(|text| matches!(text.as_bytes(), [b'0'..=b'8', b'm' | b';', ..])).count()
    });
    assert_eq!(colours, [0, 0], "{coloured:?}");
    terminal.press(&["R"]).unwrap();
    terminal.wait(&["Roll back update 1", "The follower ends then"]);
    terminal.press(&["y"]).unwrap();
    terminal.wait(&["rollback done"]);
    terminal.press(&["Enter"]).unwrap();
    terminal.wait(&["✗ rolled back", "asked in `top`"]);
    stand.expect_alone();
    terminal.press(&["C-c"]).unwrap();
    expect_given_back(&terminal, "END 0");
}

#[test]
fn a_daemon_that_ends_is_told_and_so_is_its_return() {
    let mut stand = Stand::new(server::redis(&[]).unwrap());
    let pid = stand.serving.to_string();
    stand.daemon.expect(&["attach", &pid], 0);
    let terminal = top(&stand, (80, 24), &[]);
    terminal.wait(&["sampled"]);
    stand.daemon.kill();
    terminal.wait(&["DAEMON GONE since"]);
    terminal.press(&["?"]).unwrap();
    terminal.wait(&["help; any key goes back"]);
    terminal.press(&["Escape"]).unwrap();
    stand.daemon.start_again().unwrap();
    terminal.wait(&["daemon ", "nothing is observed or updated"]);
    stand.daemon.expect(&["attach", &pid], 0);
    terminal.wait(&["single-leader", "sampled"]);
    signal_display(&terminal, Signal::SIGTERM);
    expect_given_back(&terminal, "END 143");
}

#[test]
fn what_takes_long_is_told_on_one_line_that_goes() {
    let stand = Stand::new(server::redis(&[]).unwrap());
    let load = Load::start(Plan::busy(stand.server.address, 3), |index| RedisClient::new(&format!("c{index}")));
    let pid = stand.serving.to_string();
    let command = stand.daemon.command(&["update", &pid, "--to", "self", "--soak", "4s", "--wait"]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let terminal = Terminal::open(&format!("{}; echo \"END $?\"; exec cat", words.join(" ")), (80, 24), &[]).unwrap();
    let during = terminal.wait(&["outdated-leader/validating", "behind,"]);
    assert_eq!(during.trim_end().lines().count(), 1, "{during}");
    let after = terminal.wait(&["validated: ", "END 0"]);
    assert!(!after.contains("behind,"), "the line goes: {after}");
    load.stop().expect_clean();
}
