//! The state of training after each kind of message, pinned: what a message does must not change by accident.

use std::collections::BTreeMap;

use r3mes_sim::behaviour::Behaviour as B;
use r3mes_sim::network::Network;
use r3mes_sim::world::World;
use r3mes_types::{Hash, Hasher};

/// State of training after the first block with each kind of event, in one round with a liar.
const PINS: &str = include_str!("pins.txt");

fn state_hash(world: &World) -> Hash {
    let hasher = Hasher::new("r3mes sim state v1");
    let state = world.chain.state().iter();
    let state = state.filter(|(key, _)| key.starts_with(b"training/"));
    state
        .fold(hasher, |sum, (key, value)| sum.part(key).part(value))
        .finish()
}

#[test]
fn the_state_after_every_kind_of_message_is_pinned() {
    let mut network = Network::honest(3, 3, 4, 1);
    network.miners[0] = B::FalsifiedSteps(8);
    network.panel = 2;
    let mut world = World::new(&network).unwrap();
    let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
    while !found.contains_key("training.close_round") {
        world.step().unwrap();
        for kind in world.last_kinds() {
            found
                .entry(kind)
                .or_insert_with(|| state_hash(&world).to_string());
        }
    }
    let found: String = found
        .iter()
        .map(|(kind, hash)| format!("{kind} {hash}\n"))
        .collect();
    assert_eq!(found, PINS, "the states are now:\n{found}");
}
