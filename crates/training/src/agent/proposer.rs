//! What a proposer does about what it owes.

use r3mes_types::training::{MsgProposeAggregate, Obligation};

use super::facts::{Facts, RoundKey};
use super::{Action, send};

/// Aggregate, then post the result.
pub(super) fn propose(facts: &Facts, owed: &Obligation) -> Action {
    let Some(aggregate) = facts.aggregates.get(&RoundKey::of(owed)) else {
        return Action::Aggregate(Box::new(owed.clone()));
    };
    send(MsgProposeAggregate {
        proposer: facts.address,
        run: owed.run,
        round: owed.round,
        aggregate: aggregate.clone(),
    })
}
