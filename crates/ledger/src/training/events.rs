//! What training tells.

use r3mes_types::training::{Outcome, Phase};
use r3mes_types::{Address, Amount, Event};

use super::state::RoundId;

/// Something about a round.
pub(super) fn round(kind: &'static str, id: RoundId) -> Event {
    Event::new(kind).with("run", id.run).with("round", id.round)
}

/// A node has answered something.
pub(super) fn answer(kind: &'static str, id: RoundId, address: &Address) -> Event {
    round(kind, id).with("address", address)
}

/// A round has entered a phase.
pub(super) fn phase(id: RoundId, phase: Phase) -> Event {
    round("training.phase", id).with("phase", phase)
}

/// A miner's work has found its end.
pub(super) fn outcome(id: RoundId, miner: &Address, outcome: Outcome) -> Event {
    answer("training.outcome", id, miner).with("outcome", outcome)
}

/// A second audit has entered a phase.
pub(super) fn reaudit(id: RoundId, miner: &Address, phase: Phase) -> Event {
    answer("training.reaudit", id, miner).with("phase", phase)
}

/// A second audit was drawn, but no validator had stake free for its panel in time.
pub(super) fn reaudit_unseated(id: RoundId, miner: &Address) -> Event {
    answer("training.reaudit_unseated", id, miner)
}

/// A validator was paid for a second audit.
pub(super) fn reaudit_paid(id: RoundId, address: &Address, amount: Amount) -> Event {
    answer("training.reaudit_paid", id, address).with("amount", amount)
}

/// A node was slashed.
pub(super) fn slashed(id: RoundId, address: &Address, amount: Amount, reason: &str) -> Event {
    answer("training.slashed", id, address)
        .with("amount", amount)
        .with("reason", reason)
}

/// A node was paid.
pub(super) fn paid(id: RoundId, address: &Address, amount: Amount) -> Event {
    answer("training.paid", id, address).with("amount", amount)
}
