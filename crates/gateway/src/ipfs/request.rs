//! What a client of the gateway asks for.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use r3mes_blobs::Cid;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::negotiation::{Form, Negotiated, negotiate};

/// An identity CID without content, which clients ask for to see whether a gateway is one.
pub(super) const PROBE: &str = "bafkqaaa";

/// Most names in a path below a CID.
const MAX_NAMES: usize = 64;

/// Longest file name that a client may wish for, in characters.
const MAX_FILE_NAME: usize = 255;

/// Query parameters that the specification names.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Parameters {
    pub(super) format: Option<String>,
    #[serde(rename = "dag-scope")]
    pub(super) dag_scope: Option<String>,
    #[serde(rename = "entity-bytes")]
    pub(super) entity_bytes: Option<String>,
    #[serde(rename = "car-version")]
    pub(super) car_version: Option<String>,
    #[serde(rename = "car-order")]
    pub(super) car_order: Option<String>,
    #[serde(rename = "car-dups")]
    pub(super) car_dups: Option<String>,
    pub(super) filename: Option<String>,
}

/// A refusal: status and what to do.
pub(super) type Refusal = (StatusCode, String);

/// What the path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The empty identity CID.
    Probe,
    /// A block.
    Cid(Cid),
}

impl Name {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text == PROBE {
            return Ok(Self::Probe);
        }
        match text.parse() {
            Ok(cid) => Ok(Self::Cid(cid)),
            Err(error) => Err((StatusCode::BAD_REQUEST, format!("{error}"))),
        }
    }
}

/// A content path: a root and the names to follow below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentPath {
    pub(super) root: Name,
    pub(super) names: Vec<String>,
}

impl ContentPath {
    /// Reads the part of a URL's path after `/ipfs/`, percent-encoded as it came.
    ///
    /// # Errors
    /// 400 for what is no CID, for names that are empty, dots, not UTF-8 or hold a slash, and for
    /// too many of them.
    fn parse(text: &str) -> Result<Self, Refusal> {
        let (root, below) = text.split_once('/').unwrap_or((text, ""));
        // A slash at the end says "directory" and adds nothing.
        let below = below.strip_suffix('/').unwrap_or(below);
        let root = Name::parse(&decode(root)?)?;
        let names = match below {
            "" => Vec::new(),
            below => below.split('/').map(decode).collect::<Result<_, _>>()?,
        };
        if names.len() > MAX_NAMES {
            let text = format!(
                "the path has {} names, at most {MAX_NAMES} are followed",
                names.len()
            );
            return Err((StatusCode::BAD_REQUEST, text));
        }
        Ok(Self { root, names })
    }
}

/// One name of a path.
fn decode(text: &str) -> Result<String, Refusal> {
    let name = percent_decode_str(text).decode_utf8();
    let usable = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    match name {
        Ok(name) if usable(&name) => Ok(name.into_owned()),
        _ => {
            let text = format!("{text:?} cannot be a name in a path");
            Err((StatusCode::BAD_REQUEST, text))
        }
    }
}

impl std::fmt::Display for ContentPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.root {
            Name::Probe => f.write_str(PROBE)?,
            Name::Cid(cid) => write!(f, "{cid}")?,
        }
        let mut names = self.names.iter();
        names.try_for_each(|name| write!(f, "/{}", utf8_percent_encode(name, NON_ALPHANUMERIC)))
    }
}

/// Which blocks a CAR is to have, besides those that prove the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Block,
    Entity(EntityBytes),
    All,
}

impl Extent {
    fn parse(parameters: &Parameters) -> Result<Self, Refusal> {
        let bytes = match parameters.entity_bytes.as_deref() {
            None => None,
            Some(text) => Some(EntityBytes::parse(text).ok_or_else(|| {
                let text = format!("entity-bytes={text:?} is not FROM:TO with numbers or TO *");
                (StatusCode::BAD_REQUEST, text)
            })?),
        };
        match (parameters.dag_scope.as_deref(), bytes) {
            (Some("block"), _) => Ok(Self::Block),
            (Some("entity"), bytes) => Ok(Self::Entity(bytes.unwrap_or(EntityBytes::ALL))),
            // Asking for bytes implies the entity.
            (None | Some("all"), Some(bytes)) => Ok(Self::Entity(bytes)),
            (None | Some("all"), None) => Ok(Self::All),
            (Some(other), _) => {
                let text = format!("dag-scope={other:?} is not one of block, entity and all");
                Err((StatusCode::BAD_REQUEST, text))
            }
        }
    }
}

/// A request, read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) path: ContentPath,
    pub(super) form: Form,
    pub(super) extent: Extent,
    /// Where this very answer can be had without an `Accept` header, when the URL leaves it open.
    pub(super) location: Option<String>,
    pub(super) filename: Option<String>,
    /// Only what is here already will do, as the client said; it is told so in another way then.
    pub(super) only_cached: bool,
}

impl Asked {
    /// Reads a request for what stands after `/ipfs/` in the URL.
    ///
    /// # Errors
    /// 400 or 406, with what to ask for instead.
    pub(super) fn parse(
        path: &str,
        query: &str,
        parameters: Parameters,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let path = ContentPath::parse(path)?;
        if headers.get("service-worker").is_some() {
            let text = "nothing here may be registered as a service worker";
            return Err((StatusCode::BAD_REQUEST, text.to_owned()));
        }
        let Negotiated {
            form,
            needs_location,
        } = negotiate(&parameters, headers)?;
        if form == Form::Raw && !path.names.is_empty() {
            let text = "a raw block is asked for by its own CID: use format=car for a path";
            return Err((StatusCode::BAD_REQUEST, text.to_owned()));
        }
        Ok(Self {
            form,
            extent: match form {
                Form::Raw => Extent::Block,
                Form::Car { .. } => Extent::parse(&parameters)?,
            },
            location: needs_location.then(|| location(&path, query, form)),
            path,
            filename: parameters.filename,
            only_cached: only_if_cached(headers),
        })
    }

    /// The refusal of what is not stored here.
    pub(super) fn not_here(&self, cid: &Cid) -> Refusal {
        if self.only_cached {
            return (StatusCode::PRECONDITION_FAILED, String::new());
        }
        let text = format!("{cid} is not stored here: ask another node");
        (StatusCode::NOT_FOUND, text)
    }

    /// The entity tag of the answer.
    pub(super) fn tag(&self) -> String {
        let root = match self.path.root {
            Name::Probe => PROBE.to_owned(),
            Name::Cid(cid) => cid.to_string(),
        };
        let Form::Car { duplicates } = self.form else {
            return format!("\"{root}.raw\"");
        };
        let mut tag = format!("W/\"{root}.car.");
        match self.extent {
            Extent::All => tag += "all",
            Extent::Block => tag += "block",
            Extent::Entity(EntityBytes { from, to }) => {
                let to = to.map_or_else(|| "*".to_owned(), |to| to.to_string());
                tag += &format!("entity.{from}:{to}");
            }
        }
        if duplicates {
            tag += ".dups";
        }
        if !self.path.names.is_empty() {
            let path = Sha256::digest(self.path.to_string());
            tag += &format!(".{}", hex::encode(&path[..16]));
        }
        tag + "\""
    }

    /// The answer's `Content-Disposition`.
    pub(super) fn disposition(&self) -> String {
        let Some(wish) = self.filename.as_deref().filter(|wish| !wish.is_empty()) else {
            let ending = match self.form {
                Form::Raw => "bin",
                Form::Car { .. } => "car",
            };
            let name = match self.path.root {
                Name::Probe => PROBE.to_owned(),
                Name::Cid(cid) => cid.to_string(),
            };
            return format!("attachment; filename=\"{name}.{ending}\"");
        };
        let wish: String = wish.chars().take(MAX_FILE_NAME).collect();
        let plain = |c: char| (c == ' ' || c.is_ascii_graphic()) && !"\"\\/".contains(c);
        let ascii: String = wish
            .chars()
            .map(|c| if plain(c) { c } else { '_' })
            .collect();
        let mut disposition = format!("attachment; filename=\"{ascii}\"");
        if !wish.is_ascii() {
            let encoded = utf8_percent_encode(&wish, NON_ALPHANUMERIC);
            disposition += &format!("; filename*=UTF-8''{encoded}");
        }
        disposition
    }
}

/// The address that names `form` by itself: the query as it was, with the form's parameters.
fn location(path: &ContentPath, query: &str, form: Form) -> String {
    let mut location = format!("/ipfs/{path}?format={}", form.name());
    if let Form::Car { duplicates } = form {
        let dups = if duplicates { 'y' } else { 'n' };
        location += &format!("&car-version=1&car-order=dfs&car-dups={dups}");
    }
    let replaced = ["format", "car-version", "car-order", "car-dups"];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let name = pair.split('=').next().unwrap_or_default();
        if !replaced.contains(&name) {
            location += &format!("&{pair}");
        }
    }
    location
}

/// Bytes of a file, both ends included; negative numbers count from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityBytes {
    from: i64,
    to: Option<i64>,
}

impl EntityBytes {
    pub(super) const ALL: Self = Self { from: 0, to: None };

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

/// Whether the client wants an answer only if nothing needs to be fetched for it.
fn only_if_cached(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("only-if-cached"))
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
