//! What a ledger begins with.

use r3mes_types::bank::{Balance, BankParams};
use r3mes_types::beacon::HashChain;
use r3mes_types::data::DatasetSpec;
use r3mes_types::governance::{GovernanceParams, Params};
use r3mes_types::models::ModelSpec;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::training::RunParams;
use r3mes_types::tx::MAX_CHAIN_ID;
use r3mes_types::wire::{List, Text, Wire};
use r3mes_types::{Address, Amount, ConsensusKey, Hash, Millis, Time, schema};

use crate::block::ValidatorUpdate;
use crate::error::LedgerError;
use crate::export::{self, Continued};
use crate::store::Context;
use crate::{
    CHAIN_ID, LAST_HEIGHT, LAST_TIME, auth, bank, beacon, data, governance, models, nodes, rewards,
    training,
};

/// Most balances, nodes and block validators at genesis.
pub const MAX_ENTRIES: usize = 4096;
/// Most models and datasets at genesis.
pub const MAX_ASSETS: usize = 64;

schema! {
    /// What a ledger begins with. The same genesis gives the same app hash everywhere.
    pub struct Genesis {
        /// Name of the chain; every signature binds it.
        1 => chain_id: Text<MAX_CHAIN_ID>,
        /// When it begins.
        2 => time: Time,
        /// Parameters of all domains.
        3 => params: Params,
        /// Who has what.
        4 => balances: List<Balance, MAX_ENTRIES>,
        /// Who signs blocks from the start. At least one.
        5 => validators: List<GenesisValidator, MAX_ENTRIES>,
        /// Nodes that are registered from the start; their stake comes from their balance.
        6 => nodes: List<MsgRegister, MAX_ENTRIES>,
        /// Models that are registered from the start.
        7 => models: List<ModelSpec, MAX_ASSETS>,
        /// Datasets that are adopted from the start.
        8 => datasets: List<DatasetSpec, MAX_ASSETS>,
        /// Training runs that begin at once.
        9 => runs: List<RunParams, MAX_ASSETS>,
        /// The state of another chain that this one goes on from; then there are no balances, nodes,
        /// models, datasets and runs beside it.
        10 => continued: Option<Continued>,
    }

    /// Who signs blocks from the start.
    #[derive(Copy)]
    pub struct GenesisValidator {
        /// The account that may register its next hash chain.
        1 => operator: Address,
        /// The key it signs blocks with.
        2 => key: ConsensusKey,
        /// Its voting power.
        3 => power: u64,
        /// The end of its hash chain for the beacon.
        4 => chain_end: Hash,
        /// The length of that chain.
        5 => chain_length: u64,
    }
}

impl Genesis {
    /// A hash over all of it.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.encode())
    }

    /// Height of the first block.
    pub fn initial_height(&self) -> u64 {
        self.continued
            .as_ref()
            .map_or(1, |continued| continued.initial_height)
    }
}

/// Checks what can be checked before anything is done.
pub(crate) fn check(genesis: &Genesis) -> Result<(), String> {
    if genesis.chain_id.is_empty() {
        return Err("chain_id is empty: name the chain".into());
    }
    if genesis.validators.is_empty() {
        return Err("there is no block validator: nobody could make a block".into());
    }
    if let Some(continued) = &genesis.continued {
        let beside = [
            genesis.balances.is_empty(),
            genesis.nodes.is_empty(),
            genesis.models.is_empty(),
            genesis.datasets.is_empty(),
            genesis.runs.is_empty(),
        ];
        if beside.contains(&false) {
            return Err(
                "it goes on from a state: balances, nodes, models, datasets and runs stand in that"
                    .into(),
            );
        }
        if continued.initial_height == 0 {
            return Err("continued: the first block has height 1 or more".into());
        }
    }
    let modules = bank::MODULES.map(|module| module.address());
    if genesis
        .balances
        .iter()
        .any(|entry| modules.contains(&entry.address))
    {
        return Err("balances: an account of the network itself cannot begin with coins".into());
    }
    governance::check_all(&genesis.params)
}

/// Sets up all domains, in an order in which each finds what it needs.
pub(crate) fn init(
    ctx: &mut Context<'_>,
    genesis: &Genesis,
) -> Result<Vec<ValidatorUpdate>, LedgerError> {
    if let Some(continued) = &genesis.continued {
        export::take_over(ctx, genesis, continued)?;
        return Ok(first_validators(genesis));
    }
    CHAIN_ID.put(ctx, &genesis.chain_id)?;
    LAST_HEIGHT.put(ctx, &0)?;
    LAST_TIME.put(ctx, &genesis.time)?;
    auth::init(ctx, genesis)?;
    bank::init(ctx, genesis)?;
    beacon::init(ctx, genesis)?;
    governance::init(ctx, genesis)?;
    nodes::init(ctx, genesis)?;
    models::init(ctx, genesis)?;
    data::init(ctx, genesis)?;
    rewards::init(ctx, genesis)?;
    training::init(ctx, genesis)?;
    Ok(first_validators(genesis))
}

fn first_validators(genesis: &Genesis) -> Vec<ValidatorUpdate> {
    let validators = genesis.validators.iter();
    validators
        .map(|validator| ValidatorUpdate {
            key: validator.key,
            power: validator.power,
        })
        .collect()
}

/// Secret that the hash chain of a development network is made from; everybody knows it.
pub const DEVELOPMENT_SECRET: [u8; 32] = [7; 32];
/// Length of the hash chain of a development network made by [`development`].
pub const DEVELOPMENT_CHAIN: u64 = 4096;

/// A genesis for tests: one block validator, small windows, a faucet, and an authority.
///
/// # Panics
/// When there are more balances than a genesis may have, or the chain id is too long.
pub fn development(chain_id: &str, authority: Address, balances: &[Balance]) -> Genesis {
    let chain = HashChain::new(&DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
    let validator = GenesisValidator {
        operator: authority,
        key: ConsensusKey::from([1; ConsensusKey::LEN]),
        power: 1,
        chain_end: chain.end(),
        chain_length: chain.len(),
    };
    let few = "a development network has few entries and a short name";
    Genesis {
        chain_id: Text::new(chain_id).expect(few),
        time: Time::from_nanos(1_700_000_000_000_000_000),
        params: params(Some(authority), Amount::remes(1_000_000)),
        balances: List::new(balances.to_vec()).expect(few),
        validators: List::new(vec![validator]).expect(few),
        nodes: List::default(),
        models: List::default(),
        datasets: List::default(),
        runs: List::default(),
        continued: None,
    }
}

/// Parameters of all domains: the defaults; with an authority and a faucet on development networks,
/// whose block validators stay those of genesis and whose rewards are paid at once.
pub fn params(authority: Option<Address>, faucet_limit: Amount) -> Params {
    let mut params = Params {
        bank: BankParams { faucet_limit },
        auth: auth::default_params(),
        nodes: nodes::default_params(),
        data: data::default_params(),
        governance: GovernanceParams {
            authority,
            ..governance::default_params()
        },
        rewards: rewards::default_params(),
    };
    if authority.is_some() {
        params.nodes.max_block_validators = 0;
        params.nodes.unbonding = Millis::seconds(60);
        params.nodes.appeal_window = Millis::seconds(30);
        params.nodes.jail = Millis::seconds(30);
        params.rewards.vesting = Millis::default();
    }
    params
}
