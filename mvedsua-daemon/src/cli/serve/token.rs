//! Who is let in: whoever shows the token.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rand::TryRngCore as _;
use rand::rngs::OsRng;

use crate::control::Code;
use crate::control::protocol::Problem;

/// How many bytes of chance are in a token.
const BYTES: usize = 24;

/// A secret.
pub(super) struct Token(String);

impl Token {
    /// Makes a token, or takes that of a file, which is made where it is missing.
    pub(super) fn take(file: Option<&Path>) -> Result<Token, Problem> {
        let Some(file) = file else { return Token::new().map_err(|e| problem("making a token", &e)) };
        let tried = format!("taking the token of {}", file.display());
        match fs::symlink_metadata(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Token::new()
                .and_then(|token| {
                    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
                    made.write_all(format!("{}\n", token.0).as_bytes())?;
                    Ok(token)
                })
                .map_err(|e| problem(&tried, &e)),
            Err(e) => Err(problem(&tried, &e)),
            Ok(meta) => {
                let own = nix::unistd::geteuid().as_raw();
                if !meta.is_file() || meta.uid() != own || meta.mode() & 0o077 != 0 {
                    let why = "others may know it: it must be a file of yours that nobody else may read or write";
                    return Err(Problem::new(Code::Usage, tried, why, "`chmod 600` it, or remove it and get another"));
                }
                let text = fs::read_to_string(file).map_err(|e| problem(&tried, &e))?.trim().to_owned();
                if text.len() < BYTES || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    let why = format!("a token has at least {BYTES} letters and digits, and nothing else");
                    return Err(Problem::new(Code::Usage, tried, why, "remove the file and get another"));
                }
                Ok(Token(text))
            }
        }
    }

    fn new() -> io::Result<Token> {
        let mut bytes = [0; BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
        Ok(Token(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Compares in a time that tells nothing of where the two differ.
    pub(super) fn is(&self, shown: &str) -> bool {
        let (own, shown) = (self.0.as_bytes(), shown.as_bytes());
        own.len() == shown.len() && own.iter().zip(shown).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
    }
}

fn problem(tried: &str, e: &io::Error) -> Problem {
    Problem::new(Code::Usage, tried, e.to_string(), "choose another --token-file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept_by_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("token");
        let made = Token::take(Some(&file)).expect("it can be made");
        assert_eq!(fs::metadata(&file).expect("it is there").mode() & 0o777, 0o600);
        let again = Token::take(Some(&file)).expect("it can be read");
        assert!(made.is(again.text()) && !made.is("") && !made.is(&made.text()[1..]));
        assert!(!Token::take(None).expect("it can be made").is(made.text()), "another one");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
        assert!(Token::take(Some(&file)).is_err_and(|problem| problem.why.contains("others may know it")));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        fs::write(&file, "short").expect("it is ours");
        assert!(Token::take(Some(&file)).is_err());
    }
}
