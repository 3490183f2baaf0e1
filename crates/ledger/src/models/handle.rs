//! What messages about models do, and what training does to them.

use r3mes_types::models::{Model, ModelSpec, ModelsMessage, Version};
use r3mes_types::{Address, Cid, Hash};

use super::state::{BY_NAME, MODELS, VERSIONS};
use super::{events, messages};
use crate::coded_errors;
use crate::error::LedgerError;
use crate::governance;
use crate::store::Context;

coded_errors! {
    /// Why something about models is refused.
    pub enum ModelsError in "models" {
        /// The sender is not the network's authority.
        #[error("{sender} is not the authority of this network: propose the model to governance")]
        1 => NotAuthority {
            /// Who sent it.
            sender: Address,
        },
        /// The id or the name is taken.
        #[error("a different model with this {what} is registered")]
        2 => Taken {
            /// What both have.
            what: &'static str,
        },
        /// The model is not registered.
        #[error("model {id} is not registered")]
        3 => Unknown {
            /// Its id.
            id: Hash,
        },
        /// The description contradicts itself.
        #[error("{field}: {why}")]
        4 => Spec {
            /// Which part.
            field: &'static str,
            /// What is wrong, and what to do.
            why: &'static str,
        },
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &ModelsMessage) -> Result<(), LedgerError> {
    let ModelsMessage::RegisterModel(message) = message;
    let sender = message.authority;
    if !governance::is_authority(ctx, &sender)? {
        return Err(ModelsError::NotAuthority { sender }.into());
    }
    register(ctx, &message.spec)
}

/// Registers a model; does nothing if this very model is registered.
pub(crate) fn register(ctx: &mut Context<'_>, spec: &ModelSpec) -> Result<(), LedgerError> {
    messages::check_spec(spec)?;
    if let Some(present) = MODELS.get(ctx, &spec.id)? {
        if present.spec == *spec {
            return Ok(());
        }
        return Err(ModelsError::Taken { what: "id" }.into());
    }
    let name = Hash::of(spec.name.as_bytes());
    if BY_NAME.contains(ctx, &name)? {
        return Err(ModelsError::Taken { what: "name" }.into());
    }
    BY_NAME.put(ctx, &name, &spec.id)?;
    let model = Model {
        spec: spec.clone(),
        registered_at: ctx.now(),
        versions: 0,
    };
    MODELS.put(ctx, &spec.id, &model)?;
    ctx.emit(events::registered(spec));
    Ok(())
}

/// An adapter that a round has closed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewVersion {
    /// The model.
    pub model: Hash,
    /// The run.
    pub run: u64,
    /// The round.
    pub round: u64,
    /// The adapter file.
    pub adapter: Cid,
    /// BLAKE3 of the adapter.
    pub adapter_hash: Hash,
}

/// Gives a model a new version; gives its number.
///
/// # Errors
/// [`ModelsError::Unknown`].
pub fn register_version(ctx: &mut Context<'_>, new: &NewVersion) -> Result<u32, LedgerError> {
    let id = new.model;
    let mut model = MODELS.get(ctx, &id)?.ok_or(ModelsError::Unknown { id })?;
    model.versions += 1;
    let version = Version {
        model: id,
        number: model.versions,
        run: new.run,
        round: new.round,
        adapter: new.adapter,
        adapter_hash: new.adapter_hash,
        registered_at: ctx.now(),
    };
    MODELS.put(ctx, &id, &model)?;
    VERSIONS.put(ctx, &(id, version.number), &version)?;
    ctx.emit(events::version(&version));
    Ok(version.number)
}
