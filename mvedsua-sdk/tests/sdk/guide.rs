//! Follows the guide of README.md in an empty folder, command by command.

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::{library, run, sdk};

/// One fenced block: what stands after the fence, and the text.
fn blocks(guide: &str) -> Vec<(String, String)> {
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(info) => {
                inside = true;
                blocks.push((info.to_owned(), String::new()));
            }
            None if inside => {
                if let Some((_, text)) = blocks.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            None => {}
        }
    }
    blocks
}

#[test]
fn the_guide_can_be_followed() {
    let guide = fs::read_to_string(sdk().join("README.md")).expect("the guide");
    let dir = tempfile::Builder::new().prefix("mvedsua-guide-").tempdir().expect("an empty folder");
    let (mut script, mut expected) = ("set -eu\n".to_owned(), Vec::new());
    for (info, text) in blocks(&guide) {
        match info.split_once(' ') {
            Some(("c", file)) => fs::write(dir.path().join(file), text).expect("a file of the guide"),
            None if info == "sh" => script.push_str(&text),
            None if info == "text" => expected.extend(text.lines().map(str::to_owned)),
            _ => {}
        }
    }
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a free port").port();
    let mut bash = Command::new("timeout");
    bash.args(["60", "bash", "-c", &script]).current_dir(dir.path()).stdin(Stdio::null());
    bash.env("SDK", sdk()).env("LIB", library()).env("PORT", port.to_string());
    let output = run(&mut bash);
    let shown: Vec<&str> = output.lines().skip(2).collect();
    assert_eq!(shown, expected, "{output}");
}
