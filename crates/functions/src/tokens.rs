//! Who may come: tokens, of which only hashes are kept.

use std::{collections::HashMap, fmt};

use serde::{Deserialize, Serialize};

use crate::Moment;

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose it is; usage is counted by it.
    pub user: String,
    /// BLAKE3 of the token, 64 hexadecimal digits.
    pub hash: String,
    /// Groups it carries.
    #[serde(default)]
    pub groups: Vec<String>,
    /// When it ends, in seconds since 1970; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}

impl Token {
    /// What is kept of `token`, which somebody else made. It must be long and random: a short one can be
    /// guessed.
    pub fn new(
        token: &str,
        user: impl Into<String>,
        groups: Vec<String>,
        expires_s: Option<u64>,
    ) -> Self {
        Self {
            user: user.into(),
            hash: hash(token),
            groups,
            expires_s,
        }
    }
}

/// A token that was just made, the only time that it can be read.
pub struct Secret(String);

impl Secret {
    /// Makes a token: `r3fn_` and 32 random bytes in hexadecimal.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("r3fn_{}", hex::encode(bytes))))
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn kept(
        &self,
        user: impl Into<String>,
        groups: Vec<String>,
        expires_s: Option<u64>,
    ) -> Token {
        Token::new(&self.0, user, groups, expires_s)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Tokens are long and random, so a fast hash hides them, and looking one up by it tells nothing.
fn hash(token: &str) -> String {
    blake3::hash(token.as_bytes()).to_hex().to_string()
}

/// All tokens of a broker.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    by_hash: HashMap<String, Token>,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// None such was given out, or it was revoked.
    #[error("the token is not known here: it was never given out, or it was revoked")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
}

impl Tokens {
    /// These tokens.
    pub fn new(tokens: impl IntoIterator<Item = Token>) -> Self {
        let by_hash = tokens.into_iter().map(|token| (token.hash.clone(), token));
        Self {
            by_hash: by_hash.collect(),
        }
    }

    /// When a token ends, if it is known and does.
    pub fn end(&self, token: &str) -> Option<Moment> {
        let end_s = self.by_hash.get(&hash(token))?.expires_s?;
        Some(Moment(end_s.saturating_mul(1_000_000)))
    }

    /// What is kept of a token.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn find(&self, token: &str, now: Moment) -> Result<&Token, TokenError> {
        let found = self.by_hash.get(&hash(token)).ok_or(TokenError::Unknown)?;
        match found.expires_s {
            Some(end) if now.0 / 1_000_000 >= end => Err(TokenError::Expired),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_by_itself_until_it_expires() {
        let secret = Secret::new().unwrap();
        let kept = secret.kept("alice", vec!["team".into()], Some(100));
        assert!(!kept.hash.contains(secret.expose()) && !format!("{secret:?}").contains("r3fn"));
        let tokens = Tokens::new([kept]);
        let at = |seconds: u64| tokens.find(secret.expose(), Moment(seconds * 1_000_000));
        assert_eq!(at(99).unwrap().user, "alice");
        assert_eq!(at(100), Err(TokenError::Expired));
        assert_eq!(tokens.find("r3fn_00", Moment(0)), Err(TokenError::Unknown));
    }
}
