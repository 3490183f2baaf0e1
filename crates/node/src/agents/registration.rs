//! Registers a node's roles and lets their keys act for it.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use r3mes_gateway::rpc::{self, TxOutcome};
use r3mes_types::{
    Address, Amount, Message, Role, RoleSet,
    auth::QueryGrants,
    beacon::{HashChain, MsgRegisterChain, QueryChain},
    governance::QueryParams,
    nodes::{Endpoint, MsgRegister, MsgUpdate, Node, NodeSpec, NodeStatus, QueryNode},
    wire::{List, Text},
};

use super::{
    chain,
    grants::{granted, grants},
    machine,
};
use crate::{
    config::{Config, Engine},
    genesis,
    home::Home,
    keyring::Keyring,
};

/// Registers this node with the roles of its configuration, unless the ledger already says so. A node
/// that has left and whose stake is not paid back yet stays so: it still has to answer for what it did.
///
/// # Errors
/// When the account cannot pay the stake, the ledger does not answer, or others could not reach the node.
pub async fn register(home: &Home, config: &Config) -> anyhow::Result<()> {
    let roles: Vec<Role> = config
        .enabled_roles()
        .into_iter()
        .map(|(role, _)| role)
        .collect();
    let client = chain::connect(home, config)?;
    // Nothing is asked of another network, where this node may be unknown.
    client.status().await?;
    let keyring = Keyring::new(home);
    let node = keyring.account_address()?;
    let known = client.query(&QueryNode { address: node }).await?.node;
    if known.as_ref().is_some_and(is_leaving) {
        tracing::info!(
            "this node has left; its roles answer for it until its stake is paid back (`r3mes tx register` joins again)"
        );
        if keyring.has_account() && !granted(&client, home, config, node).await? {
            let grants = grants(home, node, RoleSet::of(&roles))?;
            chain::send(&client, &keyring.account()?, grants).await?;
        }
        return Ok(());
    }
    if let Some(node) = known
        .as_ref()
        .filter(|node| node.status == NodeStatus::Jailed)
    {
        tracing::warn!(
            reason = &*node.jail_reason,
            "this node is jailed and gets no work; `r3mes tx unjail` asks back in once the term is over"
        );
    }
    if known.is_some() && !keyring.has_account() {
        // Its key is kept elsewhere: each role says for itself whether it may act.
        tracing::info!(
            "the account's 24 words are not here: the registration stays as it is, and is changed or renewed where they are (`r3mes tx register`)"
        );
        return Ok(());
    }
    reachable(config)?;
    let roles_wanted = RoleSet::of(&roles);
    let stake = stake(config, &client, roles_wanted, None).await?;
    let wanted = spec(home, config, roles_wanted, stake)?;
    let as_wanted = |node: &Node| {
        node.status == NodeStatus::Active
            && node.spec.roles == wanted.roles
            && node.spec.endpoints == wanted.endpoints
            && node.spec.consensus_key == wanted.consensus_key
            && node.bonded >= wanted.stake
    };
    if known.as_ref().is_some_and(as_wanted)
        && granted(&client, home, config, node).await?
        && first_chain(&client, home, node, &wanted).await?.is_none()
    {
        return Ok(());
    }
    register_roles(home, config, RoleSet::of(&roles), None).await?;
    Ok(())
}

/// Registers this node, or updates its registration, with these roles and grants their keys.
/// Without a stake, the configured one, or the least that the roles need.
///
/// # Errors
/// When the account cannot pay the stake, or the ledger refuses or does not answer.
pub async fn register_roles(
    home: &Home,
    config: &Config,
    roles: RoleSet,
    stake: Option<Amount>,
) -> anyhow::Result<TxOutcome> {
    let keyring = Keyring::new(home);
    let key = keyring.account()?;
    let address = key.address();
    let client = chain::connect(home, config)?;
    let stake = self::stake(config, &client, roles, stake).await?;
    let spec = spec(home, config, roles, stake)?;
    let chain = first_chain(&client, home, address, &spec).await?;
    let known = client.query(&QueryNode { address }).await?.node;
    let registered = known.is_some_and(|node| node.status != NodeStatus::Left);
    let mut messages: Vec<Message> = vec![if registered {
        MsgUpdate { address, spec }.into()
    } else {
        MsgRegister { address, spec }.into()
    }];
    messages.extend(chain.map(Message::from));
    messages.extend(grants(home, address, roles)?);
    chain::send(&client, &key, messages)
        .await
        .with_context(|| format!("cannot register {address}; its balance must cover the stake"))
}

/// Whether a node has left and waits for its stake.
fn is_leaving(node: &Node) -> bool {
    node.status == NodeStatus::Left && !node.unbonding.is_empty()
}

/// Refuses to announce addresses of this machine's own to a ledger on another one.
fn reachable(config: &Config) -> anyhow::Result<()> {
    if is_loopback(&config.network.rpc) {
        return Ok(());
    }
    for (role, settings) in config.enabled_roles() {
        let announced = [Some(settings.public_blobs_url()), settings.public_api_url()];
        for url in announced.into_iter().flatten() {
            anyhow::ensure!(
                !is_loopback(&url),
                "role {role} would be announced at {url}, where no other machine finds it; give roles.{role} in config.yaml an address to listen on (blobs_listen, api_listen) and the URL by which others reach it (blobs_url, api_url)"
            );
        }
    }
    Ok(())
}

/// Whether the host of a URL, which the configuration has checked, is this machine.
fn is_loopback(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.parse::<SocketAddr>() {
        Ok(address) => return address.ip().is_loopback(),
        Err(_) => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Checks that a role of this home may act: registered, and its key granted.
///
/// # Errors
/// Says which command is missing.
pub(super) async fn require(
    client: &rpc::Client,
    node: Address,
    role: Role,
    operator: Address,
) -> anyhow::Result<()> {
    let known = client.query(&QueryNode { address: node }).await?.node;
    let has_role = known.is_some_and(|known| known.spec.roles.contains(role));
    let given = QueryGrants {
        granter: node,
        page: None,
    };
    let grants = client.list(given).await?;
    let granted = grants
        .iter()
        .any(|entry| entry.grantee == operator && entry.grant.is_some());
    anyhow::ensure!(
        has_role && granted,
        "{node} is not registered as {role}, or has not granted the role's key; run `r3mes tx register --roles {role}`"
    );
    Ok(())
}

/// What the node puts at stake: as asked, as configured, or the least that the roles need.
async fn stake(
    config: &Config,
    client: &rpc::Client,
    roles: RoleSet,
    asked: Option<Amount>,
) -> anyhow::Result<Amount> {
    let configured = config.node.stake.as_deref().map(str::parse).transpose()?;
    Ok(match asked.or(configured) {
        Some(stake) => stake,
        None => client
            .query(&QueryParams {})
            .await?
            .nodes
            .minimum_stake(roles),
    })
}

/// What this node declares of itself. A validator with a ledger of its own under engine `cometbft`
/// signs blocks, and names the key it does so with.
///
/// # Errors
/// When a key cannot be read, or something declared is too long.
pub fn spec(
    home: &Home,
    config: &Config,
    roles: RoleSet,
    stake: Amount,
) -> anyhow::Result<NodeSpec> {
    let mut endpoints = Vec::new();
    for (role, settings) in config.enabled_roles() {
        if roles.contains(role) {
            endpoints.push(Endpoint {
                role,
                blobs: Text::new(settings.public_blobs_url())?,
                api: Text::new(settings.public_api_url().unwrap_or_default())?,
            });
        }
    }
    let ledger = config.services.ledger.as_ref();
    let signs = ledger.is_some_and(|ledger| ledger.engine == Engine::Cometbft)
        && roles.contains(Role::Validator);
    let consensus_key = match signs {
        true => Some(Keyring::new(home).consensus_key()?),
        false => None,
    };
    Ok(NodeSpec {
        moniker: Text::new(config.node.moniker.as_str())?,
        roles,
        primary_role: None,
        stake,
        resources: machine::resources(home)?,
        allocations: List::default(),
        endpoints: List::new(endpoints)?,
        consensus_key,
    })
}

/// Registers the first hash chain of a node that is to sign blocks, unless the ledger has one. Later
/// ones follow in its reveals.
async fn first_chain(
    client: &rpc::Client,
    home: &Home,
    operator: Address,
    spec: &NodeSpec,
) -> anyhow::Result<Option<MsgRegisterChain>> {
    let Some(key) = spec.consensus_key else {
        return Ok(None);
    };
    let validator = key.address();
    if client
        .query(&QueryChain { validator })
        .await?
        .chain
        .is_some()
    {
        return Ok(None);
    }
    let founding = genesis::read(home)?;
    let length = genesis::beacon_chain(&founding)?;
    let seed = genesis::beacon_secret(&Keyring::new(home), &founding)?;
    let chain = tokio::task::spawn_blocking(move || HashChain::new(&seed, length)).await?;
    Ok(Some(MsgRegisterChain {
        operator,
        end: chain.end(),
        length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_known_in_every_form() {
        for own in [
            "http://127.0.0.1:8091",
            "http://127.8.0.1/",
            "http://localhost:8091/",
            "http://localhost",
            "http://[::1]:8091",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "http://10.0.0.1:8091",
            "https://node.example/blobs",
            "http://[2001:db8::1]:8091",
            "http://127.example:8091",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn a_role_is_not_announced_to_another_machine_at_an_address_of_this_one() {
        let mut config = Config::default();
        config.set_roles(&[Role::Miner]);
        reachable(&config).unwrap();
        config.network.rpc = "http://10.0.0.1:26657".into();
        let refusal = reachable(&config).unwrap_err().to_string();
        assert!(refusal.contains("roles.miner"), "{refusal}");
        let miner = config.roles.miner.as_mut().unwrap();
        miner.blobs_url = Some("http://10.0.0.2:8091".into());
        reachable(&config).unwrap();
    }
}
