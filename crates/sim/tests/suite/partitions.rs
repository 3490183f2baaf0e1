//! Seven validators whose ways to the ledger break and mend.

use r3mes_sim::network::{Network, WINDOW};
use r3mes_sim::world::World;
use r3mes_types::Millis;

/// Histories, and partitions in each.
const HISTORIES: u64 = 10;
const PARTITIONS: u32 = 100;

#[test]
fn a_thousand_partitions_cost_no_honest_node_its_stake_and_rounds_close_after_them() {
    let (mut partitions, mut rounds) = (0, 0);
    for seed in 0..HISTORIES {
        // The watch fails when a promise is broken, and the error names the seed.
        let mut world = World::new(&Network::partitioned(seed, PARTITIONS)).unwrap();
        let report = world.run_until_healed().unwrap();
        partitions += report.partitions;
        rounds += report.rounds;
    }
    println!("{partitions} partitions in {rounds} rounds");
    assert_eq!(u64::from(partitions), 1_000);
}

#[test]
fn a_miner_that_is_cut_off_for_whole_windows_is_slashed_and_the_run_that_shows_it_names_its_seed() {
    // It is how the protocol is: silence is costly after the draw. And it is how a broken promise looks.
    let failed = (0..8).find_map(|seed| {
        let mut network = Network::partitioned(seed, 20);
        network.partitions.longest_of_miners = Millis::new(4 * WINDOW.millis());
        network.partitions.longest = network.partitions.longest_of_miners;
        let error = World::new(&network).unwrap().run_until_healed().err()?;
        let error = format!("{error:#}");
        assert!(error.contains(&format!("seed {seed} ")), "{error}");
        error.contains("an honest node was slashed").then_some(seed)
    });
    assert!(failed.is_some(), "nobody was slashed");
}
