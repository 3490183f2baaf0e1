//! Billing of the gateway of remote functions: by this home's account, on the network's ledger.

use std::time::Duration;

use anyhow::Context;
use r3mes_gateway::billing::{Billing, Book, Journal};

use crate::{agents, config, config::Config, home::Home, keyring::Keyring};

/// How long the last settlement may take; what it does not reach, the next start settles.
const LAST_SETTLEMENT: Duration = Duration::from_secs(8);

/// The escrows of this home's account, and what settles them. The folder of the gateway is there.
///
/// # Errors
/// When the home has no account, or what was earned before cannot be read.
pub fn open(
    home: &Home,
    config: &Config,
    settings: &config::Billing,
) -> anyhow::Result<(Book, Billing)> {
    let key = Keyring::new(home).account().context(
        "services.functions.billing charges by this home's account: make one with r3mes init, or leave it out",
    )?;
    let client = agents::chain::connect(home, config)?;
    let (journal, before) = Journal::open(&home.data("functions").join("usage.jsonl"))?;
    let every = Duration::from_secs(settings.settle_every_s);
    let margin = Duration::from_secs(settings.margin_s);
    let book = Book::new(key.address(), margin, journal, before);
    let sender = agents::chain::sender(&client, key);
    Ok((book.clone(), Billing::new(sender, book, every)))
}

/// Settles once more before the process ends.
pub async fn settle_last(billing: &Billing) {
    let last = tokio::time::timeout(LAST_SETTLEMENT, billing.settle()).await;
    if last.is_err() {
        tracing::warn!(
            "the ledger does not answer: what calls have cost is settled after the next start"
        );
    }
}
