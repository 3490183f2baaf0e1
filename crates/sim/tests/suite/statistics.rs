//! Partial liars over a thousand rounds, against the formula.

use r3mes_sim::behaviour::Behaviour as B;
use r3mes_sim::detection::{Detection, within};
use r3mes_sim::network::Network;
use r3mes_sim::world::World;
use r3mes_types::{Ppm, Role};

#[test]
fn partial_liars_are_caught_as_often_as_the_formula_says_and_end_poorer() {
    let mut network = Network::honest(5, 4, 4, 1);
    network.miners[..3].copy_from_slice(&[
        B::FalsifiedSteps(1),
        B::FalsifiedSteps(2),
        B::FalsifiedSteps(4),
    ]);
    network.rounds = 1_000;
    network.audited = Ppm::percent(50);
    network.panel = 1;
    network.drawn = 1;
    let report = World::new(&network).unwrap().run().unwrap();
    let detection = Detection {
        audited: 0.5,
        validators: 4,
        accomplices: 0,
        panel: 1,
        steps: 8,
        drawn: 1,
    };
    let twin = report.honest_twin(Role::Miner).unwrap();
    for falsified in [1, 2, 4] {
        let liar = report.of(B::FalsifiedSteps(falsified)).next().unwrap();
        let (lied, caught) = (liar.tally.lied, liar.tally.caught);
        assert!(lied > 500, "{falsified} steps: only {lied} trials");
        let expected = detection.probability(falsified);
        assert!(
            within(caught, lied, expected, 3.0),
            "{falsified} steps: caught {caught} times of {lied}, expected {expected}"
        );
        assert!(liar.wealth < twin.wealth, "{falsified} steps: lying pays");
    }
}
