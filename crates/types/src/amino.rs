//! What is signed in `SIGN_MODE_LEGACY_AMINO_JSON`: the transaction as JSON with sorted keys.
//!
//! Hardware wallets show this form to their owners. Only transfers have one.

use std::fmt::Write;

use crate::bank::{BankMessage, MsgSend};
use crate::tx::{Fee, Tx};
use crate::{Coin, Message};

/// The bytes that are signed; `None` when a message has no such form.
pub(crate) fn sign_bytes(tx: &Tx, chain_id: &str, account_number: u64) -> Option<Vec<u8>> {
    let messages: Option<Vec<String>> = tx.messages.iter().map(message).collect();
    let mut json = format!(
        r#"{{"account_number":"{account_number}","chain_id":{},"fee":{},"memo":{},"msgs":[{}],"sequence":"{}""#,
        text(chain_id),
        fee(&tx.fee),
        text(&tx.memo),
        messages?.join(","),
        tx.sequence,
    );
    if tx.timeout_height != 0 {
        write!(json, r#","timeout_height":"{}""#, tx.timeout_height).ok()?;
    }
    json.push('}');
    Some(json.into_bytes())
}

/// Whether a message can be signed in this form.
pub(crate) const fn has_form(message: &Message) -> bool {
    matches!(message, Message::Bank(BankMessage::Send(_)))
}

fn message(message: &Message) -> Option<String> {
    let Message::Bank(BankMessage::Send(send)) = message else {
        return None;
    };
    let MsgSend {
        from_address,
        to_address,
        amount,
    } = send;
    Some(format!(
        r#"{{"type":"cosmos-sdk/MsgSend","value":{{"amount":{},"from_address":"{from_address}","to_address":"{to_address}"}}}}"#,
        coins(amount),
    ))
}

fn fee(fee: &Fee) -> String {
    let mut json = format!(
        r#"{{"amount":{},"gas":"{}""#,
        coins(&fee.amount),
        fee.gas_limit
    );
    let others = [("granter", fee.granter), ("payer", fee.payer)];
    for (name, address) in others {
        if let Some(address) = address {
            json.push_str(&format!(r#","{name}":"{address}""#));
        }
    }
    json.push('}');
    json
}

fn coins(coins: &[Coin]) -> String {
    let coins: Vec<String> = coins
        .iter()
        .map(|coin| {
            let (amount, denom) = (coin.0.uremes(), crate::DENOM);
            format!(r#"{{"amount":"{amount}","denom":"{denom}"}}"#)
        })
        .collect();
    format!("[{}]", coins.join(","))
}

/// A JSON string as Go writes it. Texts have no control characters.
fn text(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '&' | '<' | '>' | '\u{2028}' | '\u{2029}' => {
                json.push_str(&format!("\\u{:04x}", character as u32));
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_go_does() {
        assert_eq!(text(r#"a"b\c<&>é"#), r#""a\"b\\c\u003c\u0026\u003eé""#);
    }
}
