//! How many values MessagePack holds, without reading them.

use rmp::Marker;

/// How many values MessagePack has that begins so, if at most so many. Where it breaks off or is
/// malformed, reading it will tell.
pub(super) fn count(mut rest: &[u8], most: usize) -> Option<usize> {
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
