//! `r3mes query`

use anyhow::Context;
use r3mes_gateway::rpc::{self, ClientError, Paged};
use r3mes_types::{
    Address,
    auth::{QueryAccount, QueryGrants},
    bank::QueryBalance,
    data::{QueryDataset, QueryDatasets},
    escrow::{QueryEscrow, QueryEscrows},
    governance::{QueryParams, QueryProposals},
    models::QueryModels,
    nodes::{QueryNode, QueryNodes, QuerySlashes},
    query::Query as LedgerQuery,
    rewards::QueryVesting,
    training::{QueryObligations, QueryRound, QueryRun, QueryRuns, Run},
    wire::{Shown, Wire},
};

use super::{
    args::{Overrides, Query, QueryCommand, UpTo},
    output::Output,
    registry,
};
use crate::{agents, config::Config, home::Home, keyring::Keyring};

/// The question for every run.
const ALL_RUNS: QueryRuns = QueryRuns {
    after: None,
    limit: 0,
};
/// Runs that are named to whoever asks for one that there is not.
const NAMED_RUNS: usize = 20;

/// `r3mes query`
pub(super) fn run(
    home: &Home,
    typed: &Query,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let config = super::load_or_default(home, overrides)?;
    match super::runtime()?.block_on(answer(home, &config, &typed.command))? {
        Answer::Value(value) => out.show_ledger(&value),
        Answer::List(list) => list.show(out),
    }
}

/// What is shown.
enum Answer {
    Value(Shown),
    List(ShownList),
}

/// The beginning of a list, and whether there is more.
#[derive(Debug, PartialEq)]
struct ShownList {
    name: &'static str,
    entries: Vec<Shown>,
    more: bool,
}

impl ShownList {
    fn show(self, out: &Output) -> anyhow::Result<()> {
        let note = self.note();
        out.show_ledger(&self.shown(out.json))?;
        if let Some(note) = note {
            eprintln!("{note}");
        }
        Ok(())
    }

    /// What is said beside a list that is not whole.
    fn note(&self) -> Option<String> {
        let shown = self.entries.len();
        self.more.then(|| {
            format!(
                "there are more than these {shown}: `--limit {}` shows twice as many",
                shown.saturating_mul(2)
            )
        })
    }

    /// The list by its name; for programs, also whether there is more.
    fn shown(self, for_programs: bool) -> Shown {
        let mut fields = vec![(self.name, Shown::List(self.entries))];
        if for_programs {
            fields.push(("more", Shown::Bool(self.more)));
        }
        Shown::Record(fields)
    }
}

async fn answer(home: &Home, config: &Config, command: &QueryCommand) -> anyhow::Result<Answer> {
    let client = &agents::chain::connect(home, config)?;
    let or_own = |address: &Option<Address>| match address {
        Some(address) => Ok(*address),
        None => own_address(home),
    };
    match command {
        QueryCommand::Account { address } => account(client, or_own(address)?).await,
        QueryCommand::Node { address } => {
            let address = or_own(address)?;
            ask(client, QueryNode { address }).await
        }
        QueryCommand::Nodes(shown) => list(client, QueryNodes::default(), shown).await,
        QueryCommand::Models(shown) => list(client, QueryModels::default(), shown).await,
        QueryCommand::Datasets(shown) => list(client, QueryDatasets::default(), shown).await,
        QueryCommand::Dataset { dataset } => ask(client, QueryDataset { id: *dataset }).await,
        QueryCommand::Run { run } => Ok(Answer::Value(run_of(client, *run).await?.shown())),
        QueryCommand::Proposals(shown) => list(client, QueryProposals::default(), shown).await,
        QueryCommand::Params => ask(client, QueryParams {}).await,
        QueryCommand::Runs(shown) => list(client, ALL_RUNS, shown).await,
        QueryCommand::Round { round, run } => {
            let run = run_of(client, *run).await?;
            let round = known_round(&run, *round)?;
            ask(client, QueryRound { run: run.id, round }).await
        }
        QueryCommand::Obligations { address } => {
            let address = or_own(address)?;
            ask(client, QueryObligations { address }).await
        }
        QueryCommand::Escrow { escrow } => ask(client, QueryEscrow { escrow: *escrow }).await,
        QueryCommand::Escrows { address, shown } => {
            let account = or_own(address)?;
            let page = None;
            list(client, QueryEscrows { account, page }, shown).await
        }
        QueryCommand::Slashes {
            address,
            all,
            shown,
        } => {
            let node = match all {
                true => None,
                false => Some(or_own(address)?),
            };
            list(client, QuerySlashes { node, page: None }, shown).await
        }
        QueryCommand::Grants { address, shown } => {
            let granter = or_own(address)?;
            let page = None;
            list(client, QueryGrants { granter, page }, shown).await
        }
        QueryCommand::Transaction { hash } => transaction(client, hash).await,
        QueryCommand::ChainRegistry(typed) => {
            let written = registry::write(client, home, config, typed).await?;
            Ok(Answer::Value(written))
        }
    }
}

async fn ask<Q: LedgerQuery>(client: &rpc::Client, question: Q) -> anyhow::Result<Answer> {
    Ok(Answer::Value(client.query(&question).await?.shown()))
}

async fn list<Q: Paged>(client: &rpc::Client, question: Q, up_to: &UpTo) -> anyhow::Result<Answer> {
    let listed = client.list_up_to(question, up_to.limit as usize).await?;
    Ok(Answer::List(ShownList {
        name: Q::LIST,
        entries: listed.entries.iter().map(Wire::shown).collect(),
        more: listed.more,
    }))
}

async fn account(client: &rpc::Client, address: Address) -> anyhow::Result<Answer> {
    let account = client.query(&QueryAccount { address }).await?;
    let balance = client.query(&QueryBalance { address }).await?;
    let vesting = client.query(&QueryVesting { address }).await?;
    Ok(Answer::Value(Shown::Record(vec![
        ("address", Shown::Text(address.to_string())),
        ("account", account.shown()),
        ("balance", balance.shown()),
        ("vesting", vesting.shown()),
    ])))
}

/// A run that there is.
async fn run_of(client: &rpc::Client, run: u64) -> anyhow::Result<Run> {
    let refused = match client.query(&QueryRun { run }).await {
        Err(refused @ ClientError::Query { .. }) => refused,
        answer => return Ok(answer?),
    };
    let known = client.list_up_to(ALL_RUNS, NAMED_RUNS).await?;
    let ids: Vec<_> = known.entries.iter().map(|run| run.id).collect();
    Err(anyhow::Error::new(refused).context(no_run(run, &ids, known.more)))
}

fn no_run(asked: u64, known: &[u64], more: bool) -> String {
    if known.is_empty() {
        return "this network has no training run yet; `r3mes tx run start` begins one".to_owned();
    }
    let known: Vec<_> = known.iter().map(u64::to_string).collect();
    let more = if more { " and others" } else { "" };
    format!(
        "there is no run {asked}; name one of {}{more} (`r3mes query runs` shows them)",
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

async fn transaction(client: &rpc::Client, hash: &str) -> anyhow::Result<Answer> {
    let bytes = hex::decode(hash)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let hash: [u8; 32] =
        bytes.with_context(|| format!("{hash:?} is no transaction hash: give 64 hex digits"))?;
    let found = client.tx(&hash).await?;
    let Some(found) = found else {
        anyhow::bail!("no transaction with this hash is in a block")
    };
    Ok(Answer::Value(agents::chain::shown_outcome(&found)))
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
        assert!(no_run(1, &[], false).contains("r3mes tx run start"));
        let said = no_run(9, &[2, 3], false);
        assert!(said.contains("no run 9; name one of 2, 3 ("), "{said}");
        let said = no_run(9, &[2, 3], true);
        assert!(said.contains("2, 3 and others"), "{said}");
    }
}
