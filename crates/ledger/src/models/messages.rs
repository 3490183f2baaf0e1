//! What can be said of a message about models without looking anything up.

use r3mes_types::models::{ModelSpec, ModelsMessage};

use super::handle::ModelsError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &ModelsMessage) -> Result<(), LedgerError> {
    let ModelsMessage::RegisterModel(message) = message;
    Ok(check_spec(&message.spec)?)
}

pub(super) fn check_spec(spec: &ModelSpec) -> Result<(), ModelsError> {
    let refuse = |field, why| Err(ModelsError::Spec { field, why });
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if spec.name.is_empty() || !spec.name.chars().all(plain) {
        return refuse("name", "use letters, digits and -_./: without spaces");
    }
    if spec.base_bytes == 0 {
        return refuse("base_bytes", "the packed file cannot be empty");
    }
    if spec.exact_version == 0 {
        return refuse(
            "exact_version",
            "versions of the exact arithmetic begin at 1",
        );
    }
    Ok(())
}
