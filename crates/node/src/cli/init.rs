//! `r3mes init`

use anyhow::Context;
use r3mes_types::{Amount, bank::Balance, wire::Wire};
use serde::Serialize;

use super::{args::Init, output::Output};
use crate::{
    agents, clock,
    config::{Config, Gateway, Ledger},
    genesis,
    home::Home,
    keyring::Keyring,
};

/// What the founder of a network of one's own begins with.
const FOUNDERS_BALANCE: Amount = Amount::remes(1_000_000);
/// Shards that the founding dataset is dealt over: miners beyond this number share shards.
const SHARDS: usize = 4;

#[derive(Serialize)]
struct Initialised {
    home: String,
    chain_id: String,
    address: String,
    roles: Vec<String>,
}

pub(super) fn run(home: &Home, typed: &Init, out: &Output) -> anyhow::Result<()> {
    anyhow::ensure!(
        !home.is_initialised(),
        "{} holds a node already; give another folder with --home, or move this one away",
        home.root().display()
    );
    let mut config = Config::default();
    config.set_roles(&typed.roles);
    home.create()?;
    let keyring = Keyring::new(home);
    match typed.recover {
        true => keyring.recover(&super::keys::read_phrase()?)?,
        false => keyring.generate()?,
    }
    match &typed.join {
        Some(url) => join(home, &mut config, url)?,
        None => found(home, &mut config, &typed.chain_id)?,
    }
    // Last, so that a home whose making was broken off does not count as one.
    std::fs::write(home.config_file(), config.to_yaml())
        .with_context(|| format!("cannot write {}", home.config_file().display()))?;
    let made = Initialised {
        home: home.root().display().to_string(),
        chain_id: config.network.chain_id,
        address: keyring.account_address()?.to_string(),
        roles: typed.roles.iter().map(ToString::to_string).collect(),
    };
    out.show(&made, || text(home, &made))
}

fn found(home: &Home, config: &mut Config, chain_id: &str) -> anyhow::Result<()> {
    config.network.chain_id = chain_id.to_owned();
    config.services.ledger = Some(Ledger::default());
    config.services.gateway = Some(Gateway::default());
    let founder = Balance {
        address: Keyring::new(home).account_address()?,
        amount: FOUNDERS_BALANCE,
    };
    let charter = genesis::Charter {
        chain_id,
        balances: &[founder],
        shards: SHARDS,
        time: clock::now(),
        beacon_chain: genesis::BEACON_CHAIN,
    };
    genesis::found(home, &charter)?;
    Ok(())
}

fn join(home: &Home, config: &mut Config, url: &str) -> anyhow::Result<()> {
    config.network.rpc = url.trim_end_matches('/').to_owned();
    let client = agents::chain::connect(config)?;
    let bytes = super::runtime()?
        .block_on(client.genesis())
        .with_context(|| format!("cannot take the genesis from {url}"))?;
    let genesis = r3mes_ledger::genesis::Genesis::decode(&bytes)
        .with_context(|| format!("{url} did not send a genesis"))?;
    config.network.chain_id = genesis.chain_id.to_string();
    std::fs::write(home.genesis_file(), bytes)
        .with_context(|| format!("cannot write {}", home.genesis_file().display()))
}

fn text(home: &Home, made: &Initialised) -> String {
    let home = home.root().display();
    format!(
        "A node of {} in {home}\naccount {}\nThe account's 24 words are in {home}/keys/mnemonic: copy them to a safe place.\n\
         Start it with: r3mes --home {home} start",
        made.chain_id, made.address
    )
}
