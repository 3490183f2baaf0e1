//! Training runs and rounds: what the ledger keeps, what nodes send, and what they ask.
//!
//! A **run** trains adapters for one model on one dataset. It is a sequence of **rounds**; in each, miners
//! train from the same start adapter, validators re-run a drawn part, a proposer aggregates. The protocol
//! is written down in `docs/spec/round.md`.

mod audit;
mod limits;
mod messages;
mod query;
mod round;
mod run;

pub use audit::*;
pub use limits::*;
pub use messages::*;
pub use query::*;
pub use round::*;
pub use run::*;
