//! MessagePack becomes JSON.

use base64::{Engine, prelude::BASE64_STANDARD};
use rmpv::Value as Packed;
use serde_json::{Number, Value};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{BYTES, MAX_VALUES, ValueError, count::count};

/// Extension types of values, as the Python package writes them (python/src/codec).
pub(super) const BUFFER: i8 = 1;
pub(super) const OBJECT: i8 = 2;
pub(super) const MOMENT: i8 = -1;
/// Where buffers begin, counted from the item's beginning.
const ALIGNMENT: usize = 64;
/// Levels of lists, maps and objects that are followed.
const MAX_DEPTH: usize = 128;

/// One item of a result as JSON.
///
/// # Errors
/// See [`ValueError`].
pub(crate) fn unpack(item: &[u8]) -> Result<Value, ValueError> {
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

/// A value without buffers as JSON.
///
/// # Errors
/// See [`ValueError`].
pub(crate) fn show(packed: Packed) -> Result<Value, ValueError> {
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
