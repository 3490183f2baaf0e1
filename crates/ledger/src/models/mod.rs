//! Models: the registry of base models, and the versions that training rounds leave behind.

mod events;
mod genesis;
mod handle;
mod messages;
mod query;
mod state;

pub(crate) use genesis::init;
pub use handle::{ModelsError, NewVersion, register_version};
pub(crate) use handle::{execute, register};
pub(crate) use messages::check;
pub(crate) use query::route;
pub use state::{MODELS, VERSIONS, get};
