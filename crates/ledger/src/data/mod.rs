//! Data: datasets of token-id shards, proposed by anyone the validators trust to, adopted by vote.

mod events;
mod genesis;
mod handle;
mod messages;
mod params;
mod query;
mod state;

pub(crate) use genesis::init;
pub use handle::DataError;
pub(crate) use handle::{end_block, execute, next_deadline};
pub(crate) use messages::check;
pub use params::{check as check_params, defaults as default_params};
pub(crate) use query::route;
pub use state::{DATASETS, PARAMS, SHARDS, adopted, shard};
