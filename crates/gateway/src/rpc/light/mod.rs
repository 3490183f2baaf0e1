//! A light client: checks what a node answers against headers that the network's validators signed.
//!
//! It begins with something trusted ([`Root`]): the network's genesis, or a header by its height and
//! hash. From there it follows the chain by headers and commits, skipping as many as the signatures
//! allow, with Informal Systems' verifier. An answer about the state is taken only with ICS-23 proofs
//! of everything it was made of, against the app hash of a verified header; the answer itself is then
//! computed here, by the ledger's own code, and compared with what the node said.
//!
//! What it cannot see: entries that a node leaves out of a list (the tree has no proof for ranges), and
//! a network of which more than two thirds of the power lies.

mod ask;
mod block;
mod error;
mod follow;
mod proved;
mod settings;

pub use block::{LightBlock, TrustOptions, Trusted, verify, verify_link, verify_now};
pub use error::LightError;
pub use follow::LightClient;
pub use proved::{Answered, ProvedAnswer};
pub use settings::{Root, Settings};
