//! `r3mes init`

use anyhow::Context;
use r3mes_gateway::rpc::{
    self,
    light::{LightClient, Root},
};
use r3mes_types::{Amount, Role, RoleSet, bank::Balance, wire::Wire};
use serde::Serialize;

use super::{
    args::{Init, Overrides},
    output::Output,
};
use crate::{
    agents, clock,
    config::{CometBft, Config, Engine, Gateway, Ledger, Light, StateSync},
    genesis,
    home::Home,
    keyring::Keyring,
};

/// What the founder of a network of one's own begins with.
const FOUNDERS_BALANCE: Amount = Amount::remes(1_000_000);
/// What a founder who signs blocks puts at stake.
const FOUNDERS_STAKE: Amount = Amount::remes(1_000);
/// Shards that the founding dataset is dealt over: miners beyond this number share shards.
const SHARDS: usize = 4;

#[derive(Serialize)]
struct Initialised {
    home: String,
    chain_id: String,
    address: String,
    roles: Vec<String>,
}

pub(super) fn run(
    home: &Home,
    typed: &Init,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        !home.is_initialised(),
        "{} holds a node already; give another folder with --home, or move this one away",
        home.root().display()
    );
    let made = make(home, typed, overrides.engine)?;
    out.show(&made, || text(home, &made))
}

/// Makes a home that joins the network of the ledger at `url`, without a ledger of its own.
pub(super) fn join_as(home: &Home, roles: &[Role], url: &str) -> anyhow::Result<()> {
    let typed = Init {
        roles: roles.to_vec(),
        join: Some(url.to_owned()),
        witness: Vec::new(),
        trust: None,
        blobs: Vec::new(),
        chain_id: String::new(),
        no_authority: false,
        recover: false,
        genesis: None,
        from: None,
    };
    make(home, &typed, None)?;
    Ok(())
}

fn make(home: &Home, typed: &Init, engine: Option<Engine>) -> anyhow::Result<Initialised> {
    let mut config = Config::default();
    config.set_roles(&typed.roles);
    home.create()?;
    let keyring = Keyring::new(home);
    if let (Some(file), Some(from)) = (&typed.genesis, &typed.from) {
        super::export::continue_home(home, &mut config, file, &Home::new(from), engine)?;
    } else {
        let phrase = match typed.recover {
            true => Some(super::keys::read_phrase()?),
            false => None,
        };
        // Before there are keys, since a retry would find them and refuse to replace them.
        match &typed.join {
            Some(url) => join(home, &mut config, url, typed, engine)?,
            None => refuse_foundation(&config, typed, engine)?,
        }
        match phrase {
            Some(phrase) => keyring.recover(&phrase)?,
            None => keyring.generate()?,
        }
        if typed.join.is_none() {
            found(home, &mut config, typed, engine)?;
        }
    }
    // Last, so that a home whose making was broken off does not count as one.
    std::fs::write(home.config_file(), config.to_yaml())
        .with_context(|| format!("cannot write {}", home.config_file().display()))?;
    let roles = config.enabled_roles().into_iter();
    let roles = roles.map(|(role, _)| role.to_string()).collect();
    Ok(Initialised {
        home: home.root().display().to_string(),
        chain_id: config.network.chain_id,
        address: keyring.account_address()?.to_string(),
        roles,
    })
}

/// Whether a network can be founded with these roles, under this engine.
fn refuse_foundation(config: &Config, typed: &Init, engine: Option<Engine>) -> anyhow::Result<()> {
    anyhow::ensure!(
        !typed.no_authority || config.roles.validator.is_some(),
        "without an authority nobody but validators decides: add validator to --roles, or nobody could"
    );
    anyhow::ensure!(
        engine != Some(Engine::Cometbft) || config.roles.validator.is_some(),
        "under engine cometbft the founder signs blocks: add validator to --roles"
    );
    Ok(())
}

fn found(
    home: &Home,
    config: &mut Config,
    typed: &Init,
    engine: Option<Engine>,
) -> anyhow::Result<()> {
    let (chain_id, authority) = (&typed.chain_id, !typed.no_authority);
    config.network.chain_id.clone_from(chain_id);
    let engine = engine.unwrap_or(Engine::Local);
    config.services.ledger = Some(Ledger {
        engine,
        cometbft: (engine == Engine::Cometbft).then(CometBft::default),
        ..Ledger::default()
    });
    config.services.gateway = Some(Gateway::default());
    let founder = Balance {
        address: Keyring::new(home).account_address()?,
        amount: FOUNDERS_BALANCE,
    };
    // Under CometBFT others may join as validators, so this one is registered as the first.
    let node = match engine {
        Engine::Local => None,
        Engine::Cometbft => {
            let roles: Vec<Role> = config
                .enabled_roles()
                .iter()
                .map(|(role, _)| *role)
                .collect();
            Some(agents::spec(
                home,
                config,
                RoleSet::of(&roles),
                FOUNDERS_STAKE,
            )?)
        }
    };
    config.node.stake = node.as_ref().map(|node| node.stake.to_string());
    let charter = genesis::Charter {
        chain_id,
        balances: &[founder],
        shards: SHARDS,
        time: clock::now(),
        beacon_chain: genesis::BEACON_CHAIN,
        founders: &[genesis::Founder {
            home: home.clone(),
            node,
        }],
        others: &[],
        authority,
        run: None,
    };
    genesis::found(&charter)?;
    Ok(())
}

fn join(
    home: &Home,
    config: &mut Config,
    url: &str,
    typed: &Init,
    engine: Option<Engine>,
) -> anyhow::Result<()> {
    anyhow::ensure!(
        typed.witness.is_empty() || engine.is_some(),
        "a snapshot is for a ledger of one's own: add --engine cometbft to --witness"
    );
    anyhow::ensure!(
        engine != Some(Engine::Local),
        "engine local runs only where a network was founded; join with --engine cometbft to have a ledger here, or without --engine to use the one at {url}"
    );
    config.network.rpc = url.to_owned();
    let client = rpc::Client::new(&config.network.rpc)?;
    let runtime = super::runtime()?;
    let (bytes, comet, listens) = runtime.block_on(async {
        let genesis = client.genesis().await;
        let genesis = genesis.with_context(|| format!("cannot take the genesis from {url}"))?;
        let comet = match engine {
            Some(_) => Some(CometBft {
                peers: vec![peer(&client).await?],
                state_sync: state_sync(&client, &typed.witness).await?,
                ..CometBft::default()
            }),
            None => None,
        };
        let (_, listens) = client.peer().await?;
        anyhow::Ok((genesis, comet, listens))
    })?;
    let genesis = r3mes_ledger::genesis::Genesis::decode(&bytes)
        .with_context(|| format!("{url} did not send a genesis"))?;
    config.network.chain_id = genesis.chain_id.to_string();
    if !typed.blobs.is_empty() {
        config.network.bootstrap_blobs.clone_from(&typed.blobs);
    } else if let Some(host) = client.host() {
        let port = Ledger::BLOBS_PORT;
        config.network.bootstrap_blobs = vec![format!("http://{host}:{port}")];
    }
    if comet.is_some() {
        let ledger = Ledger {
            engine: Engine::Cometbft,
            cometbft: comet,
            ..Ledger::default()
        };
        config.network.rpc = format!("http://{}", ledger.rpc_listen);
        config.services.ledger = Some(ledger);
    } else {
        let light = Light {
            trust: typed.trust.clone(),
            trusting_hours: Light::hours_for(&genesis.params),
            // Only a network under CometBFT makes blocks all the time.
            max_header_age_s: (!listens.is_empty()).then_some(Light::MAX_HEADER_AGE_S),
        };
        runtime.block_on(begin_trust(home, &client, &genesis, &light))?;
        config.network.light = Some(light);
    }
    std::fs::write(home.genesis_file(), bytes)
        .with_context(|| format!("cannot write {}", home.genesis_file().display()))
}

/// Verifies the newest header and keeps it: what is verified later begins with it.
async fn begin_trust(
    home: &Home,
    client: &rpc::Client,
    genesis: &r3mes_ledger::genesis::Genesis,
    light: &Light,
) -> anyhow::Result<()> {
    let settings = light.settings(Some(home.light()))?;
    let is_named = matches!(settings.root, Root::Header { .. });
    let light = LightClient::new(genesis.clone(), settings)?;
    // Before the first block there is none to verify; a header that is named is of a later one.
    if is_named || client.status().await?.height >= genesis.initial_height() {
        let newest = light.block(client, None).await;
        newest.with_context(|| {
            format!(
                "the node at {} does not prove its newest block; where its genesis is too old to begin with, give --trust HEIGHT:HASH",
                client.url()
            )
        })?;
    }
    Ok(())
}

/// The newest header as a place to begin from, if all witnesses have the same.
async fn state_sync(
    client: &rpc::Client,
    witnesses: &[String],
) -> anyhow::Result<Option<StateSync>> {
    if witnesses.is_empty() {
        return Ok(None);
    }
    let mut servers = vec![client.url().trim_end_matches('/').to_owned()];
    let mut trust_height = client.status().await?.height;
    let mut clients = Vec::new();
    for url in witnesses {
        anyhow::ensure!(
            !servers.contains(url),
            "{url} is named twice: a witness is another node"
        );
        let witness = rpc::Client::new(url)?;
        let status = witness.status().await;
        let status = status.with_context(|| format!("the witness {url} does not answer"))?;
        // The newest block that all have.
        trust_height = trust_height.min(status.height);
        servers.push(url.clone());
        clients.push(witness);
    }
    let trust_hash = client.block_hash(trust_height).await?;
    for witness in clients {
        let url = witness.url();
        let theirs = witness.block_hash(trust_height).await;
        let theirs =
            theirs.with_context(|| format!("cannot take block {trust_height} from {url}"))?;
        anyhow::ensure!(
            theirs == trust_hash,
            "at height {trust_height} {url} has another block than {}: one of them is of another network, or lies",
            client.url()
        );
    }
    Ok(Some(StateSync {
        servers,
        trust_height,
        trust_hash: hex::encode(trust_hash),
    }))
}

/// The node at a URL as a peer of CometBFT's.
async fn peer(client: &rpc::Client) -> anyhow::Result<String> {
    let (id, listens) = client.peer().await?;
    let url = client.url();
    anyhow::ensure!(
        !listens.is_empty(),
        "the network at {url} runs under engine local, which has no peers: join without --engine"
    );
    let address = listens.trim_start_matches("tcp://");
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "26656"));
    // An address that means any, or this machine, is that of the machine asked.
    let unspecified = matches!(host, "" | "0.0.0.0" | "[::]" | "127.0.0.1");
    let host = match client.host() {
        Some(asked) if unspecified => asked,
        _ => host.to_owned(),
    };
    Ok(format!("{id}@{host}:{port}"))
}

fn text(home: &Home, made: &Initialised) -> String {
    let home = home.root().display();
    format!(
        "A node of {} in {home}\naccount {}\nThe account's 24 words are in {home}/keys/mnemonic: copy them to a safe place.\n\
         Start it with: r3mes --home {home} start",
        made.chain_id, made.address
    )
}
