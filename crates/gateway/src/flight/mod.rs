//! Arrow Flight: adapters and packages as record batches for data tools, and blocks between nodes.
//!
//! An adapter is a table with one row per layer and one column per tensor, whose shape and dtype
//! stand in the schema; a package is a table with one row per chunk. Either may be read (`DoGet`)
//! and written (`DoPut`): what is written becomes the canonical bytes again, under the same CID.
//! `docs/spec/flight.md` has the names and schemas.
//!
//! [`router`] serves a [`BlobStore`](r3mes_blobs::BlobStore) to whoever shows the [`Token`];
//! [`Peers`] is the client between nodes, which [`ipfs::Fetcher`](crate::ipfs::Fetcher) uses for
//! sources such as `flight://host:8815`.

mod actions;
mod catalogue;
mod get;
mod name;
mod peers;
mod put;
mod service;
mod table;
mod token;

pub use catalogue::{AdapterFacts, Catalogue, CatalogueError, Listed};
pub use name::{Name, NameError};
pub use peers::{PeerError, Peers};
pub use service::{FlightLimits, router};
pub use token::{Token, TokenError};
