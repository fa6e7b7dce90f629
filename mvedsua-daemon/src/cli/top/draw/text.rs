//! Pieces of text in so many columns.

use std::time::Duration;

/// Returns the time of day of a Unix time in milliseconds, in UTC.
pub(super) fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Returns at most so many columns of a text; what is cut off leaves a mark.
pub(super) fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Returns a text of exactly so many columns.
pub(super) fn padded(text: &str, width: u16) -> String {
    let width = usize::from(width);
    format!("{:<width$}", clipped(text, width))
}

/// Returns a line with a text at its left and one at its right end.
pub(super) fn apart(left: &str, right: &str, width: u16) -> String {
    let room = usize::from(width).saturating_sub(right.chars().count());
    format!("{:<room$}{right}", clipped(left, room))
}

/// Returns a duration in few columns: `0.3s`, `12s`, `3m 5s`, `2h 3m`.
pub(super) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Returns the last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns values as eighths of a line of text; a value that is not zero is seen.
pub(super) fn spark(values: impl Iterator<Item = f64>, width: usize) -> String {
    let values: Vec<f64> = values.collect();
    let most = values.iter().copied().fold(0.0_f64, f64::max);
    let drawn: String = values.iter().map(|value| eighths(*value, most)).collect();
    format!("{drawn:>width$}")
}

/// The eighths of a line of text.
pub(super) const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 8")]
fn eighths(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return EIGHTHS[0];
    }
    let at = ((value / most * 8.0).round() as usize).clamp(1, 8);
    EIGHTHS.get(at).copied().unwrap_or(' ')
}

/// Returns a bar that is filled to a share of its width.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "few columns")]
pub(super) fn gauge(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).floor() as usize;
    // Something is not nothing.
    let full = if share > 0.0 { full.max(1) } else { 0 };
    format!("{}{}", "█".repeat(full), "░".repeat(width - full))
}

/// Breaks a text between words into lines of at most so many columns.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for word in text.split_whitespace() {
        let word = clipped(word, width);
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            Some(_) | None => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_widths() {
        assert_eq!(clipped("abcdef", 4), "abc…");
        assert_eq!(padded("ab", 4), "ab  ");
        assert_eq!(apart("left side", "right", 12), "left s…right");
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(name_of("/usr/bin/redis-check-rdb (deleted)"), "redis-check-rdb");
        assert_eq!(clock(86_400_000 * 3 + 3_723_000), "01:02:03");
    }

    #[test]
    fn what_is_not_zero_is_seen() {
        assert_eq!(spark([0.0, 0.001, 4.0, 8.0].into_iter(), 6), "   ▁▄█");
        assert_eq!(spark(std::iter::empty(), 3), "   ");
        assert_eq!(gauge(0.0001, 4), "█░░░");
        assert_eq!(gauge(0.0, 4), "░░░░");
        assert_eq!(gauge(7.0, 4), "████");
    }

    #[test]
    fn durations_are_short() {
        for (ms, text) in [(300, "0.3s"), (12_000, "12s"), (185_000, "3m 5s"), (7_380_000, "2h 3m")] {
            assert_eq!(short(Duration::from_millis(ms)), text);
        }
    }
}
