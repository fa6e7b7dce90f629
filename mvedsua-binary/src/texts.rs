//! Texts that differ in nothing that matters: numbers of source lines, versions, dates.

/// Says whether a text is the name of a source file.
#[must_use]
pub fn is_source_file(text: &str) -> bool {
    let ending = text.rsplit_once('.').map(|(_, ending)| ending);
    ending.is_some_and(is_source_ending) && !text.contains([' ', '%', '\n'])
}

fn is_source_ending(ending: &str) -> bool {
    matches!(
        ending,
        "c" | "h" | "cc" | "hh" | "cpp" | "hpp" | "cxx" | "C" | "inc" | "ipp" | "l" | "y" | "rl" | "tcc" | "rs"
    )
}

/// Says whether two texts are equal apart from line numbers behind the names of source files (`src/stream.c:1234`).
#[must_use]
pub fn differ_in_lines(old: &str, new: &str) -> bool {
    without_lines(old).is_some_and(|text| Some(text) == without_lines(new))
}

/// Says whether two texts are equal apart from the digits of a version (`7.0.15`) or a date (`2025-10-03`), or from what a
/// distribution adds to a version (`1.20-1+b2` and `1.20-1+deb12u1`).
#[must_use]
pub fn differ_in_version(old: &str, new: &str) -> bool {
    differ_in_digits(old, new) || differ_in_revision(old, new)
}

fn differ_in_revision(old: &str, new: &str) -> bool {
    /// Returns a version as its authors call it, and the distribution's number behind that.
    fn parts(word: &str) -> Option<(&str, &str)> {
        let (version, revision) = word.split_once('-')?;
        let is_version = version.contains('.') && version.chars().all(|c| c.is_ascii_digit() || c == '.');
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '~' | '.');
        let is_revision = revision.starts_with(|c: char| c.is_ascii_digit()) && revision.chars().all(fits);
        (is_version && is_revision).then_some((version, revision))
    }
    let (mut before, mut after) = (old.split_inclusive(char::is_whitespace), new.split_inclusive(char::is_whitespace));
    loop {
        match (before.next(), after.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let (word, other) = (a.trim_end(), b.trim_end());
                let space = |whole: &str, word: &str| whole.get(word.len()..).unwrap_or_default().to_owned();
                let same = parts(word).zip(parts(other)).is_some_and(|(a, b)| a.0 == b.0);
                if !same || space(a, word) != space(b, other) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn differ_in_digits(old: &str, new: &str) -> bool {
    let without_digits = |text: &str| {
        let mut kept = String::new();
        for c in text.chars() {
            let c = if c.is_ascii_digit() { '#' } else { c };
            if c != '#' || !kept.ends_with('#') {
                kept.push(c);
            }
        }
        kept
    };
    let form = without_digits(old);
    form == without_digits(new) && ["#.#.#", "#-#-#", "#/#/#"].iter().any(|version| form.contains(version))
}

fn without_lines(text: &str) -> Option<String> {
    let (mut kept, mut rest, mut any) = (String::new(), text, false);
    while let Some((before, after)) = rest.split_once(':') {
        kept.push_str(before);
        kept.push(':');
        let ending = kept.trim_end_matches(':').rsplit('.').next().unwrap_or("");
        rest = after;
        if is_source_ending(ending) {
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            any |= digits > 0;
            rest = after.get(digits..).unwrap_or("");
        }
    }
    kept.push_str(rest);
    any.then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_differ_in_lines_only_behind_file_names() {
        assert!(differ_in_lines("bug at src/mux_h2.c:6589\n", "bug at src/mux_h2.c:6595\n"));
        assert!(!differ_in_lines("port:6589", "port:6595"));
        assert!(!differ_in_lines("src/a.c:1", "src/b.c:1"));
        assert!(!differ_in_lines("2.6.12", "2.6.13"));
        assert!(differ_in_version("2.6.12-1+deb12u3", "2.6.12-1+deb12u10"));
        assert!(differ_in_version("sslh 1.20-1+b2\nusage:", "sslh 1.20-1+deb12u1\nusage:"));
        assert!(!differ_in_version("sslh 1.20-1+b2 a", "sslh 1.20-1+deb12u1 b"));
        assert!(!differ_in_version("1.20-1+b2", "1.21-1") && !differ_in_version("a-1", "a-2+b"));
        assert!(!differ_in_version("1.20-1+b2\n", "1.20-1+deb12u1 ") && !differ_in_version("5.1-rc1", "5.1-1"));
        assert!(!differ_in_version("TLSv1.2", "TLSv1.3") && !differ_in_version("2.6.12", "2.6.13 beta"));
    }

    #[test]
    fn names_of_source_files_end_like_that() {
        assert!(is_source_file("src/t_zset.c") && is_source_file("../crypto/x509/v3_san.c"));
        assert!(!is_source_file("%s.c") && !is_source_file("libssl.so") && !is_source_file("a sentence.c"));
    }
}
