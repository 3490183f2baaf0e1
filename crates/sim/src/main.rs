//! Runs a simulation from a seed: `cargo run -p r3mes-sim -- --seed 7 --rounds 20`.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use r3mes_sim::network::Network;
use r3mes_sim::world::World;

const USAGE: &str = "\
usage: r3mes-sim [--seed N] [--rounds N | --partitions N] [--runs N]

Simulates fifty nodes in bad weather with liars of every kind, and checks after every block that
coins are conserved, nobody is paid twice, no honest node is slashed, and rounds close. With
--partitions, seven validators, two of which lie, are cut off from the ledger time and again.

  --seed N     the seed that everything follows from (1)
  --rounds N   rounds of training (10)
  --partitions N
               so many partitions, and as many rounds as they take
  --runs N     so many simulations, with seeds N, N + 1, ... (1)";

struct Options {
    seed: u64,
    rounds: u32,
    partitions: Option<u32>,
    runs: u64,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options {
        seed: 1,
        rounds: 10,
        partitions: None,
        runs: 1,
    };
    while let Some(name) = arguments.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let value = arguments
            .next()
            .with_context(|| format!("{name} needs a value"))?;
        let number = || {
            value
                .parse()
                .with_context(|| format!("{name} {value}: a number is needed"))
        };
        match name.as_str() {
            "--seed" => options.seed = number()?,
            "--rounds" => options.rounds = u32::try_from(number()?)?,
            "--partitions" => options.partitions = Some(u32::try_from(number()?)?),
            "--runs" => options.runs = number()?,
            _ => bail!("{name} is unknown\n\n{USAGE}"),
        }
    }
    Ok(Some(options))
}

fn simulate(seed: u64, options: &Options) -> Result<()> {
    let report = match options.partitions {
        Some(count) => World::new(&Network::partitioned(seed, count))?.run_until_healed()?,
        None => World::new(&Network::zoo(seed, options.rounds))?.run()?,
    };
    println!("seed {seed}: {report}");
    Ok(())
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    for seed in options.seed..options.seed.saturating_add(options.runs) {
        if let Err(error) = simulate(seed, &options) {
            eprintln!("{error:#}");
            let what = options.partitions.map_or_else(
                || format!("--rounds {}", options.rounds),
                |count| format!("--partitions {count}"),
            );
            eprintln!("again: cargo run -p r3mes-sim -- --seed {seed} {what}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
