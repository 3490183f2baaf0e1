//! `r3mes query chain-registry`: this network as wallets and explorers of the Cosmos ecosystem list it.
//!
//! The two files have the form of the repository of the chain registry, from which npm's
//! `chain-registry` is made.

use std::{fs, net::SocketAddr};

use anyhow::Context;
use r3mes_gateway::rpc::Client;
use r3mes_types::{
    Address, DENOM,
    auth::AuthParams,
    cosmos::bank::{Metadata, QueryDenomMetadataRequest},
    governance::QueryParams,
    nodes::NodesParams,
    wire::{Shown, Text},
};
use serde_json::{Value, json};

use super::args::{ChainRegistry, NetworkKind};
use crate::{
    config::{Config, Engine, Services},
    home::Home,
    keyring::{COIN_TYPE, Keyring},
    services,
};

/// What this network is called in the registry, with the kind of network after it.
const NAME: &str = "r3mes";
/// The version of CometBFT that engine `cometbft` speaks with.
const COMETBFT: &str = "v0.38";

/// Asks the ledger and writes the files; their paths.
pub(super) async fn write(
    client: &Client,
    home: &Home,
    config: &Config,
    typed: &ChainRegistry,
) -> anyhow::Result<Shown> {
    let network = Network::ask(client, home, config, typed).await?;
    let files = [
        ("chain.json", network.chain()),
        ("assetlist.json", network.assets()),
    ];
    fs::create_dir_all(&typed.dir)
        .with_context(|| format!("cannot make the folder {}", typed.dir.display()))?;
    let mut written = Vec::new();
    for (name, document) in files {
        let path = typed.dir.join(name);
        fs::write(&path, format!("{document:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        written.push(Shown::Text(path.display().to_string()));
    }
    Ok(Shown::List(written))
}

/// What the files tell.
struct Network {
    name: String,
    kind: NetworkKind,
    chain_id: String,
    auth: AuthParams,
    nodes: NodesParams,
    coin: Metadata,
    rpc: Vec<String>,
    rest: Vec<String>,
    grpc: Vec<String>,
    /// Whether blocks are CometBFT's; unknown where the ledger is another machine's.
    cometbft: bool,
    /// Where CometBFT's peers find this home: its ID, and HOST:PORT.
    peer: Option<(String, String)>,
}

impl Network {
    async fn ask(
        client: &Client,
        home: &Home,
        config: &Config,
        typed: &ChainRegistry,
    ) -> anyhow::Result<Self> {
        let params = client.query(&QueryParams {}).await?;
        let denom = Text::new(DENOM).context("the coin's name is too long")?;
        let coin = client.query(&QueryDenomMetadataRequest { denom }).await?;
        let chain_id = client.status().await?.chain_id;
        let or = |typed: &[String], ours: Option<String>| match typed {
            [] => ours.into_iter().collect(),
            typed => typed.to_vec(),
        };
        let listens = Listens::of(&config.services);
        Ok(Self {
            name: typed
                .chain_name
                .clone()
                .unwrap_or_else(|| typed.network_type.name()),
            kind: typed.network_type,
            chain_id,
            auth: params.auth,
            nodes: params.nodes,
            coin: coin.metadata,
            rpc: or(&typed.public_rpc, Some(config.network.rpc.clone())),
            rest: or(
                &typed.public_rest,
                listens.rest.map(|at| format!("http://{at}")),
            ),
            grpc: or(&typed.public_grpc, listens.grpc.map(|at| at.to_string())),
            cometbft: listens.cometbft,
            peer: match listens.peer {
                Some(address) => Some((services::cometbft::node_id(&Keyring::new(home))?, address)),
                None => None,
            },
        })
    }

    fn chain(&self) -> Value {
        let price = price(&self.auth);
        let apis = |addresses: &[String]| -> Vec<Value> {
            let entry = |address: &String| json!({"address": address});
            addresses.iter().map(entry).collect()
        };
        let mut codebase = json!({
            "git_repo": env!("CARGO_PKG_REPOSITORY"),
            "recommended_version": format!("v{}", env!("CARGO_PKG_VERSION")),
            "compatible_versions": [format!("v{}", env!("CARGO_PKG_VERSION"))],
            "language": {"type": "rust"},
            "sdk": {"type": "other"},
        });
        if let Some(rpc) = self.rpc.first() {
            let url = format!("{}/genesis", rpc.trim_end_matches('/'));
            codebase["genesis"] = json!({"genesis_url": url});
        }
        if self.cometbft {
            codebase["consensus"] = json!({"type": "cometbft", "version": COMETBFT});
        }
        let mut chain = json!({
            "$schema": format!("{}chain.schema.json", self.kind.root()),
            "chain_name": self.name,
            "chain_type": "cosmos",
            "chain_id": self.chain_id,
            "pretty_name": "R3MES",
            "status": "live",
            "network_type": self.kind.to_string(),
            "bech32_prefix": Address::PREFIX,
            "daemon_name": "r3mes",
            "node_home": "$HOME/.r3mes",
            "key_algos": ["secp256k1"],
            "slip44": COIN_TYPE,
            // Nobody gets ahead by paying more.
            "fees": {"fee_tokens": [{
                "denom": DENOM,
                "fixed_min_gas_price": price,
                "low_gas_price": price,
                "average_gas_price": price,
                "high_gas_price": price,
            }]},
            "staking": {
                "staking_tokens": [{"denom": DENOM}],
                "lock_duration": {"time": format!("{}s", self.nodes.unbonding.millis().div_ceil(1000))},
            },
            "codebase": codebase,
            "description": "A network where machines train, serve and verify AI models, and where every result can be recomputed bit for bit.",
            "apis": {"rpc": apis(&self.rpc), "rest": apis(&self.rest), "grpc": apis(&self.grpc)},
        });
        if let Some((id, address)) = &self.peer {
            chain["peers"] = json!({"persistent_peers": [{"id": id, "address": address}]});
        }
        chain
    }

    fn assets(&self) -> Value {
        let coin = &self.coin;
        let units = coin.denom_units.iter();
        let units = units.map(|unit| json!({"denom": *unit.denom, "exponent": unit.exponent}));
        json!({
            "$schema": format!("{}assetlist.schema.json", self.kind.root()),
            "chain_name": self.name,
            "assets": [{
                "description": *coin.description,
                "denom_units": units.collect::<Vec<Value>>(),
                "type_asset": "sdk.coin",
                "base": *coin.base,
                "name": *coin.name,
                "display": *coin.display,
                "symbol": *coin.symbol,
            }],
        })
    }
}

/// What this home's own ledger listens on, if it has one. Addresses that name no machine are left out.
#[derive(Default)]
struct Listens {
    rest: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    cometbft: bool,
    peer: Option<String>,
}

impl Listens {
    fn of(services: &Services) -> Self {
        let Some(ledger) = &services.ledger else {
            return Self::default();
        };
        let named = |at: &SocketAddr| !at.ip().is_unspecified();
        let cometbft = ledger.engine == Engine::Cometbft;
        Self {
            rest: ledger.rest_listen.filter(named),
            grpc: ledger.grpc_listen.filter(named),
            cometbft,
            peer: ledger.cometbft().external_address.filter(|_| cometbft),
        }
    }
}

/// What a unit of gas costs, in uremes.
fn price(auth: &AuthParams) -> f64 {
    let fee = auth.fee_per_million_gas.uremes();
    let text = format!("{}.{:06}", fee / 1_000_000, fee % 1_000_000);
    text.parse().expect("digits and a point are a number")
}

impl NetworkKind {
    /// What the registry calls this network, unless another name is given.
    fn name(self) -> String {
        match self {
            Self::Mainnet => NAME.to_owned(),
            Self::Testnet | Self::Devnet => format!("{NAME}{self}"),
        }
    }

    /// The way from the folder of such a network to that of the schemas.
    fn root(self) -> &'static str {
        match self {
            Self::Mainnet => "../",
            Self::Testnet | Self::Devnet => "../../",
        }
    }
}

#[cfg(test)]
mod tests {
    use r3mes_types::Amount;

    use super::*;
    use crate::config::Ledger;

    #[test]
    fn a_price_has_no_more_digits_than_the_ledger_gives_it() {
        let price = |uremes| {
            let auth = AuthParams {
                fee_per_million_gas: Amount::new(uremes),
                max_tx_gas: 0,
                max_obligation_gas: 0,
                max_block_gas: 0,
                max_block_bytes: 0,
            };
            json!(super::price(&auth)).to_string()
        };
        assert_eq!(price(1000), "0.001");
        assert_eq!(price(2_500_001), "2.500001");
        assert_eq!(price(0), "0.0");
    }

    #[test]
    fn an_address_of_every_interface_is_nobodys_address() {
        let mut ledger = Ledger::default();
        let usual = ledger.rest_listen;
        ledger.grpc_listen = Some(([0, 0, 0, 0], 9090).into());
        let listens = Listens::of(&Services {
            ledger: Some(ledger),
            ..Services::default()
        });
        assert_eq!((listens.rest, listens.grpc), (usual, None));
        assert!(!listens.cometbft && listens.peer.is_none());
        assert!(Listens::of(&Services::default()).rest.is_none());
    }

    #[test]
    fn networks_of_each_kind_have_names_and_folders_of_their_own() {
        assert_eq!(NetworkKind::Devnet.name(), "r3mesdevnet");
        assert_eq!(NetworkKind::Mainnet.name(), "r3mes");
        assert_eq!(NetworkKind::Testnet.root(), "../../");
    }
}
