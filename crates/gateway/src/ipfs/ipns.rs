//! `/ipns`: no name is published here and none is looked up, so every record is one that is not
//! here.
//!
//! Names: <https://specs.ipfs.tech/ipns/ipns-record/#ipns-name>.

use axum::http::{HeaderMap, StatusCode, header};
use cid::{multibase::Base, multihash::Multihash};
use r3mes_blobs::AnyCid;

use super::request::{Parameters, Refusal, only_if_cached};

/// Multicodec number of `libp2p-key`.
const LIBP2P_KEY: u64 = 0x72;

/// The media type of a signed record.
const RECORD_TYPE: &str = "application/vnd.ipfs.ipns-record";

/// Longest name that is looked at, in characters.
const MAX_NAME: usize = 256;

/// The answer to what is asked for below `/ipns/`: 404 (412 for `only-if-cached`) for the record of
/// a name, which is not here; 400 for what is no name, for a path below one and for what would
/// need it to be resolved; 406 when `Accept` lists nothing that a name has.
pub(super) fn refuse(path: &str, parameters: &Parameters, headers: &HeaderMap) -> Refusal {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let (name, below) = path.split_once('/').unwrap_or((path, ""));
    if !is_name(name) {
        return bad(format!(
            "{name:.64?} is no IPNS name such as k51... or 12D3Koo...; DNSLink is not served here"
        ));
    }
    let accept = headers.get(header::ACCEPT);
    let accept = accept.map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    match (parameters.format.as_deref(), accept) {
        (Some("ipns-record"), _) => {}
        (Some(_), _) => {
            return bad(format!(
                "/ipns/{name} cannot be resolved here: resolve it yourself and ask below /ipfs"
            ));
        }
        (None, None) => return bad("ask for ?format=ipns-record".to_owned()),
        (None, Some(accept)) => {
            let known = [RECORD_TYPE, "application/*", "*/*"];
            let kinds = accept.split(',').map(|range| range.split(';').next());
            if !kinds.flatten().any(|kind| known.contains(&kind.trim())) {
                let text = format!("an IPNS name has a record only: {RECORD_TYPE}");
                return (StatusCode::NOT_ACCEPTABLE, text);
            }
        }
    }
    if !below.is_empty() {
        return bad("a record belongs to a name, not to a path below it".to_owned());
    }
    match only_if_cached(headers) {
        true => (StatusCode::PRECONDITION_FAILED, String::new()),
        false => (
            StatusCode::NOT_FOUND,
            format!("no record of {name} is here"),
        ),
    }
}

/// Whether this is the hash of a public key, or a small one itself: a CID of version 1, or the
/// Base58 of peer IDs.
fn is_name(text: &str) -> bool {
    if text.len() > MAX_NAME {
        return false;
    }
    let is_key = |cid: AnyCid| cid.codec() == LIBP2P_KEY;
    let is_peer_id = || {
        let bytes = Base::Base58Btc.decode(text).ok();
        bytes.is_some_and(|bytes| Multihash::<64>::from_bytes(&bytes).is_ok())
    };
    text.parse().is_ok_and(is_key) || is_peer_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_and_other_cids_and_domains_are_not() {
        for name in [
            "k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f",
            "12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d",
            "QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3",
        ] {
            assert!(is_name(name), "{name}");
        }
        let long = "1".repeat(MAX_NAME + 1);
        for other in ["", "example", "docs.ipfs.tech", "bafkqaaa", &long] {
            assert!(!is_name(other), "{other}");
        }
    }
}
