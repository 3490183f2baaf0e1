//! JSON becomes MessagePack.

use base64::{Engine, prelude::BASE64_STANDARD};
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value};

use super::{BYTES, MAX_VALUES, ValueError};

/// JSON that came, unless it has so many values that they would take far more memory than it does.
///
/// # Errors
/// When it has, or is not JSON.
pub(crate) fn parse(text: &[u8]) -> Result<Value, ValueError> {
    let (mut seen, mut quoted, mut escaped) = (0, false, false);
    for byte in text {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b',' | b':' | b'[' | b'{') => seen += 1,
            _ => {}
        }
    }
    match seen > MAX_VALUES {
        true => Err(ValueError::TooMany),
        false => serde_json::from_slice(text).map_err(|error| ValueError::Json(error.to_string())),
    }
}

/// JSON as MessagePack.
///
/// # Errors
/// When `$bytes` holds no base64.
pub(crate) fn pack(value: Value) -> Result<Packed, ValueError> {
    Ok(match value {
        Value::Null => Packed::Nil,
        Value::Bool(value) => value.into(),
        Value::Number(number) => pack_number(&number),
        Value::String(text) => text.into(),
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.into_iter().map(pack).collect();
            Packed::Array(items?)
        }
        Value::Object(fields) => match bytes_of(&fields) {
            Some(text) => {
                let bytes = BASE64_STANDARD.decode(text);
                Packed::Binary(bytes.map_err(|error| ValueError::Base64(error.to_string()))?)
            }
            None => {
                let pairs = fields.into_iter().map(|(k, v)| Ok((k.into(), pack(v)?)));
                Packed::Map(pairs.collect::<Result<_, _>>()?)
            }
        },
    })
}

fn pack_number(number: &Number) -> Packed {
    match (number.as_u64(), number.as_i64()) {
        (Some(whole), _) => whole.into(),
        (None, Some(whole)) => whole.into(),
        // Without arbitrary precision every other number is one of 64 bits.
        (None, None) => number.as_f64().unwrap_or_default().into(),
    }
}

fn bytes_of(fields: &Map<String, Value>) -> Option<&str> {
    match fields.len() {
        1 => fields.get(BYTES)?.as_str(),
        _ => None,
    }
}
