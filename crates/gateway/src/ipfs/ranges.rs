//! Parts of what is asked for: bytes of a file, as `entity-bytes` names them, and of a body.

use axum::http::{HeaderMap, HeaderValue, header};

/// Bytes of a file, both ends included; negative numbers count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityBytes {
    pub(super) from: i64,
    pub(super) to: Option<i64>,
}

impl EntityBytes {
    pub(super) const ALL: Self = Self { from: 0, to: None };

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once(':')?;
        let from = from.parse().ok()?;
        let to = match to {
            "*" => None,
            number => Some(number.parse().ok()?),
        };
        // Two ends of one kind can be compared now; mixed ones depend on the file.
        let reversed = to.is_some_and(|to: i64| (to < 0) == (from < 0) && to < from);
        (!reversed).then_some(Self { from, to })
    }

    /// Whether a file of `size` bytes has none of these. Ends that meet the wrong way round ask for
    /// nothing, which is not the same.
    pub(super) fn is_outside(self, size: u64) -> bool {
        let before = |number: i64| number < 0 && number.unsigned_abs() > size;
        let behind = u64::try_from(self.from).is_ok_and(|from| from >= size && from > 0);
        behind || self.to.is_some_and(before)
    }

    /// First byte, and first byte after the last, in a file of `size` bytes.
    pub(super) fn within(self, size: u64) -> (u64, u64) {
        let place = |number: i64| match u64::try_from(number) {
            Ok(number) => number,
            Err(_) => size.saturating_sub(number.unsigned_abs()),
        };
        let to = self.to.map_or(size, |to| match to {
            // The byte before the file's first.
            to if to < 0 && to.unsigned_abs() > size => 0,
            to => place(to).saturating_add(1),
        });
        (place(self.from), to.min(size))
    }
}

/// The bytes of a body that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it: no range asked for, or one of a form that may be ignored.
    Whole,
    /// From the first up to but not with the second.
    Part(usize, usize),
    /// None of the bytes exist.
    Outside,
}

impl Range {
    /// Reads `Range` for a body of `length` bytes with entity tag `tag`.
    pub(super) fn parse(headers: &HeaderMap, length: usize, tag: &str) -> Self {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let same = headers.get(header::IF_RANGE).and_then(text);
        if same.is_some_and(|known| known != tag) {
            return Self::Whole;
        }
        let Some(range) = headers.get(header::RANGE).and_then(text) else {
            return Self::Whole;
        };
        let Some((first, last)) = range
            .strip_prefix("bytes=")
            .and_then(|range| range.split_once('-'))
        else {
            return Self::Whole;
        };
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), _) if first >= length => Self::Outside,
            (Ok(first), Ok(last)) if first <= last => {
                Self::Part(first, last.saturating_add(1).min(length))
            }
            (Ok(first), Err(_)) if last.is_empty() => Self::Part(first, length),
            (Err(_), Ok(0)) if first.is_empty() => Self::Outside,
            (Err(_), Ok(tail)) if first.is_empty() => {
                Self::Part(length.saturating_sub(tail), length)
            }
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, text.parse().unwrap());
        Range::parse(&headers, 100, "\"tag\"")
    }

    #[test]
    fn ranges_are_read_as_http_defines_them() {
        assert_eq!(range("bytes=0-9"), Range::Part(0, 10));
        assert_eq!(range("bytes=90-"), Range::Part(90, 100));
        assert_eq!(range("bytes=90-1000"), Range::Part(90, 100));
        assert_eq!(range("bytes=-10"), Range::Part(90, 100));
        assert_eq!(range("bytes=-1000"), Range::Part(0, 100));
        assert_eq!(range("bytes=100-"), Range::Outside);
        assert_eq!(range("bytes=-0"), Range::Outside);
        for odd in [
            "bytes=9-0",
            "bytes=a-b",
            "bytes=",
            "bytes=0-1,5-6",
            "lines=1-2",
        ] {
            assert_eq!(range(odd), Range::Whole, "{odd}");
        }
    }

    #[test]
    fn entity_bytes_count_from_either_end() {
        let within = |text: &str, size| EntityBytes::parse(text).map(|bytes| bytes.within(size));
        assert_eq!(within("0:*", 100), Some((0, 100)));
        assert_eq!(within("0:0", 100), Some((0, 1)));
        assert_eq!(within("10:19", 100), Some((10, 20)));
        assert_eq!(within("10:1000", 100), Some((10, 100)));
        assert_eq!(within("-10:*", 100), Some((90, 100)));
        assert_eq!(within("-10:-1", 100), Some((90, 100)));
        assert_eq!(within("-1000:-200", 100), Some((0, 0)));
        assert_eq!(within("5:-6", 100), Some((5, 95)));
        assert_eq!(within("500:*", 100), Some((500, 100)));
        for odd in ["", ":", "1", "2:1", "-1:-2", "a:b", "0:*:1", "*:0"] {
            assert_eq!(within(odd, 100), None, "{odd}");
        }
    }
}
