//! Where a blob can be had, for clients of delegated routing: here.
//!
//! Specification: <https://specs.ipfs.tech/routing/http-routing-v1/>. Kubo and Helia ask
//! `GET /routing/v1/providers/{cid}` of the routers that they are told of, and then fetch from the
//! gateways that are named.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use cid::{multibase::Base, multihash::Multihash};
use r3mes_blobs::{AnyCid, BlobStore};
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{SourceError, serve::blocking, source::public_url};

/// Multihash number of sha2-256.
const SHA2_256: u64 = 0x12;

/// `GET /routing/v1/providers/{cid}` over the blocks of `store`, which are handed out by the
/// gateway at `public`, an address of HTTP with or without TLS.
///
/// # Errors
/// When that is no such address.
pub fn routing(store: Arc<dyn BlobStore>, public: &str) -> Result<Router, SourceError> {
    let provider = Arc::new(provider(&public_url(public)?));
    Ok(Router::new()
        .route("/routing/v1/providers/{cid}", get(providers))
        .with_state((store, provider)))
}

async fn providers(
    State((store, provider)): State<(Arc<dyn BlobStore>, Arc<Value>)>,
    Path(name): Path<String>,
) -> Response {
    let cid: AnyCid = match name.parse() {
        Ok(cid) => cid,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}")).into_response(),
    };
    let here = match blocking(move || store.contains_any(&cid)).await {
        Ok(Ok(here)) => here,
        Ok(Err(error)) => {
            tracing::error!(%name, error = &error as &dyn std::error::Error, "cannot look for a block");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        Err(refusal) => return refusal.into_response(),
    };
    let found: Vec<&Value> = here.then_some(&*provider).into_iter().collect();
    let mut response = Json(json!({ "Providers": found })).into_response();
    // A block that is not here now may be soon.
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

/// The gateway as a peer. It has no key of libp2p, which HTTP does not need; its name is made from
/// its address, and written as Base58 alone: Helia takes no CID there, though the specification does.
fn provider(public: &Url) -> Value {
    let digest = Sha256::digest(public.as_str());
    let hash = Multihash::<64>::wrap(SHA2_256, &digest).expect("a digest is 32 bytes long");
    json!({
        "Schema": "peer",
        "ID": Base::Base58Btc.encode(hash.to_bytes()),
        "Addrs": [multiaddr(public)],
        "Protocols": ["transport-ipfs-gateway-http"],
    })
}

/// The address in libp2p's notation.
fn multiaddr(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let host = match host.parse::<std::net::Ipv4Addr>() {
        Ok(address) => format!("/ip4/{address}"),
        Err(_) => match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => format!("/ip6/{address}"),
            None => format!("/dns/{host}"),
        },
    };
    let secure = if url.scheme() == "https" { "/tls" } else { "" };
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{host}/tcp/{port}{secure}/http")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_the_notation_of_libp2p() {
        for (url, expected) in [
            ("http://127.0.0.1:8090", "/ip4/127.0.0.1/tcp/8090/http"),
            ("http://[::1]:8090", "/ip6/::1/tcp/8090/http"),
            (
                "https://blobs.example.org",
                "/dns/blobs.example.org/tcp/443/tls/http",
            ),
        ] {
            assert_eq!(multiaddr(&url.parse().unwrap()), expected);
        }
    }
}
