//! What governance tells.

use r3mes_types::governance::Proposal;
use r3mes_types::{Address, Event};

pub(super) fn proposal(proposal: &Proposal) -> Event {
    Event::new("governance.proposal")
        .with("proposal", proposal.id)
        .with("status", proposal.status)
}

pub(super) fn voted(proposal: u64, voter: &Address, approve: bool) -> Event {
    Event::new("governance.voted")
        .with("proposal", proposal)
        .with("voter", voter)
        .with("approve", approve)
}
