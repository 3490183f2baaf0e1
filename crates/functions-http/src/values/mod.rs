//! Values between JSON and the MessagePack that calls carry.
//!
//! Bytes are `{"$bytes": "BASE64"}` in JSON, objects are their fields, moments are RFC 3339. What JSON
//! cannot hold is refused by name: numbers that are not finite, keys that are neither text nor whole
//! numbers, arrays, and what was pickled.

mod count;
mod pack;
mod show;

pub use self::show::value_of;
pub(super) use self::{
    pack::{pack, parse},
    show::{show, unpack},
};

/// The key of an object that stands for bytes.
const BYTES: &str = "$bytes";
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

#[cfg(test)]
mod tests {
    use rmpv::Value as Packed;
    use serde_json::{Value, json};

    use super::{
        count::count,
        show::{BUFFER, MOMENT, OBJECT},
        *,
    };

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
