//! How a receiver knows that a message is from this gateway, and about its own call.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use r3mes_functions::webhook::WebhookKey;
use sha2::Sha256;

/// Sets this use of a token apart from any other.
const PURPOSE: &[u8] = b"r3mes functions webhooks v1";

/// The key that belongs to a token: HMAC-SHA256 of [`PURPOSE`] with the token. It tells nothing of it.
pub(crate) fn key_of(token: &str) -> WebhookKey {
    WebhookKey(mac(token.as_bytes(), &[PURPOSE]))
}

/// A key as receivers are told it.
pub(super) fn secret(key: &WebhookKey) -> String {
    format!("whsec_{}", STANDARD.encode(key.0))
}

/// The header `webhook-signature` of a message; `seconds` since 1970.
pub(super) fn signature(key: &WebhookKey, id: &str, seconds: u64, body: &[u8]) -> String {
    let head = format!("{id}.{seconds}.");
    format!(
        "v1,{}",
        STANDARD.encode(mac(&key.0, &[head.as_bytes(), body]))
    )
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = Hmac::<Sha256>::new_from_slice(key);
    let mut mac = mac.expect("keys of any length are taken");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn a_message_is_signed_as_standard_webhooks_has_it() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = mac(
            &key,
            &[
                b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.",
                br#"{"test": 2432232314}"#,
            ],
        );
        assert_eq!(
            STANDARD.encode(signed),
            "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_key_belongs_to_one_token() {
        assert_eq!(key_of("r3fn_a"), key_of("r3fn_a"));
        assert_ne!(key_of("r3fn_a"), key_of("r3fn_b"));
        let (key, other) = (key_of("r3fn_a"), key_of("r3fn_b"));
        assert_ne!(
            signature(&key, "1", 2, b"3"),
            signature(&other, "1", 2, b"3")
        );
        assert_ne!(signature(&key, "1", 2, b"3"), signature(&key, "1", 3, b"3"));
    }
}
