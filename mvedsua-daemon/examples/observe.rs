use mvedsua_daemon::monitor::{render, *};
use std::time::{Duration, Instant};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let pid = a[1].parse().unwrap();
    let mode = if a[2] == "exact" { Mode::Exact } else { Mode::Sampled };
    let secs: u64 = a[3].parse().unwrap();
    let m = Monitor::start().unwrap();
    let t = Instant::now();
    m.attach(pid, AttachOptions { mode, ..Default::default() }).unwrap();
    eprintln!("attach {:?}", t.elapsed());
    std::thread::sleep(Duration::from_secs(secs));
    let t = Instant::now();
    let s = m.snapshot(pid).unwrap();
    eprintln!("snapshot {:?}", t.elapsed());
    print!("{}", render::table(&s, render::Extent::Everything, render::Paint::Plain));
    let t = Instant::now();
    m.detach(pid).unwrap();
    eprintln!("detach {:?}", t.elapsed());
}
