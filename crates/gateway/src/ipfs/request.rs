//! What a client of the gateway asks for.

use axum::http::{HeaderMap, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use r3mes_blobs::{AnyCid, BlockError};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    negotiation::{Form, Negotiated, negotiate},
    ranges::EntityBytes,
};

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

/// A content path: a root and the names to follow below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentPath {
    pub(super) root: AnyCid,
    pub(super) names: Vec<String>,
}

impl ContentPath {
    /// Reads the part of a URL's path after `/ipfs/`, percent-encoded as it came.
    ///
    /// # Errors
    /// 400 for what is no CID or one that nothing can be held against, for names that are empty,
    /// dots, not UTF-8 or hold a slash, and for too many of them.
    fn parse(text: &str) -> Result<Self, Refusal> {
        let (root, below) = text.split_once('/').unwrap_or((text, ""));
        // A slash at the end says "directory" and adds nothing.
        let below = below.strip_suffix('/').unwrap_or(below);
        let bad = |text| (StatusCode::BAD_REQUEST, text);
        let root = decode(root)?.parse::<AnyCid>();
        let root = root.map_err(|error| bad(format!("{error}")))?;
        if !root.is_checkable() {
            return Err(bad(BlockError::Hash { cid: root }.to_string()));
        }
        let names = match below {
            "" => Vec::new(),
            below => below.split('/').map(decode).collect::<Result<_, _>>()?,
        };
        if names.len() > MAX_NAMES {
            let text = format!(
                "the path has {} names, at most {MAX_NAMES} are followed",
                names.len()
            );
            return Err(bad(text));
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
        write!(f, "{}", self.root)?;
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
        } = negotiate(&parameters, headers, path.names.is_empty())?;
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
    pub(super) fn not_here(&self, cid: &AnyCid) -> Refusal {
        if self.only_cached {
            return (StatusCode::PRECONDITION_FAILED, String::new());
        }
        let text = format!("{cid} is not stored here: ask another node");
        (StatusCode::NOT_FOUND, text)
    }

    /// The entity tag of the answer.
    pub(super) fn tag(&self) -> String {
        let root = &self.path.root;
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
            return format!("attachment; filename=\"{}.{ending}\"", self.path.root);
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
pub(super) fn only_if_cached(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|directive| directive.trim().eq_ignore_ascii_case("only-if-cached"))
}
