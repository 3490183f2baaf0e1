//! What the beacon tells.

use r3mes_types::{ConsensusAddress, Event, Hash};

pub(super) fn chain_registered(validator: &ConsensusAddress, length: u64) -> Event {
    Event::new("beacon.chain_registered")
        .with("validator", validator)
        .with("length", length)
}

pub(super) fn mixed(height: u64, mix: &Hash) -> Event {
    Event::new("beacon.mixed")
        .with("height", height)
        .with("mix", mix)
}
