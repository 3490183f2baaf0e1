//! Fifty nodes, bad weather, liars of every kind.

use r3mes_sim::behaviour::Behaviour as B;
use r3mes_sim::network::Network;
use r3mes_sim::world::World;
use r3mes_types::{Ppm, Role};

#[test]
fn among_fifty_nodes_every_liar_ends_poorer_than_its_honest_twin() {
    for (seed, all_steps) in [(1, false), (2, true)] {
        let mut network = Network::zoo(seed, 4);
        network.audited = Ppm::ONE;
        if all_steps {
            network.drawn = network.steps;
        }
        let mut world = World::new(&network).unwrap();
        let report = world.run().unwrap();
        assert_eq!((report.rounds, report.nodes.len()), (4, 50));
        assert!(report.crashes > 0, "seed {seed}: no process died");
        for role in [Role::Miner, Role::Validator] {
            let twin = report.honest_twin(role).unwrap().wealth;
            // Who lies in a few steps gets away with it for some rounds where few are drawn: see the
            // statistics.
            let in_few_steps = |b| matches!(b, B::FalsifiedSteps(2) | B::ForgedMoments);
            let rarely_caught = |b| !all_steps && in_few_steps(b);
            let liars = report.nodes.iter().filter(|node| {
                node.role == role && !node.behaviour.is_honest() && !rarely_caught(node.behaviour)
            });
            for liar in liars {
                assert!(liar.wealth < twin, "seed {seed}: {} gains", liar.behaviour);
            }
        }
    }
}

#[test]
fn bad_weather_alone_costs_no_honest_node_anything() {
    for seed in 20..24 {
        let mut network = Network::honest(seed, 6, 5, 3);
        network.rounds = 4;
        network.weather = true;
        // The watch fails when honest work is not accepted, or an honest node is slashed.
        let report = World::new(&network).unwrap().run().unwrap();
        assert_eq!(report.rounds, 4);
        let miners = report.nodes.iter().filter(|node| node.role == Role::Miner);
        assert!(miners.clone().all(|node| node.tally.accepted == 4));
    }
}

#[test]
fn a_failing_run_names_its_seed() {
    // Without a proposer no round opens, and nothing will ever happen.
    let mut world = World::new(&Network::honest(77, 3, 3, 0)).unwrap();
    for error in [world.step().unwrap_err(), world.run().unwrap_err()] {
        assert!(format!("{error:#}").contains("seed 77"), "{error:#}");
    }
}
