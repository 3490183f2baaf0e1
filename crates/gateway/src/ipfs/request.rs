//! What a client of the gateway asks for.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use r3mes_blobs::Cid;
use serde::Deserialize;

/// The media type of a single block.
pub(super) const RAW_TYPE: &str = "application/vnd.ipld.raw";
/// The media type of a CAR.
pub(super) const CAR_TYPE: &str = "application/vnd.ipld.car";

/// An identity CID without content, which clients ask for to see whether a gateway is one.
const PROBE: &str = "bafkqaaa";

/// Query parameters that the specification names.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parameters {
    pub(super) format: Option<String>,
    #[serde(rename = "dag-scope")]
    pub(super) dag_scope: Option<String>,
    #[serde(rename = "entity-bytes")]
    pub(super) entity_bytes: Option<String>,
}

/// A refusal: status and what to do.
pub(super) type Refusal = (StatusCode, String);

/// What the path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The empty identity CID.
    Probe,
    /// A block.
    Cid(Cid),
}

impl Name {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text == PROBE {
            return Ok(Self::Probe);
        }
        match text.parse() {
            Ok(cid) => Ok(Self::Cid(cid)),
            Err(error) => Err((StatusCode::BAD_REQUEST, format!("{error}"))),
        }
    }
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Raw,
    Car(Extent),
}

/// Which blocks a CAR is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Block,
    Entity(EntityBytes),
    All,
}

/// Bytes of a file, both ends included; negative numbers count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityBytes {
    from: i64,
    to: Option<i64>,
}

impl EntityBytes {
    const ALL: Self = Self { from: 0, to: None };

    fn parse(text: &str) -> Option<Self> {
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

impl Format {
    /// The parameter wins over the header, as the specification says.
    pub(super) fn parse(parameters: &Parameters, headers: &HeaderMap) -> Result<Self, Refusal> {
        let format = match parameters.format.as_deref() {
            Some(format @ ("raw" | "car")) => format,
            Some(other) => {
                let text = format!("format={other:?} is not served here: use raw or car");
                return Err((StatusCode::BAD_REQUEST, text));
            }
            None => accepted(headers).ok_or_else(|| {
                let text = format!(
                    "this is a trustless gateway: ask for ?format=raw or ?format=car, or for \
                     {RAW_TYPE} or {CAR_TYPE} in Accept"
                );
                (StatusCode::NOT_ACCEPTABLE, text)
            })?,
        };
        if format == "raw" {
            return Ok(Self::Raw);
        }
        let bytes = match parameters.entity_bytes.as_deref() {
            None => None,
            Some(text) => Some(EntityBytes::parse(text).ok_or_else(|| {
                let text = format!("entity-bytes={text:?} is not FROM:TO with numbers or TO *");
                (StatusCode::BAD_REQUEST, text)
            })?),
        };
        let extent = match (parameters.dag_scope.as_deref(), bytes) {
            (Some("block"), _) => Extent::Block,
            (Some("entity"), bytes) => Extent::Entity(bytes.unwrap_or(EntityBytes::ALL)),
            // Asking for bytes implies the entity.
            (None | Some("all"), Some(bytes)) => Extent::Entity(bytes),
            (None | Some("all"), None) => Extent::All,
            (Some(other), _) => {
                let text = format!("dag-scope={other:?} is not one of block, entity and all");
                return Err((StatusCode::BAD_REQUEST, text));
            }
        };
        Ok(Self::Car(extent))
    }

    /// The entity tag of `name` in this form.
    pub(super) fn tag(self, name: Name) -> String {
        let cid = match name {
            Name::Probe => PROBE.to_owned(),
            Name::Cid(cid) => cid.to_string(),
        };
        match self {
            Self::Raw => format!("\"{cid}.raw\""),
            Self::Car(Extent::All) => format!("W/\"{cid}.car\""),
            Self::Car(Extent::Block) => format!("W/\"{cid}.car.block\""),
            Self::Car(Extent::Entity(EntityBytes { from, to })) => {
                let to = to.map_or_else(|| "*".to_owned(), |to| to.to_string());
                format!("W/\"{cid}.car.{from}:{to}\"")
            }
        }
    }
}

fn accepted(headers: &HeaderMap) -> Option<&'static str> {
    let values = headers.get_all(header::ACCEPT).iter();
    let types = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    types
        .map(|kind| kind.split(';').next().unwrap_or_default().trim())
        .find_map(|kind| match kind {
            RAW_TYPE => Some("raw"),
            CAR_TYPE => Some("car"),
            _ => None,
        })
}

/// Whether the client says that it has `tag` already.
pub(super) fn has_already(headers: &HeaderMap, tag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim() == "*" || strong(known) == strong(tag))
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
