//! Blobs over HTTP: a trustless gateway that hands out blocks by CID, and a client that fetches
//! blobs from several such gateways, trusting none.
//!
//! Specification: <https://specs.ipfs.tech/http-gateways/trustless-gateway/>. Served are
//! `GET` and `HEAD /ipfs/{cid}` with `?format=raw` (one block) or `?format=car` (a blob, or with
//! `dag-scope` and `entity-bytes` a part of it), or the media types `application/vnd.ipld.raw`
//! and `application/vnd.ipld.car` in `Accept`.

mod fetch;
mod request;
mod serve;
mod source;

pub use fetch::{Attempt, FetchError, FetchOptions, Fetched, Fetcher};
pub use serve::{GatewayLimits, router};
pub use source::{Source, SourceError};
