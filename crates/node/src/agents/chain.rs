//! The ledger as agents and commands reach it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use r3mes_gateway::rpc::{self, TxClient, TxOutcome, light::LightClient};
use r3mes_types::{
    Amount, Message, SecretKey, governance::QueryParams, training::Run, wire::Shown,
};

use crate::{config::Config, genesis, home::Home};

/// How often somebody who waits for the network hears of it.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A client of the ledger that the configuration names, which signs for this home's network alone; with
/// `network.light` in it, one that believes only what the network signed.
///
/// # Errors
/// When the URL is not one, there is no genesis to begin with, or headers would be trusted for longer
/// than stake unbonds by that genesis.
pub fn connect(home: &Home, config: &Config) -> anyhow::Result<rpc::Client> {
    let mut client = rpc::Client::new(&config.network.rpc)?;
    // Who has no home asks any network.
    if home.is_initialised() {
        client = client.of_chain(&config.network.chain_id);
    }
    let Some(light) = &config.network.light else {
        return Ok(client);
    };
    let settings = light.settings(Some(home.light()))?;
    let genesis = genesis::read(home)?;
    light.refuse_long_trust(&genesis.params)?;
    let light = LightClient::new(genesis, settings)?;
    Ok(client.verified_by(Arc::new(light)))
}

/// Refuses what [`connect`] does, by the parameters that the network has now.
///
/// # Errors
/// When headers would be trusted for longer than stake unbonds, or the ledger does not answer.
pub async fn refuse_long_trust(client: &rpc::Client, config: &Config) -> anyhow::Result<()> {
    if let Some(light) = &config.network.light {
        light.refuse_long_trust(&client.query(&QueryParams {}).await?)?;
    }
    Ok(())
}

/// A sender that signs with a key and keeps its sequence.
pub fn sender(client: &rpc::Client, key: SecretKey) -> TxClient {
    TxClient::new(client.clone(), key)
}

/// Signs with a key, sends, and waits until the transaction is in a block.
///
/// # Errors
/// When the ledger refuses it or does not answer.
pub async fn send(
    client: &rpc::Client,
    key: &SecretKey,
    messages: Vec<Message>,
) -> anyhow::Result<TxOutcome> {
    Ok(sender(client, key.clone()).send(messages).await?)
}

/// Waits until a node has the network's blocks, and there is one at all. Says now and then how far it is.
///
/// # Errors
/// When the node does not answer.
pub async fn caught_up(client: &rpc::Client) -> anyhow::Result<()> {
    let mut said: Option<Instant> = None;
    loop {
        let status = client.status().await?;
        if !status.catching_up && status.height > 0 {
            return Ok(());
        }
        if said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            said = Some(Instant::now());
            tracing::info!(
                height = status.height,
                "waiting until this node has the network's blocks, and enough validators are there"
            );
        }
        // Ten seconds if no block comes.
        client.wait_height(status.height).await?;
    }
}

/// The newest round of a run, if it has opened one.
pub fn newest_round(run: &Run) -> Option<u32> {
    match run.open {
        true => Some(run.round),
        false => run.round.checked_sub(1),
    }
}

/// An outcome laid open for printing.
pub fn shown_outcome(outcome: &TxOutcome) -> Shown {
    Shown::Record(vec![
        ("hash", Shown::Text(hex::encode_upper(outcome.hash))),
        ("height", Shown::Number(outcome.height.into())),
        ("code", Shown::Number(outcome.code.into())),
        ("log", Shown::Text(outcome.log.clone())),
        ("gas_used", Shown::Number(outcome.gas_used.into())),
    ])
}

/// An amount in REMES for people.
pub fn remes(amount: Amount) -> String {
    let uremes = amount.uremes();
    format!("{}.{:06} REMES", uremes / 1_000_000, uremes % 1_000_000)
}
