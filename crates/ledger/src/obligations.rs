//! The obligation lane: what a registered node owes travels free and first.
//!
//! Everything a node owes has a key, a hash of (run, round, kind, address). An identical answer to a
//! key that has been answered changes nothing; a conflicting one is refused by its domain.

use r3mes_types::{Hash, Message};

use crate::error::LedgerError;
use crate::store::View;
use crate::training;

/// How a message stands to what its node owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It answers nothing that is owed.
    None,
    /// It answers what is owed now.
    Owed(Hash),
    /// It repeats, identically, what has been answered.
    Answered(Hash),
}

/// How `message` stands to what its node owes.
pub(crate) fn standing(view: &dyn View, message: &Message) -> Result<Standing, LedgerError> {
    match message {
        Message::Bank(_)
        | Message::Auth(_)
        | Message::Beacon(_)
        | Message::Nodes(_)
        | Message::Models(_)
        | Message::Data(_)
        | Message::Governance(_)
        | Message::Escrow(_) => Ok(Standing::None),
        Message::Training(message) => training::standing(view, message),
    }
}
