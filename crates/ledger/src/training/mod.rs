//! Training: runs, rounds, audits, the court and the aggregate.
//!
//! A round is a state machine over block time (`docs/spec/round.md`). Messages only record answers
//! (`miner`, `validator`, `aggregate`); everything that follows from them happens after a block
//! (`phases`, `settle`), and all payment at the close (`pay`). `reaudit` audits packages of miners that
//! take stake back a second time. What the beacon draws is in
//! `draw`, what the court says in `court`: both are pure.

mod aggregate;
mod answers;
mod court;
mod draw;
mod error;
mod events;
mod genesis;
mod handle;
mod messages;
mod miner;
mod open;
mod params;
mod pay;
mod phases;
mod prune;
mod query;
mod reaudit;
mod runs;
mod settle;
mod stake;
mod state;
mod validator;

pub use error::TrainingError;
pub(crate) use genesis::{end_rounds, init};
pub(crate) use handle::{execute, standing};
pub(crate) use messages::check;
pub use params::{ParamsError, check as check_params};
pub use phases::{DRAW_DELAY, MAX_WORK_PER_BLOCK};
pub(crate) use phases::{end_block, next_deadline};
pub(crate) use query::route;
pub(crate) use reaudit::begin_anew as begin_reaudits_anew;
pub use reaudit::{MAX_LEAVERS, MAX_REAUDITS};
pub use runs::start;
pub(crate) use runs::{end, switch};
pub use state::{DUTIES, ENTRIES, MEMBERS, ROUNDS, RUNS, RoundId, SUMMARIES, VOTES};
