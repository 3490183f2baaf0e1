//! The state of training after each kind of message, pinned: what a message does must not change by accident.

use std::collections::BTreeMap;

use r3mes_sim::behaviour::Behaviour as B;
use r3mes_sim::network::Network;
use r3mes_sim::world::World;
use r3mes_types::{Hash, Hasher, Ppm};

/// State of training after the first block with each kind of event, in one round with a liar.
const PINS: &str = include_str!("pins.txt");
/// The same in the second audit of a liar that slipped through the first.
const SECOND_PINS: &str = include_str!("second_pins.txt");

fn state_hash(world: &World) -> Hash {
    let hasher = Hasher::new("r3mes sim state v1");
    let state = world.chain.state().iter();
    let state = state.filter(|(key, _)| key.starts_with(b"training/"));
    state
        .fold(hasher, |sum, (key, value)| sum.part(key).part(value))
        .finish()
}

/// State of training after the first block with each kind of event, one a line, from the first with
/// `begin` to the first with `end`.
fn states(world: &mut World, begin: &str, end: &str) -> String {
    let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
    while !found.contains_key(end) {
        world.step().unwrap();
        if found.is_empty() && !world.last_kinds().any(|kind| kind == begin) {
            continue;
        }
        for kind in world.last_kinds() {
            found
                .entry(kind)
                .or_insert_with(|| state_hash(world).to_string());
        }
    }
    found
        .iter()
        .map(|(kind, hash)| format!("{kind} {hash}\n"))
        .collect()
}

#[test]
fn the_state_after_every_kind_of_message_is_pinned() {
    let mut network = Network::honest(3, 3, 4, 1);
    network.miners[0] = B::FalsifiedSteps(8);
    network.panel = 2;
    let mut world = World::new(&network).unwrap();
    let found = states(&mut world, "training.open_round", "training.close_round");
    assert_eq!(found, PINS, "the states are now:\n{found}");
}

#[test]
fn the_state_after_every_kind_of_message_of_a_second_audit_is_pinned() {
    let mut network = Network::honest(3, 3, 4, 1);
    network.miners[0] = B::Quitter(8);
    network.panel = 2;
    network.audited = Ppm::percent(1);
    network.reaudited = Ppm::ONE;
    let mut world = World::new(&network).unwrap();
    world.run().unwrap();
    let found = states(&mut world, "training.reaudit", "training.reaudit_paid");
    assert_eq!(found, SECOND_PINS, "the states are now:\n{found}");
}
