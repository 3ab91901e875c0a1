//! The bearer token of verbs that act.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::config::keep_secret;

/// Limit: fewer could be guessed.
const MIN_BYTES: usize = 16;
/// Limit: a line, not a file given by mistake.
const MAX_BYTES: u64 = 4096;

/// What whoever acts must know. Never shown.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("cannot read the token in `{}`", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "the admin token has {bytes} bytes; it takes {MIN_BYTES} to {MAX_BYTES} printable ones, as of `openssl rand -hex 32`"
    )]
    Unfit { bytes: usize },
}

impl Token {
    /// # Errors
    /// When it is too short to be a secret, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let fits =
            (MIN_BYTES..=MAX_BYTES as usize).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            return Err(TokenError::Unfit { bytes: text.len() });
        }
        keep_secret(text);
        Ok(Self(text.into()))
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// When it cannot be read, or holds no token.
    pub fn from_file(path: &Path) -> Result<Self, TokenError> {
        let read = || {
            let mut text = String::new();
            std::fs::File::open(path)?.take(MAX_BYTES + 2).read_to_string(&mut text)?;
            Ok(text)
        };
        let text: String = read().map_err(|source| TokenError::Read { path: path.into(), source })?;
        Self::new(text.trim_end_matches(['\r', '\n']))
    }

    /// Takes as long for a wrong guess as for a right one, however much of it is right: what is compared are digests.
    pub fn is(&self, guess: &str) -> bool {
        let (ours, theirs) = (Sha256::digest(self.0.expose_secret()), Sha256::digest(guess));
        ours.iter().zip(theirs.iter()).fold(0, |different, (a, b)| different | (a ^ b)) == 0
    }

    /// The value of an `Authorization` header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0.expose_secret())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_long_enough_and_only_itself() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        assert!(!token.is("0123456789abcdeg") && !token.is("") && !token.is("0123456789abcdef0"));
        assert!(Token::new("short").is_err());
        assert!(Token::new("0123456789 abcdef").is_err());
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_file_s_newline_is_no_part_of_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert!(Token::from_file(&path).unwrap().is("0123456789abcdef"));
    }
}
