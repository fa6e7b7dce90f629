//! What a gate says: a word, and why.
//!
//! Either as text, in its first line (`deny: too many errors`), or as JSON (`{"answer":"deny","reason":"too many errors"}`).
//! An exit code or a status alone is no answer, so that a script that fails in an unforeseen way allows nothing.

use serde::Deserialize;

/// How much of a reason is kept.
const LONGEST: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    Allow,
    Deny,
    Wait,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) word: Word,
    pub(super) why: String,
}

#[derive(Deserialize)]
struct Json {
    answer: Word,
    #[serde(default)]
    reason: String,
}

/// Reads an answer.
///
/// # Errors
///
/// Where it is none.
pub(super) fn read(text: &str) -> Result<Said, String> {
    let text = text.trim();
    let unknown = || format!("it said {:?}, which is none of `allow`, `deny` and `wait`", plain(text, 60));
    if text.starts_with('{') {
        let json: Json = serde_json::from_str(text).map_err(|_| unknown())?;
        return Ok(Said { word: json.answer, why: plain(&json.reason, LONGEST) });
    }
    let line = text.lines().next().unwrap_or_default();
    let (word, why) = line.split_once(':').unwrap_or((line, ""));
    let word = match word.trim() {
        "allow" => Word::Allow,
        "deny" => Word::Deny,
        "wait" => Word::Wait,
        _ => return Err(unknown()),
    };
    Ok(Said { word, why: plain(why.trim(), LONGEST) })
}

/// Returns the beginning of a text without what a terminal would take for a command.
pub(super) fn plain(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_word_is_an_answer() {
        let said = |word, why: &str| Ok(Said { word, why: why.to_owned() });
        assert_eq!(read("allow\n"), said(Word::Allow, ""));
        assert_eq!(read("deny: 3 % errors: too many\nmore"), said(Word::Deny, "3 % errors: too many"));
        assert_eq!(read("wait"), said(Word::Wait, ""));
        assert_eq!(read(r#"{"answer":"deny","reason":"a\u001bb"}"#), said(Word::Deny, "a b"));
        for text in ["", "allowed", "ALLOW", "yes", "{}", r#"{"answer":"perhaps"}"#, "allow it", "\nallow me"] {
            read(text).expect_err(text);
        }
    }
}
