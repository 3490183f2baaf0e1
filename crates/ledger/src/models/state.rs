//! What is kept of models.

use r3mes_types::Hash;
use r3mes_types::models::{Model, Version};

use crate::error::LedgerError;
use crate::store::{Map, View};

/// Models by id.
pub const MODELS: Map<Hash, Model> = Map::new("models/model/");
/// Versions by model and number, from 1.
pub const VERSIONS: Map<(Hash, u32), Version> = Map::new("models/version/");
/// Ids by the hash of the name.
pub(super) const BY_NAME: Map<Hash, Hash> = Map::new("models/by-name/");

/// A model, if it is registered.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn get(view: &dyn View, id: &Hash) -> Result<Option<Model>, LedgerError> {
    MODELS.get(view, id)
}
