//! Splitting a command into words, as a shell does it without expanding anything.

/// Splits a command at white space; quotes and backslashes keep it together. `None` when a quote is not closed.
pub(super) fn split(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => loop {
                match chars.next()? {
                    '\'' => break word.get_or_insert_default().push_str(""),
                    c => word.get_or_insert_default().push(c),
                }
            },
            '"' => loop {
                match chars.next()? {
                    '"' => break word.get_or_insert_default().push_str(""),
                    '\\' => {
                        let c = chars.next()?;
                        if !['"', '\\', '$', '`'].contains(&c) {
                            word.get_or_insert_default().push('\\');
                        }
                        word.get_or_insert_default().push(c);
                    }
                    c => word.get_or_insert_default().push(c),
                }
            },
            '\\' => word.get_or_insert_default().push(chars.next()?),
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_shell() {
        let split = |command| split(command).map(|words| words.join("|"));
        assert_eq!(split("  a b\tc ").as_deref(), Some("a|b|c"));
        assert_eq!(split(r#"sh -c 'echo "x  y"' "a\"b" c\ d ''"#).as_deref(), Some(r#"sh|-c|echo "x  y"|a"b|c d|"#));
        assert_eq!(split("'open"), None);
        assert_eq!(split("").as_deref(), Some(""));
    }
}
