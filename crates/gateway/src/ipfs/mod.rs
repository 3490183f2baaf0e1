//! Blobs over HTTP: a trustless gateway that hands out blocks by CID, and a client that fetches
//! blobs from several such gateways, trusting none. [`KuboStore`] keeps blocks in a Kubo node.
//!
//! Specification: <https://specs.ipfs.tech/http-gateways/trustless-gateway/>. Served are
//! `GET` and `HEAD /ipfs/{cid}` with `?format=raw` (one block) or `?format=car` (a blob, or with
//! a path, `dag-scope` and `entity-bytes` a part of it), or the media types
//! `application/vnd.ipld.raw` and `application/vnd.ipld.car` in `Accept`. `docs/spec/blobs.md` has
//! the rules one by one.

mod archive;
mod fetch;
mod ipns;
mod kubo;
mod negotiation;
mod ranges;
mod request;
mod routing;
mod serve;
mod source;

pub use fetch::{Attempt, FetchError, FetchOptions, Fetched, Fetcher};
pub use kubo::KuboStore;
pub use routing::routing;
pub use serve::{GatewayLimits, router};
pub use source::{Source, SourceError};
