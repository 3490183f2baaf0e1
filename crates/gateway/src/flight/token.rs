//! Who may use Flight: whoever shows the token.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use flight_tonic::{
    Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The header that carries the token.
pub(super) const AUTHORIZATION: &str = "authorization";

/// A secret that servers and clients of Flight share. Never shown by `Debug`.
#[derive(Clone)]
pub struct Token {
    text: Zeroizing<String>,
    digest: [u8; 32],
}

/// Why a text cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the token for Flight must have {} to {} letters, digits or signs without spaces; \
     `openssl rand -hex 32` makes one",
    Token::MIN_CHARS,
    Token::MAX_CHARS
)]
pub struct TokenError;

impl Token {
    /// Fewest characters.
    pub const MIN_CHARS: usize = 32;
    /// Most characters.
    pub const MAX_CHARS: usize = 512;

    /// Takes a token, without the white space around it.
    ///
    /// # Errors
    /// When it is too short to be a secret, too long, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let length = (Self::MIN_CHARS..=Self::MAX_CHARS).contains(&text.len());
        if !length || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError);
        }
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            digest: Sha256::digest(text).into(),
        })
    }

    /// Whether `shown` is the token, in a time that tells nothing of it.
    fn is(&self, shown: &str) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        shown.ct_eq(&self.digest).into()
    }

    /// The header's value for a client.
    pub(super) fn bearer(&self) -> MetadataValue<Ascii> {
        let value = format!("Bearer {}", *self.text);
        let mut value: MetadataValue<Ascii> = value.parse().expect("a token may stand in a header");
        value.set_sensitive(true);
        value
    }

    /// Lets a call through that shows the token: as `Bearer TOKEN`, or as the password of `Basic`,
    /// as `authenticate_basic_token` sends it.
    pub(super) fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(value) = metadata.get(AUTHORIZATION) else {
            return Err(Status::unauthenticated(
                "a token is needed: send the header `authorization: Bearer TOKEN`",
            ));
        };
        let value = value.to_str().unwrap_or_default();
        let (scheme, shown) = value.split_once(' ').unwrap_or_default();
        let admitted = if scheme.eq_ignore_ascii_case("bearer") {
            self.is(shown.trim())
        } else if scheme.eq_ignore_ascii_case("basic") {
            password(shown.trim()).is_some_and(|password| self.is(&password))
        } else {
            false
        };
        if admitted {
            return Ok(());
        }
        Err(Status::unauthenticated(
            "the token shown is not that of this node: it belongs after `Bearer ` in the header \
             `authorization`, or in the place of the password",
        ))
    }
}

fn password(encoded: &str) -> Option<Zeroizing<String>> {
    let decoded = Zeroizing::new(BASE64_STANDARD.decode(encoded).ok()?);
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Zeroizing::new(password.to_owned()))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use flight_tonic::Code;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn shown(value: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert(AUTHORIZATION, value.parse().unwrap());
        metadata
    }

    #[test]
    fn only_the_token_is_admitted_as_bearer_or_password() {
        let token = Token::new(&format!(" {SECRET}\n")).unwrap();
        let basic = |password: &str| format!("Basic {}", BASE64_STANDARD.encode(password));
        for good in [
            format!("Bearer {SECRET}"),
            format!("bearer {SECRET}"),
            basic(&format!("anybody:{SECRET}")),
        ] {
            token.admit(&shown(&good)).unwrap();
        }
        for bad in [
            SECRET.to_owned(),
            "Bearer".to_owned(),
            format!("Bearer {SECRET}0"),
            format!("Bearer {}", &SECRET[1..]),
            format!("Digest {SECRET}"),
            basic(SECRET),
            "Basic %%%".to_owned(),
        ] {
            let refused = token.admit(&shown(&bad)).unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{bad}");
            assert!(!refused.message().contains(SECRET), "{bad}");
        }
        let refused = token.admit(&MetadataMap::new()).unwrap_err();
        assert!(refused.message().contains("Bearer TOKEN"), "{refused}");
    }

    #[test]
    fn a_token_is_long_enough_and_never_shown() {
        for bad in ["", "short", &"a b".repeat(20), &"x".repeat(513)] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        let token = Token::new(SECRET).unwrap();
        assert!(!format!("{token:?}").contains("0123"));
        assert!(token.bearer().is_sensitive());
    }
}
