//! What `--check` promises.

use std::collections::BTreeMap;

use anyhow::Context;
use r3mes_gateway::openai;
use r3mes_types::{Amount, nodes::QuerySlashes, training::QueryRun};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    ANSWER_SEED, ANSWER_TOKENS, Options, PROMPT,
    figures::{Check, Figures, MinerFigures, RoundFigures},
    network::Network,
    watch::RUN,
};
use crate::{
    cli,
    process::{Phase, Service, Supervisor},
};

/// The least share by which the held-out loss must fall.
const LEAST_FALL: f64 = 0.15;

/// Checks everything.
pub(super) async fn all(
    network: &Network,
    options: &Options,
    figures: &Figures,
    supervisor: &Supervisor,
) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![fall(figures), accepted(&figures.rounds)];
    checks.push(slashed(network, options).await?);
    checks.push(served(network).await?);
    checks.push(answer(network).await?);
    checks.push(restart(network, supervisor).await?);
    Ok(checks)
}

fn fall(figures: &Figures) -> Check {
    let fall = figures.fall();
    Check {
        name: "the held-out loss fell by at least 15%",
        holds: fall >= LEAST_FALL,
        found: format!(
            "{:.3} to {:.3}, {:.1}%",
            figures.base_loss,
            figures.loss,
            100.0 * fall
        ),
    }
}

/// Every miner by name: honest ones were accepted in every round, a liar in none.
fn accepted(rounds: &[RoundFigures]) -> Check {
    let unjust = told(rounds, |miner| !miner.is_just());
    Check {
        name: "every honest package was accepted, and no other",
        holds: unjust.is_empty(),
        found: match unjust.is_empty() {
            true => told(rounds, |_| true),
            false => unjust,
        }
        .join("; "),
    }
}

/// What became of the miners' work, one line for each miner and outcome.
fn told(rounds: &[RoundFigures], which: impl Fn(&MinerFigures) -> bool) -> Vec<String> {
    let mut said: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for round in rounds {
        for miner in round.miners.iter().filter(|miner| which(miner)) {
            let key = (miner.name.as_str(), miner.outcome_name());
            said.entry(key).or_default().push(round.round.to_string());
        }
    }
    let lines = said.iter().map(|((name, outcome), numbers)| {
        if numbers.len() == rounds.len() {
            format!("{name} {outcome} in each round")
        } else {
            format!("{name} {outcome} in round {}", numbers.join(", "))
        }
    });
    lines.collect()
}

/// A slash as the ledger tells of it, with the name of the node.
struct NamedSlash {
    name: String,
    honest: bool,
    amount: Amount,
    reason: String,
}

async fn slashed(network: &Network, options: &Options) -> anyhow::Result<Check> {
    let participants = network.participants()?;
    let everybody = QuerySlashes {
        node: None,
        page: None,
    };
    let slashes = network.client()?.query(&everybody).await?.slashes;
    let named = slashes.iter().map(|slash| {
        let node = participants.iter().find(|one| one.address == slash.node);
        NamedSlash {
            name: node.map_or_else(|| slash.node.to_string(), |node| node.label.clone()),
            honest: node.is_none_or(|node| node.honest),
            amount: slash.amount,
            reason: slash.reason.as_str().to_owned(),
        }
    });
    Ok(only_liars(&named.collect::<Vec<_>>(), options.liar))
}

/// Whether those were slashed that should be.
fn only_liars(slashes: &[NamedSlash], liar: bool) -> Check {
    let honest_lost = slashes.iter().any(|slash| slash.honest);
    let liar_lost = slashes.iter().any(|slash| !slash.honest);
    let found: Vec<String> = slashes
        .iter()
        .map(|slash| format!("{} {} slashed: {}", slash.name, slash.amount, slash.reason))
        .collect();
    Check {
        name: match liar {
            true => "the liar was caught and slashed, and nobody else",
            false => "nobody was slashed",
        },
        holds: !honest_lost && liar_lost == liar,
        found: match found.is_empty() {
            true => "no slash".to_owned(),
            false => found.join("; "),
        },
    }
}

async fn served(network: &Network) -> anyhow::Result<Check> {
    let newest = network
        .client()?
        .query(&QueryRun { run: RUN })
        .await?
        .adapter
        .adapter;
    let models = openai::Client::new(&network.api_url())?.models().await?;
    let name = network.trained_model();
    let adapter = models
        .iter()
        .find(|model| model.id == name)
        .and_then(|model| model.adapter);
    Ok(Check {
        name: "the adapter that was measured is the one that is served",
        holds: adapter == Some(newest),
        found: adapter.map_or_else(
            || "none is served".to_owned(),
            |adapter| adapter.to_string(),
        ),
    })
}

async fn answer(network: &Network) -> anyhow::Result<Check> {
    let client = openai::Client::new(&network.api_url())?;
    let ask = openai::CompletionAsk {
        model: network.trained_model(),
        prompt: PROMPT.to_owned(),
        max_tokens: ANSWER_TOKENS,
        temperature: 0.8,
        seed: ANSWER_SEED,
    };
    let completion = client.complete(&ask).await?;
    let report = cli::receipt::verify(
        network.home(),
        network.config(),
        &completion.receipt,
        &network.api_url(),
    )
    .await;
    Ok(Check {
        name: "a served answer recomputes from its receipt",
        holds: report.is_ok(),
        found: match report {
            Ok(report) => report.text(),
            Err(error) => cli::explain(&error),
        },
    })
}

/// Kills the ledger without warning; started again, it must have the same app hash.
async fn restart(network: &Network, supervisor: &Supervisor) -> anyhow::Result<Check> {
    let client = network.client()?;
    let (height, before) = client.committed().await?;
    let label = Service::Ledger.to_string();
    let mut board = supervisor.board();
    let (pid, restarts) = {
        let board = board.borrow();
        let status = board.get(&label).context("the ledger is not supervised")?;
        (status.pid, status.restarts)
    };
    let pid = pid
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .context("the ledger does not run")?;
    kill_process(pid, Signal::KILL)?;
    board
        .wait_for(|board| {
            board
                .get(&label)
                .is_some_and(|status| status.restarts > restarts && status.phase == Phase::Ready)
        })
        .await?;
    let after = root_after(&client, height).await?;
    Ok(Check {
        name: "the app hash is the same after the ledger was killed and restarted",
        holds: after == before,
        found: format!("{} at height {height}", hex::encode(after)),
    })
}

/// The state's root after the block of a height: as the ledger has it, or from the next block's header.
async fn root_after(client: &r3mes_gateway::rpc::Client, height: u64) -> anyhow::Result<[u8; 32]> {
    match client.committed().await? {
        (newest, root) if newest == height => Ok(root),
        _ => Ok(client.app_hash_after(height).await?),
    }
}

#[cfg(test)]
mod tests {
    use r3mes_types::training::Outcome;

    use super::*;

    const ACCEPTED: Option<Outcome> = Some(Outcome::Accepted);

    #[test]
    fn the_loss_has_to_fall_by_fifteen_in_a_hundred() {
        let fell = |loss| {
            fall(&Figures {
                base_loss: 6.0,
                loss,
                ..Figures::default()
            })
        };
        assert!(fell(5.09).holds);
        assert!(!fell(5.11).holds);
        assert_eq!(fell(5.11).found, "6.000 to 5.110, 14.8%");
        assert!(!fell(6.5).holds, "it rose");
    }

    /// Rounds in which two honest miners and a liar met these outcomes.
    fn rounds(outcomes: &[[Option<Outcome>; 3]]) -> Vec<RoundFigures> {
        let miners = [("miner-1", true), ("miner-2", true), ("liar", false)];
        let round = |(number, outcomes): (usize, &[Option<Outcome>; 3])| {
            let miners = miners.iter().zip(outcomes);
            let miners = miners.map(|(&(name, honest), &outcome)| MinerFigures {
                name: name.to_owned(),
                honest,
                outcome,
            });
            RoundFigures {
                round: number as u32,
                miners: miners.collect(),
                ..RoundFigures::default()
            }
        };
        outcomes.iter().enumerate().map(round).collect()
    }

    #[test]
    fn an_accepted_liar_and_a_refused_miner_are_named_though_the_number_is_right() {
        let fraud = Some(Outcome::Fraudulent);
        let just = accepted(&rounds(&[
            [ACCEPTED, ACCEPTED, fraud],
            [ACCEPTED, ACCEPTED, None],
        ]));
        assert!(just.holds, "{}", just.found);
        assert_eq!(
            just.found,
            "liar fraudulent in round 0; liar not assigned in round 1; \
             miner-1 accepted in each round; miner-2 accepted in each round"
        );
        // Two packages each time, as it should be, but the liar's is one of them.
        let unjust = accepted(&rounds(&[
            [ACCEPTED, ACCEPTED, fraud],
            [ACCEPTED, Some(Outcome::Unavailable), ACCEPTED],
        ]));
        assert!(!unjust.holds);
        assert_eq!(
            unjust.found,
            "liar accepted in round 1; miner-2 unavailable in round 1"
        );
        let away = accepted(&rounds(&[[ACCEPTED, None, fraud]]));
        assert!(!away.holds);
        assert_eq!(away.found, "miner-2 not assigned in each round");
    }

    #[test]
    fn a_slash_of_anybody_honest_is_told_with_name_and_reason() {
        let slash = |name: &str, honest| NamedSlash {
            name: name.to_owned(),
            honest,
            amount: Amount::new(7),
            reason: "it lied".to_owned(),
        };
        assert!(only_liars(&[], false).holds);
        assert!(!only_liars(&[], true).holds);
        assert!(only_liars(&[slash("liar", false)], true).holds);
        let both = only_liars(&[slash("liar", false), slash("validator-2", true)], true);
        assert!(!both.holds);
        assert!(
            both.found.ends_with("validator-2 7uremes slashed: it lied"),
            "{}",
            both.found
        );
    }
}
