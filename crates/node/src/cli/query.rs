//! `r3mes query`

use anyhow::Context;
use r3mes_gateway::rpc::{self, ClientError};
use r3mes_types::{
    Address,
    auth::{QueryAccount, QueryGrants},
    bank::QueryBalance,
    data::{QueryDataset, QueryDatasets},
    escrow::{QueryEscrow, QueryEscrows},
    governance::{QueryParams, QueryProposals},
    models::QueryModels,
    nodes::{QueryNode, QueryNodes},
    query::Query as LedgerQuery,
    rewards::QueryVesting,
    training::{QueryObligations, QueryRound, QueryRun, QueryRuns, Run},
    wire::{Shown, Wire},
};

use super::{
    args::{Overrides, Query, QueryCommand},
    output::Output,
    registry,
};
use crate::{agents, config::Config, home::Home, keyring::Keyring};

/// As many runs as one answer has.
const ALL_RUNS: QueryRuns = QueryRuns {
    after: None,
    limit: 0,
};

/// `r3mes query`
pub(super) fn run(
    home: &Home,
    typed: &Query,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let config = super::load_or_default(home, overrides)?;
    let answer = super::runtime()?.block_on(answer(home, &config, &typed.command))?;
    out.show_ledger(&answer)
}

async fn answer(home: &Home, config: &Config, command: &QueryCommand) -> anyhow::Result<Shown> {
    let client = agents::chain::connect(home, config)?;
    let or_own = |address: &Option<Address>| match address {
        Some(address) => Ok(*address),
        None => own_address(home),
    };
    match command {
        QueryCommand::Account { address } => account(&client, or_own(address)?).await,
        QueryCommand::Node { address } => {
            let address = or_own(address)?;
            ask(&client, QueryNode { address }).await
        }
        QueryCommand::Nodes => ask(&client, QueryNodes::default()).await,
        QueryCommand::Models => ask(&client, QueryModels::default()).await,
        QueryCommand::Datasets => ask(&client, QueryDatasets::default()).await,
        QueryCommand::Dataset { dataset } => ask(&client, QueryDataset { id: *dataset }).await,
        QueryCommand::Run { run } => Ok(run_of(&client, *run).await?.shown()),
        QueryCommand::Proposals => ask(&client, QueryProposals::default()).await,
        QueryCommand::Params => ask(&client, QueryParams {}).await,
        QueryCommand::Runs => ask(&client, ALL_RUNS).await,
        QueryCommand::Round { round, run } => {
            let run = run_of(&client, *run).await?;
            let round = known_round(&run, *round)?;
            ask(&client, QueryRound { run: run.id, round }).await
        }
        QueryCommand::Obligations { address } => {
            let address = or_own(address)?;
            ask(&client, QueryObligations { address }).await
        }
        QueryCommand::Escrow { escrow } => ask(&client, QueryEscrow { escrow: *escrow }).await,
        QueryCommand::Escrows { address } => {
            let question = QueryEscrows {
                account: or_own(address)?,
                page: None,
            };
            ask(&client, question).await
        }
        QueryCommand::Slashes { address, all } => {
            let node = match all {
                true => None,
                false => Some(or_own(address)?),
            };
            slashes(&client, node).await
        }
        QueryCommand::Grants { address } => {
            let granter = or_own(address)?;
            ask(&client, QueryGrants { granter }).await
        }
        QueryCommand::Transaction { hash } => transaction(&client, hash).await,
        QueryCommand::ChainRegistry(typed) => registry::write(&client, home, config, typed).await,
    }
}

/// All that an account has.
async fn account(client: &rpc::Client, address: Address) -> anyhow::Result<Shown> {
    let account = ask(client, QueryAccount { address }).await?;
    let balance = ask(client, QueryBalance { address }).await?;
    let vesting = ask(client, QueryVesting { address }).await?;
    Ok(Shown::Record(vec![
        ("address", Shown::Text(address.to_string())),
        ("account", account),
        ("balance", balance),
        ("vesting", vesting),
    ]))
}

/// The slashes of a node, or of all.
async fn slashes(client: &rpc::Client, node: Option<Address>) -> anyhow::Result<Shown> {
    let slashes = super::tx::slashes(client, node).await?;
    let slashes = slashes.iter().map(Wire::shown).collect();
    Ok(Shown::Record(vec![("slashes", Shown::List(slashes))]))
}

async fn ask<Q: LedgerQuery>(client: &rpc::Client, question: Q) -> anyhow::Result<Shown> {
    Ok(client.query(&question).await?.shown())
}

/// A run that there is.
async fn run_of(client: &rpc::Client, run: u64) -> anyhow::Result<Run> {
    let refused = match client.query(&QueryRun { run }).await {
        Err(refused @ ClientError::Query { .. }) => refused,
        answer => return Ok(answer?),
    };
    let runs = client.query(&ALL_RUNS).await?.runs;
    let ids: Vec<_> = runs.iter().map(|run| run.id).collect();
    Err(anyhow::Error::new(refused).context(no_run(run, &ids)))
}

fn no_run(asked: u64, known: &[u64]) -> String {
    if known.is_empty() {
        return "this network has no training run yet; `r3mes tx run start` begins one".to_owned();
    }
    let known: Vec<_> = known.iter().map(u64::to_string).collect();
    format!(
        "there is no run {asked}; name one of {} (`r3mes query runs` shows them)",
        known.join(", ")
    )
}

/// The round asked for, or the newest.
fn known_round(run: &Run, asked: Option<u32>) -> anyhow::Result<u32> {
    let id = run.id;
    let newest = agents::chain::newest_round(run).with_context(|| {
        format!("run {id} has not opened a round yet: it waits for miners and validators (`r3mes query run {id}` says how many, `r3mes query nodes` who is there)")
    })?;
    let round = asked.unwrap_or(newest);
    anyhow::ensure!(
        round <= newest,
        "run {id} has no round {round} yet; its newest is {newest}"
    );
    Ok(round)
}

async fn transaction(client: &rpc::Client, hash: &str) -> anyhow::Result<Shown> {
    let bytes = hex::decode(hash)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let hash: [u8; 32] =
        bytes.with_context(|| format!("{hash:?} is no transaction hash: give 64 hex digits"))?;
    let found = client.tx(&hash).await?;
    let Some(found) = found else {
        anyhow::bail!("no transaction with this hash is in a block")
    };
    Ok(agents::chain::shown_outcome(&found))
}

fn own_address(home: &Home) -> anyhow::Result<Address> {
    let address = Keyring::new(home).account_address();
    address.context("give an address, or run `r3mes init` to have one of your own")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_there_is_not_is_answered_with_those_there_are() {
        assert!(no_run(1, &[]).contains("r3mes tx run start"));
        let said = no_run(9, &[2, 3]);
        assert!(said.contains("no run 9; name one of 2, 3"), "{said}");
    }
}
