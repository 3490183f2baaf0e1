//! Values between JSON and the MessagePack that calls carry.
//!
//! Bytes are `{"$bytes": "BASE64"}` in JSON. What JSON cannot hold is refused by name: numbers that are
//! not finite, keys that are neither text nor whole numbers, and the extension types of arrays.

use base64::{Engine, prelude::BASE64_STANDARD};
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value};

/// The key of an object that stands for bytes.
const BYTES: &str = "$bytes";
/// Levels of lists and maps that are followed.
const MAX_DEPTH: usize = 128;

/// Why a value cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    /// Not MessagePack at all.
    #[error("the result is not a MessagePack value: {0}")]
    Malformed(String),
    /// JSON has nothing like it.
    #[error(
        "the result holds {0}, which JSON cannot show: ask for application/msgpack, or call with a client for Python or Rust"
    )]
    Unshowable(String),
    /// Not base64.
    #[error("{{\"$bytes\": ...}} holds no base64: {0}")]
    Base64(String),
}

/// JSON as MessagePack.
///
/// # Errors
/// When `$bytes` holds no base64.
pub(super) fn pack(value: Value) -> Result<Packed, ValueError> {
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

/// One item of a result as JSON.
///
/// # Errors
/// See [`ValueError`].
pub(super) fn unpack(item: &[u8]) -> Result<Value, ValueError> {
    let mut rest = item;
    let packed = rmpv::decode::read_value_with_max_depth(&mut rest, MAX_DEPTH)
        .map_err(|error| ValueError::Malformed(error.to_string()))?;
    show(packed)
}

/// One item of a result as JSON, for programs that show it.
///
/// # Errors
/// What JSON cannot show of it.
pub fn value_of(item: &[u8]) -> Result<Value, String> {
    unpack(item).map_err(|error| error.to_string())
}

/// A value as JSON.
///
/// # Errors
/// See [`ValueError`].
pub(super) fn show(packed: Packed) -> Result<Value, ValueError> {
    let unshowable = |what: String| Err(ValueError::Unshowable(what));
    Ok(match packed {
        Packed::Nil => Value::Null,
        Packed::Boolean(value) => value.into(),
        Packed::Integer(whole) => match (whole.as_u64(), whole.as_i64()) {
            (Some(whole), _) => whole.into(),
            (None, whole) => whole.unwrap_or_default().into(),
        },
        Packed::F32(float) => match Number::from_f64(f64::from(float)) {
            Some(number) => number.into(),
            None => return unshowable(format!("the number {float}")),
        },
        Packed::F64(float) => match Number::from_f64(float) {
            Some(number) => number.into(),
            None => return unshowable(format!("the number {float}")),
        },
        Packed::String(text) => match text.into_str() {
            Some(text) => text.into(),
            None => return unshowable("text that is not UTF-8".into()),
        },
        Packed::Binary(bytes) => {
            let text = Value::from(BASE64_STANDARD.encode(bytes));
            Value::Object([(BYTES.to_owned(), text)].into_iter().collect())
        }
        Packed::Array(items) => {
            let items: Result<Vec<_>, _> = items.into_iter().map(show).collect();
            items?.into()
        }
        Packed::Map(pairs) => {
            let pairs = pairs.into_iter().map(|(key, value)| {
                let key = match key {
                    Packed::String(text) => text.into_str(),
                    Packed::Integer(whole) => Some(whole.to_string()),
                    _ => None,
                };
                let odd = "a map whose keys are neither text nor whole numbers";
                let key = key.ok_or_else(|| ValueError::Unshowable(odd.into()))?;
                Ok((key, show(value)?))
            });
            Value::Object(pairs.collect::<Result<_, _>>()?)
        }
        Packed::Ext(1, _) => return unshowable("an array or buffer of raw memory".into()),
        Packed::Ext(kind, _) => return unshowable(format!("an extension of type {kind}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn packed(value: Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &pack(value).unwrap()).unwrap();
        bytes
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let value = json!({
            "a": [1, -2, 0.5, true, null, u64::MAX, i64::MIN],
            "b": {"$bytes": "AAEC"},
            "c": {"$bytes": 5, "d": "e"},
        });
        assert_eq!(unpack(&packed(value.clone())).unwrap(), value);
    }

    #[test]
    fn bytes_are_bytes() {
        let value = pack(json!({"$bytes": "AAEC"})).unwrap();
        assert_eq!(value, Packed::Binary(vec![0, 1, 2]));
        assert!(pack(json!({"$bytes": "*"})).is_err());
    }

    #[test]
    fn what_json_cannot_hold_is_named() {
        for (value, word) in [
            (Packed::F64(f64::NAN), "NaN"),
            (Packed::Ext(1, vec![]), "raw memory"),
            (Packed::Map(vec![(Packed::Nil, Packed::Nil)]), "keys"),
        ] {
            let refusal = show(value).unwrap_err().to_string();
            assert!(refusal.contains(word), "{refusal}");
        }
        let whole = Packed::Map(vec![(7.into(), Packed::Nil)]);
        assert_eq!(show(whole).unwrap(), json!({"7": null}));
    }

    #[test]
    fn a_deep_value_is_refused_and_does_not_overflow() {
        let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
        assert!(matches!(unpack(&deep), Err(ValueError::Malformed(_))));
    }
}
