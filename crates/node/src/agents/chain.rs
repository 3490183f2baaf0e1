//! The ledger as agents and commands reach it.

use r3mes_gateway::rpc::{self, TxClient, TxOutcome};
use r3mes_types::{Amount, Message, SecretKey, training::QueryRun, wire::Shown};

use crate::config::Config;

/// A client of the ledger that the configuration names.
///
/// # Errors
/// When the URL is not one.
pub fn connect(config: &Config) -> anyhow::Result<rpc::Client> {
    Ok(rpc::Client::new(&config.network.rpc)?)
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

/// The newest round of a run.
///
/// # Errors
/// When there is no such run or no round of it.
pub async fn newest_round(client: &rpc::Client, run: u64) -> anyhow::Result<u32> {
    let run = client.query(&QueryRun { run }).await?;
    match (run.open, run.round.checked_sub(1)) {
        (true, _) => Ok(run.round),
        (false, Some(last)) => Ok(last),
        (false, None) => anyhow::bail!("run {} has not opened a round yet", run.id),
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
