//! Beacon: randomness that nobody can choose.
//!
//! Each block's first transaction reveals the next element of the block proposer's hash chain, and
//! the mix becomes `BLAKE3(mix, element)`. A block without it is refused. A proposer's only choice is
//! not to propose: one bit for each colluding proposer at the tail. Who proposes all blocks alone, as
//! under the engine `local`, knows every draw in advance.

mod events;
mod genesis;
mod handle;
mod messages;
mod query;
mod state;

pub(crate) use genesis::{forget_chains, init};
pub use handle::{BeaconError, preimage};
pub(crate) use handle::{begin_block, bind_validator, execute, verify};
pub(crate) use messages::check;
pub(crate) use query::route;
pub use state::{CHAINS, KEPT_MIXES, MIXES, last_mix, mix_at};
