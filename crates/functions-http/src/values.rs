//! Values between JSON and the MessagePack that calls carry.
//!
//! Bytes are `{"$bytes": "BASE64"}` in JSON, objects are their fields, moments are RFC 3339. What JSON
//! cannot hold is refused by name: numbers that are not finite, keys that are neither text nor whole
//! numbers, arrays, and what was pickled.

use base64::{Engine, prelude::BASE64_STANDARD};
use rmp::Marker;
use rmpv::Value as Packed;
use serde_json::{Map, Number, Value};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

/// The key of an object that stands for bytes.
const BYTES: &str = "$bytes";
/// Extension types of values, as the Python package writes them (python/src/codec).
const BUFFER: i8 = 1;
const OBJECT: i8 = 2;
const MOMENT: i8 = -1;
/// Where buffers begin, counted from the item's beginning.
const ALIGNMENT: usize = 64;
/// Levels of lists, maps and objects that are followed.
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
    let mut shower = Shower {
        buffers: &[],
        left: MAX_VALUES,
    };
    let (packed, after) = shower.read(item, 0)?;
    let buffers = item.len() - after.len();
    shower.buffers = item
        .get(buffers.next_multiple_of(ALIGNMENT)..)
        .unwrap_or_default();
    shower.show(packed, 0)
}

/// One item of a result as JSON, for programs that show it.
///
/// # Errors
/// What JSON cannot show of it.
pub fn value_of(item: &[u8]) -> Result<Value, String> {
    unpack(item).map_err(|error| error.to_string())
}

/// How many values MessagePack has that begins so, if at most so many. Where it breaks off or is
/// malformed, reading it will tell.
fn count(mut rest: &[u8], most: usize) -> Option<usize> {
    let (mut open, mut seen) = (1_usize, 0);
    while open > 0 && seen <= most {
        (open, seen) = (open - 1, seen + 1);
        let Ok(marker) = rmp::decode::read_marker(&mut rest) else {
            break;
        };
        let Some((bytes, values)) = extent(marker, &mut rest) else {
            break;
        };
        let Some(after) = rest.get(bytes..) else {
            break;
        };
        (rest, open) = (after, open.saturating_add(values));
    }
    (seen <= most).then_some(seen)
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

/// A value without buffers as JSON.
///
/// # Errors
/// See [`ValueError`].
pub(super) fn show(packed: Packed) -> Result<Value, ValueError> {
    let mut shower = Shower {
        buffers: &[],
        left: MAX_VALUES,
    };
    shower.show(packed, 0)
}

/// Shows the values of one item.
struct Shower<'a> {
    /// What follows the document.
    buffers: &'a [u8],
    /// Values that may still be read.
    left: usize,
}

impl Shower<'_> {
    /// Reads the value that `bytes` begin with, `depth` levels down; what follows it.
    fn read<'b>(
        &mut self,
        bytes: &'b [u8],
        depth: usize,
    ) -> Result<(Packed, &'b [u8]), ValueError> {
        self.left -= count(bytes, self.left).ok_or(ValueError::TooMany)?;
        let mut rest = bytes;
        let packed = rmpv::decode::read_value_with_max_depth(&mut rest, MAX_DEPTH - depth);
        let packed = packed.map_err(|error| ValueError::Malformed(error.to_string()))?;
        Ok((packed, rest))
    }

    fn show(&mut self, packed: Packed, depth: usize) -> Result<Value, ValueError> {
        if depth >= MAX_DEPTH {
            let words = format!("it has more than {MAX_DEPTH} levels");
            return Err(ValueError::Malformed(words));
        }
        let unshowable = |what: String| Err(ValueError::Unshowable(what));
        Ok(match packed {
            Packed::Nil => Value::Null,
            Packed::Boolean(value) => value.into(),
            Packed::Integer(whole) => match (whole.as_u64(), whole.as_i64()) {
                (Some(whole), _) => whole.into(),
                (None, whole) => whole.unwrap_or_default().into(),
            },
            Packed::F32(float) => finite(f64::from(float))?,
            Packed::F64(float) => finite(float)?,
            Packed::String(text) => match text.into_str() {
                Some(text) => text.into(),
                None => return unshowable("text that is not UTF-8".into()),
            },
            Packed::Binary(bytes) => shown_bytes(&bytes),
            Packed::Array(items) => {
                let items = items.into_iter().map(|item| self.show(item, depth + 1));
                items.collect::<Result<Vec<_>, _>>()?.into()
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
                    Ok((key, self.show(value, depth + 1)?))
                });
                Value::Object(pairs.collect::<Result<_, _>>()?)
            }
            Packed::Ext(BUFFER, content) => match self.buffer(&content, depth)? {
                Some(bytes) => shown_bytes(bytes),
                None => return unshowable("an array or buffer of raw memory".into()),
            },
            Packed::Ext(OBJECT, content) => match self.read(&content, depth)?.0 {
                Packed::Array(pair) => match <[Packed; 2]>::try_from(pair) {
                    Ok([_, fields @ Packed::Map(_)]) => self.show(fields, depth + 1)?,
                    _ => return Err(malformed("an object")),
                },
                _ => return Err(malformed("an object")),
            },
            Packed::Ext(MOMENT, content) => match moment(&content) {
                Some(text) => text.into(),
                None => return unshowable("a moment before the year 1 or after 9999".into()),
            },
            Packed::Ext(kind, _) => return unshowable(format!("an extension of type {kind}")),
        })
    }

    /// The bytes that a buffer stands for, if it is nothing but bytes.
    fn buffer(&mut self, content: &[u8], depth: usize) -> Result<Option<&[u8]>, ValueError> {
        let (Packed::Array(told), _) = self.read(content, depth)? else {
            return Err(malformed("a buffer"));
        };
        let [kind, _, _, offset, length] = told.as_slice() else {
            return Err(malformed("a buffer"));
        };
        if !matches!(kind.as_str(), Some("bytes" | "memoryview")) {
            return Ok(None);
        }
        let place = |number: &Packed| usize::try_from(number.as_u64()?).ok();
        let bytes = place(offset)
            .zip(place(length))
            .and_then(|(offset, length)| self.buffers.get(offset..offset.checked_add(length)?));
        bytes.map(Some).ok_or_else(|| malformed("a buffer"))
    }
}

fn malformed(what: &str) -> ValueError {
    ValueError::Malformed(format!("{what} in it is not described as it should be"))
}

fn finite(float: f64) -> Result<Value, ValueError> {
    let number = Number::from_f64(float).map(Value::from);
    number.ok_or_else(|| ValueError::Unshowable(format!("the number {float}")))
}

fn shown_bytes(bytes: &[u8]) -> Value {
    let text = Value::from(BASE64_STANDARD.encode(bytes));
    Value::Object([(BYTES.to_owned(), text)].into_iter().collect())
}

/// A moment in the three lengths that MessagePack has for it, as text.
fn moment(content: &[u8]) -> Option<String> {
    let (seconds, nanos) = match *content {
        [a, b, c, d] => (u32::from_be_bytes([a, b, c, d]).into(), 0),
        [a, b, c, d, e, f, g, h] => {
            let both = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            let seconds = i64::try_from(both & 0x3_ffff_ffff).ok()?;
            (seconds, u32::try_from(both >> 34).ok()?)
        }
        [a, b, c, d, ref seconds @ ..] => {
            let seconds = i64::from_be_bytes(seconds.try_into().ok()?);
            (seconds, u32::from_be_bytes([a, b, c, d]))
        }
        _ => return None,
    };
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let time = time.checked_add(Duration::nanoseconds(nanos.into()))?;
    time.format(&Rfc3339).ok()
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
            (Packed::Ext(3, vec![]), "type 3"),
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
        assert!(count(&item, values) == Some(values) && count(&item, values - 1).is_none());
        let shown = |value: Packed| {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).unwrap();
            bytes
        };
        for bytes in [1, 2, 4, 8, 16, 17, 300, 70_000] {
            let pair = vec![Packed::Ext(3, vec![0; bytes]), Packed::F32(0.5)];
            let item = shown(Packed::Array(pair));
            assert!(
                count(&item, 3) == Some(3) && count(&item, 2).is_none(),
                "{bytes}"
            );
        }
    }

    fn bytes_of_value(value: &Packed) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn object(fields: Packed) -> Packed {
        let pair = Packed::Array(vec!["P".into(), fields]);
        Packed::Ext(OBJECT, bytes_of_value(&pair))
    }

    #[test]
    fn objects_are_their_fields_and_moments_are_text() {
        let inner = object(Packed::Map(vec![("x".into(), 3.into())]));
        let nanos = (5_u64 << 34 | 1_700_000_000).to_be_bytes().to_vec();
        let early = [vec![0; 4], (-1_i64).to_be_bytes().to_vec()].concat();
        let fields = Packed::Map(vec![
            ("inner".into(), inner),
            ("at".into(), Packed::Ext(MOMENT, vec![0, 0, 0, 1])),
            ("later".into(), Packed::Ext(MOMENT, nanos)),
            ("early".into(), Packed::Ext(MOMENT, early)),
        ]);
        let shown = json!({
            "inner": {"x": 3},
            "at": "1970-01-01T00:00:01Z",
            "later": "2023-11-14T22:13:20.000000005Z",
            "early": "1969-12-31T23:59:59Z",
        });
        assert_eq!(unpack(&bytes_of_value(&object(fields))), Ok(shown));
        for content in [Packed::Nil, Packed::Array(vec![Packed::Nil])] {
            let odd = Packed::Ext(OBJECT, bytes_of_value(&content));
            assert!(matches!(show(odd), Err(ValueError::Malformed(_))));
        }
        let odd = show(Packed::Ext(MOMENT, vec![0; 5]));
        assert!(matches!(odd, Err(ValueError::Unshowable(_))));
    }

    #[test]
    fn bytes_that_follow_the_document_are_bytes_and_arrays_are_not_shown() {
        let item = |kind: &str, offset: u64, length: u64| {
            let told = [
                kind.into(),
                "|u1".into(),
                Packed::Array(vec![]),
                offset.into(),
                length.into(),
            ];
            let mut item = bytes_of_value(&Packed::Ext(
                BUFFER,
                bytes_of_value(&Packed::Array(told.into())),
            ));
            item.resize(64 + 64, 0);
            item.extend([7, 8, 9]);
            item
        };
        assert_eq!(unpack(&item("bytes", 64, 3)), Ok(json!({"$bytes": "BwgJ"})));
        for (offset, length) in [(64, 4), (u64::MAX, 1), (1, u64::MAX)] {
            let beyond = unpack(&item("bytes", offset, length));
            assert!(
                matches!(beyond, Err(ValueError::Malformed(_))),
                "{offset} {length}"
            );
        }
        let refusal = unpack(&item("array", 64, 3)).unwrap_err().to_string();
        assert!(refusal.contains("raw memory"), "{refusal}");
    }

    #[test]
    fn objects_within_objects_are_counted_and_end_somewhere() {
        let mut deep = Packed::Map(Vec::new());
        for _ in 0..60 {
            deep = object(Packed::Map(vec![("x".into(), deep)]));
        }
        assert!(unpack(&bytes_of_value(&deep)).is_ok());
        for _ in 0..100 {
            deep = object(Packed::Map(vec![("x".into(), deep)]));
        }
        assert!(matches!(
            unpack(&bytes_of_value(&deep)),
            Err(ValueError::Malformed(_))
        ));
        let many = object(Packed::Map(vec![(
            "x".into(),
            Packed::Array(vec![Packed::Nil; MAX_VALUES]),
        )]));
        assert_eq!(unpack(&bytes_of_value(&many)), Err(ValueError::TooMany));
    }

    #[test]
    fn a_deep_value_is_refused_and_does_not_overflow() {
        let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
        assert!(matches!(unpack(&deep), Err(ValueError::Malformed(_))));
    }
}
