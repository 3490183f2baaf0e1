//! Partial liars over many rounds, against the formula.

use r3mes_sim::behaviour::Behaviour as B;
use r3mes_sim::detection::{Detection, within};
use r3mes_sim::network::Network;
use r3mes_sim::world::World;
use r3mes_types::{Ppm, Role};

/// Rounds of each run, in all of which all liars lie: a thousand of both runs together.
const ROUNDS: u32 = 500;

#[test]
fn partial_liars_are_caught_as_often_as_the_formula_says_and_end_poorer() {
    lie_beside(0);
}

#[test]
fn partial_liars_with_an_accomplice_are_caught_as_often_as_the_formula_says_and_end_poorer() {
    lie_beside(1);
}

/// Lets partial liars work beside four validators, of whom so many cover for them.
fn lie_beside(accomplices: u32) {
    // Each with the number of steps that it falsifies.
    let liars = [
        (B::FalsifiedSteps(1), 1),
        (B::ForgedMoments, 1),
        (B::FalsifiedSteps(2), 2),
        (B::FalsifiedSteps(4), 4),
    ];
    let mut network = Network::honest(5, liars.len() + 1, 4, 1);
    for (miner, (liar, _)) in network.miners.iter_mut().zip(liars) {
        *miner = liar;
    }
    network.validators[..accomplices as usize].fill(B::Accomplice);
    // An accomplice must not be all there is of a back end: the run would pause.
    network.one_backend = true;
    network.rounds = ROUNDS;
    network.audited = Ppm::percent(50);
    network.panel = 1;
    network.drawn = 1;
    let report = World::new(&network).unwrap().run().unwrap();
    let detection = Detection {
        audited: 0.5,
        validators: 4,
        accomplices,
        panel: 1,
        steps: 8,
        drawn: 1,
    };
    let twin = report.honest_twin(Role::Miner).unwrap();
    let as_expected = |who: &str, falsified, lied, caught| {
        let expected = detection.probability(falsified);
        assert!(
            within(caught, lied, expected, 3.0),
            "{who}: caught {caught} times of {lied}, expected {expected}"
        );
    };
    let (mut lied_in_one, mut caught_in_one) = (0, 0);
    for (behaviour, falsified) in liars {
        let liar = report.of(behaviour).next().unwrap();
        let (lied, caught) = (liar.tally.lied, liar.tally.caught);
        assert!(lied > ROUNDS / 2, "{behaviour}: only {lied} trials");
        as_expected(&behaviour.to_string(), falsified, lied, caught);
        assert!(liar.wealth < twin.wealth, "{behaviour}: lying pays");
        if falsified == 1 {
            lied_in_one += lied;
            caught_in_one += caught;
        }
    }
    // The rarest catch, which takes the most trials to tell from another chance.
    as_expected("those who falsify one step", 1, lied_in_one, caught_in_one);
}
