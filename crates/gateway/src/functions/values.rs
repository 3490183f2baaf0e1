//! Values between JSON and the MessagePack that calls carry.
//!
//! Bytes are `{"$bytes": "BASE64"}` in JSON. What JSON cannot hold is refused by name: numbers that are
//! not finite, keys that are neither text nor whole numbers, and the extension types of arrays.

use base64::{Engine, prelude::BASE64_STANDARD};
use rmp::Marker;
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value};

/// The key of an object that stands for bytes.
const BYTES: &str = "$bytes";
/// Levels of lists and maps that are followed.
const MAX_DEPTH: usize = 128;
/// Values of one item that are told apart: each takes many times the byte that it may have come as.
const MAX_VALUES: usize = 1 << 20;

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
    /// More than is told apart.
    #[error(
        "more than {MAX_VALUES} values cannot be had as JSON at once: pass many numbers as bytes, or use \
         application/msgpack or a client for Python or Rust"
    )]
    TooMany,
    /// Not JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
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
    if !is_within(item, MAX_VALUES) {
        return Err(ValueError::TooMany);
    }
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

/// Whether MessagePack that begins so has at most so many values. Where it breaks off or is malformed,
/// reading it will tell.
fn is_within(mut rest: &[u8], most: usize) -> bool {
    let (mut open, mut seen) = (1_usize, 0);
    while open > 0 && seen <= most {
        (open, seen) = (open - 1, seen + 1);
        let Ok(marker) = rmp::decode::read_marker(&mut rest) else {
            return true;
        };
        let Some((bytes, values)) = extent(marker, &mut rest) else {
            return true;
        };
        let Some(after) = rest.get(bytes..) else {
            return true;
        };
        (rest, open) = (after, open.saturating_add(values));
    }
    seen <= most
}

/// Bytes, and values, that belong to a marker; `rest` is moved past its length.
fn extent(marker: Marker, rest: &mut &[u8]) -> Option<(usize, usize)> {
    let mut length = |bytes: usize| {
        let (number, after) = rest.split_at_checked(bytes)?;
        *rest = after;
        let number = number
            .iter()
            .fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
        Some(number)
    };
    Some(match marker {
        Marker::Null | Marker::True | Marker::False | Marker::Reserved => (0, 0),
        Marker::FixPos(_) | Marker::FixNeg(_) => (0, 0),
        Marker::U8 | Marker::I8 => (1, 0),
        Marker::U16 | Marker::I16 => (2, 0),
        Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
        Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
        Marker::FixStr(bytes) => (bytes.into(), 0),
        Marker::Str8 | Marker::Bin8 => (length(1)?, 0),
        Marker::Str16 | Marker::Bin16 => (length(2)?, 0),
        Marker::Str32 | Marker::Bin32 => (length(4)?, 0),
        Marker::FixExt1 => (2, 0),
        Marker::FixExt2 => (3, 0),
        Marker::FixExt4 => (5, 0),
        Marker::FixExt8 => (9, 0),
        Marker::FixExt16 => (17, 0),
        Marker::Ext8 => (length(1)?.saturating_add(1), 0),
        Marker::Ext16 => (length(2)?.saturating_add(1), 0),
        Marker::Ext32 => (length(4)?.saturating_add(1), 0),
        Marker::FixArray(values) => (0, values.into()),
        Marker::Array16 => (0, length(2)?),
        Marker::Array32 => (0, length(4)?),
        Marker::FixMap(pairs) => (0, 2 * usize::from(pairs)),
        Marker::Map16 => (0, length(2)?.saturating_mul(2)),
        Marker::Map32 => (0, length(4)?.saturating_mul(2)),
    })
}

/// JSON that came, unless it has so many values that they would take far more memory than it does.
///
/// # Errors
/// When it has, or is not JSON.
pub(super) fn parse(text: &[u8]) -> Result<Value, ValueError> {
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
    fn more_values_than_are_told_apart_are_refused_before_they_take_memory() {
        let list = |values: usize| {
            let mut item = vec![0xdd];
            item.extend(u32::try_from(values).unwrap().to_be_bytes());
            item.resize(item.len() + values, 0xc0);
            item
        };
        assert!(unpack(&list(MAX_VALUES - 1)).is_ok());
        assert_eq!(unpack(&list(MAX_VALUES)), Err(ValueError::TooMany));
        let text = |values: usize| format!("[{}0]", "0,".repeat(values - 1)).into_bytes();
        assert!(parse(&text(MAX_VALUES)).is_ok());
        assert_eq!(parse(&text(MAX_VALUES + 1)), Err(ValueError::TooMany));
        let quoted = json!({ "a\"b\\": ",".repeat(MAX_VALUES + 1) });
        assert_eq!(parse(quoted.to_string().as_bytes()), Ok(quoted));
    }

    #[test]
    fn the_values_of_every_kind_are_counted() {
        let value = json!({
            "a": [1, -1, 200, -100, 60_000, -30_000, u32::MAX, i32::MIN, u64::MAX, i64::MIN, 0.5],
            "b": ["x".repeat(20), "x".repeat(40), "x".repeat(300), "x".repeat(70_000), {}],
            "c": (0..300).collect::<Vec<_>>(),
            "d": [{"$bytes": "AAEC"}, null, true, false],
        });
        let item = packed(value);
        let values = 1 + 4 * 2 + 11 + 5 + 300 + 4;
        assert!(is_within(&item, values) && !is_within(&item, values - 1));
        let shown = |value: Packed| {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).unwrap();
            bytes
        };
        for bytes in [1, 2, 4, 8, 16, 17, 300, 70_000] {
            let pair = vec![Packed::Ext(3, vec![0; bytes]), Packed::F32(0.5)];
            let item = shown(Packed::Array(pair));
            assert!(is_within(&item, 3) && !is_within(&item, 2), "{bytes}");
        }
    }

    #[test]
    fn a_deep_value_is_refused_and_does_not_overflow() {
        let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
        assert!(matches!(unpack(&deep), Err(ValueError::Malformed(_))));
    }
}
