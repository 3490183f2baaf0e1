//! `r3mes query`

use anyhow::Context;
use r3mes_gateway::rpc;
use r3mes_types::{
    Address,
    auth::QueryAccount,
    bank::QueryBalance,
    data::{QueryDataset, QueryDatasets},
    governance::{QueryParams, QueryProposals},
    models::QueryModels,
    nodes::{QueryNode, QueryNodes},
    query::Query as LedgerQuery,
    rewards::QueryVesting,
    training::{QueryObligations, QueryRound, QueryRun, QueryRuns},
    wire::{Shown, Wire},
};

use super::{
    args::{Overrides, Query, QueryCommand},
    output::Output,
};
use crate::{agents, config::Config, home::Home, keyring::Keyring};

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
        QueryCommand::Account { address } => {
            let address = or_own(address)?;
            let account = ask(&client, QueryAccount { address }).await?;
            let balance = ask(&client, QueryBalance { address }).await?;
            let vesting = ask(&client, QueryVesting { address }).await?;
            Ok(Shown::Record(vec![
                ("address", Shown::Text(address.to_string())),
                ("account", account),
                ("balance", balance),
                ("vesting", vesting),
            ]))
        }
        QueryCommand::Node { address } => {
            ask(
                &client,
                QueryNode {
                    address: or_own(address)?,
                },
            )
            .await
        }
        QueryCommand::Nodes => ask(&client, QueryNodes::default()).await,
        QueryCommand::Models => ask(&client, QueryModels::default()).await,
        QueryCommand::Datasets => ask(&client, QueryDatasets::default()).await,
        QueryCommand::Dataset { dataset } => ask(&client, QueryDataset { id: *dataset }).await,
        QueryCommand::Run { run } => ask(&client, QueryRun { run: *run }).await,
        QueryCommand::Proposals => ask(&client, QueryProposals::default()).await,
        QueryCommand::Params => ask(&client, QueryParams {}).await,
        QueryCommand::Runs => {
            ask(
                &client,
                QueryRuns {
                    after: None,
                    limit: 0,
                },
            )
            .await
        }
        QueryCommand::Round { round, run } => {
            let round = match round {
                Some(round) => *round,
                None => agents::chain::newest_round(&client, *run).await?,
            };
            ask(&client, QueryRound { run: *run, round }).await
        }
        QueryCommand::Obligations { address } => {
            ask(
                &client,
                QueryObligations {
                    address: or_own(address)?,
                },
            )
            .await
        }
        QueryCommand::Transaction { hash } => transaction(&client, hash).await,
    }
}

async fn ask<Q: LedgerQuery>(client: &rpc::Client, question: Q) -> anyhow::Result<Shown> {
    Ok(client.query(&question).await?.shown())
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
    let key = Keyring::new(home).account();
    Ok(key
        .context("give an address, or run `r3mes init` to have one of your own")?
        .address())
}
