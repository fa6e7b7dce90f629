//! How the demo talks.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Tells what happens, when, and counts what turned out not to be so.
pub(super) struct Story {
    began: Instant,
    chapters: u32,
    failed: u32,
    coloured: bool,
}

impl Story {
    pub(super) fn begin() -> Story {
        Story { began: Instant::now(), chapters: 0, failed: 0, coloured: std::io::stdout().is_terminal() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn chapter(&mut self, title: &str) {
        self.chapters += 1;
        println!("\n{}", self.paint("1", &format!("{}. {title}", self.chapters)));
    }

    pub(super) fn say(&self, text: &str) {
        let mut time = format!("{:>6.1} s", self.began.elapsed().as_secs_f64());
        for line in wrap(text) {
            println!("  {time}  {line}");
            time = " ".repeat(8);
        }
    }

    pub(super) fn prompt(&self, command: &str) {
        println!("            {}", self.paint("36", &format!("$ {command}")));
    }

    pub(super) fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("            {line}");
        }
    }

    /// Tells whether a claim holds; `detail` is the evidence.
    pub(super) fn check(&mut self, claim: &str, holds: bool, detail: impl FnOnce() -> String) {
        let mark = if holds { self.paint("32", "  ok  ") } else { self.paint("31", "FAILED") };
        self.failed += u32::from(!holds);
        println!("  {mark}  {claim:<44} {}", detail());
    }

    /// Tells a number that is no claim.
    pub(super) fn note(&self, what: &str, value: &str) {
        println!("          {what:<44} {value}");
    }

    /// Ends the story: fails when it broke off or a claim did not hold.
    pub(super) fn end(self, told: Result<()>) -> Result<()> {
        println!("\n  the demo took {:.0} s", self.began.elapsed().as_secs_f64());
        told?;
        if self.failed > 0 {
            bail!("{} of the demo's claims did not hold", self.failed);
        }
        println!("  {}", self.paint("32", "everything that was claimed was checked and holds"));
        Ok(())
    }
}

/// What is told is never wider than this.
const WIDTH: usize = 86;

/// Breaks a text between words.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is always a line");
        if line.chars().count() + 1 + word.chars().count() > WIDTH && !line.is_empty() {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// Shows a count with separated thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Shows a size in MiB.
pub(super) fn bytes(size: u64) -> String {
    format!("{} MiB", size >> 20)
}

/// Shows a time with three digits.
pub(super) fn duration(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        _ if us < 1e3 => format!("{us:.0} µs"),
        _ if us < 1e4 => format!("{:.2} ms", us / 1e3),
        _ if us < 1e6 => format!("{:.1} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_between_words() {
        let text = "word ".repeat(40);
        let lines = wrap(text.trim_end());
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
        assert_eq!(lines.join(" "), text.trim_end());
        assert_eq!(wrap("one"), ["one"]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(duration(Duration::from_micros(7)), "7 µs");
        assert_eq!(duration(Duration::from_micros(6_540)), "6.54 ms");
        assert_eq!(duration(Duration::from_millis(1_500)), "1.50 s");
    }
}
