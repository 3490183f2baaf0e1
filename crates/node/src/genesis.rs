//! Founds a network of one's own: its first state, and the blobs that this state names.

use anyhow::Context;
use r3mes_blobs::PinName;
use r3mes_exact::Bytes;
use r3mes_ledger::genesis::{Genesis, GenesisValidator, params};
use r3mes_model::{PackedModel, Tokenizer};
use r3mes_training::{
    dataset::{Shard, split},
    job::{adapter_layout, initial_adapter},
    state::StepState,
    text::normalize,
};
use r3mes_types::{
    Amount, Hash, Hasher, Millis, Time, UREMES_PER_REMES,
    bank::Balance,
    beacon::HashChain,
    data::{DataShard, DatasetSpec},
    models::ModelSpec,
    nodes::{MsgRegister, NodeSpec},
    task::{AdapterRef, HyperParameters},
    wire::{List, Text, Wire},
};

use crate::{agents, assets, home::Home, keyring::Keyring, plan::Plan};

/// Blocks that a hash chain of the beacon lasts for where a network is to last.
pub const BEACON_CHAIN: u64 = 1 << 20;
/// Tokens of a training sequence, for which the held-out windows are cut.
pub const SEQUENCE: usize = 128;
/// Number of the dataset that a founded network begins with.
const FIRST_DATASET: u64 = 1;
/// Disk that the bootstrap blob store may take, in MiB.
pub const BOOTSTRAP_STORAGE_MB: u64 = 16 << 10;
/// Most nodes that sign blocks, where the ledger's nodes decide that.
const MAX_BLOCK_VALIDATORS: u32 = 100;
/// Most that the faucet of a development network gives at once.
const FAUCET: Amount = Amount::remes(1_000);
/// How long rewards vest on a development network: to be seen, and over soon.
const VESTING: Millis = Millis::seconds(30);
/// Pin of everything the genesis names.
const GENESIS_PIN: &str = "genesis";

/// What a network was founded with.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The base model.
    pub model: ModelSpec,
    /// Number of the dataset.
    pub dataset: u64,
    /// What no shard holds of each text, to measure on.
    pub held_out: Vec<Shard>,
    /// Seed of the adapter that training starts from.
    pub adapter_seed: Hash,
    config: r3mes_model::ModelConfig,
}

impl Founding {
    /// The adapter that the first round starts from: drawn from the seed.
    ///
    /// # Errors
    /// When the hyper-parameters do not fit the model.
    pub fn initial_adapter(&self, hyper: &HyperParameters) -> anyhow::Result<AdapterRef> {
        let layout = adapter_layout(&self.config, hyper)?;
        let adapter = initial_adapter(&layout, &self.adapter_seed);
        Ok(AdapterRef {
            cid: None,
            adapter: adapter.hash(),
            state: StepState::start(adapter.into_numbers()).hash(),
        })
    }
}

/// What a network is to be founded with.
pub struct Charter<'a> {
    /// Name of the chain.
    pub chain_id: &'a str,
    /// What accounts begin with, by address.
    pub balances: &'a [Balance],
    /// Shards that the texts are dealt over.
    pub shards: usize,
    /// Time of the genesis.
    pub time: Time,
    /// Blocks that the first hash chain of the beacon lasts for.
    pub beacon_chain: u64,
    /// Who signs blocks from the start; the first one's account is the network's authority.
    pub founders: &'a [Founder],
    /// The training run that begins at once.
    pub run: Option<Plan>,
}

/// One that founds a network.
pub struct Founder {
    /// Its home: its keys sign blocks and feed the beacon.
    pub home: Home,
    /// What its node declares when it is registered from the start. Where every founder's is, the
    /// block validators follow the ledger's nodes; where none is, they stay as they are.
    pub node: Option<NodeSpec>,
}

/// Writes a genesis into each founder's home, and the blobs it names into the store of the home's
/// ledger. The base model is registered, and the texts that come with the binary are the first dataset.
///
/// # Errors
/// When keys, files or the store cannot be used, or there is no founder.
pub fn found(charter: &Charter<'_>) -> anyhow::Result<Founding> {
    let first = charter
        .founders
        .first()
        .context("nobody founds the network")?;
    let authority = Keyring::new(&first.home).account_address()?;
    let tokenizer = Tokenizer::from_bytes(assets::BASE_TOKENIZER)?;
    let mut stored = None;
    for founder in charter.founders {
        let texts = store_texts(&founder.home, &tokenizer, charter.shards)?;
        stored = Some((texts, store_model(&founder.home, &tokenizer)?));
    }
    let ((dataset, held_out), (model, config)) = stored.context("nobody founds the network")?;
    let founding = Founding {
        model: model.clone(),
        dataset: FIRST_DATASET,
        held_out,
        adapter_seed: Hasher::new("r3mes founding adapter v1")
            .part(charter.chain_id.as_bytes())
            .number(charter.time.nanos())
            .finish(),
        config,
    };
    let mut params = params(Some(authority), FAUCET);
    params.rewards.vesting = VESTING;
    let nodes = registrations(charter)?;
    if nodes.len() == charter.founders.len() {
        params.nodes.max_block_validators = MAX_BLOCK_VALIDATORS;
    }
    let run = charter.run.map(|plan| plan.params(&founding)).transpose()?;
    let genesis = Genesis {
        chain_id: Text::new(charter.chain_id)?,
        time: charter.time,
        params,
        balances: List::new(charter.balances.to_vec())?,
        validators: List::new(validators(charter)?)?,
        nodes: List::new(nodes)?,
        models: List::new(vec![model])?,
        datasets: List::new(vec![dataset])?,
        runs: List::new(run.into_iter().collect())?,
        continued: None,
    };
    for founder in charter.founders {
        let path = founder.home.genesis_file();
        std::fs::write(&path, genesis.encode())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(founding)
}

fn validators(charter: &Charter<'_>) -> anyhow::Result<Vec<GenesisValidator>> {
    let validator = |founder: &Founder| {
        let keyring = Keyring::new(&founder.home);
        let chain = HashChain::new(&*keyring.beacon_seed()?, charter.beacon_chain);
        let stake = founder.node.as_ref().map(|node| node.stake);
        Ok(GenesisValidator {
            operator: keyring.account_address()?,
            key: keyring.consensus_key()?,
            power: stake.map_or(1, |stake| stake.uremes() / UREMES_PER_REMES),
            chain_end: chain.end(),
            chain_length: charter.beacon_chain,
        })
    };
    charter.founders.iter().map(validator).collect()
}

fn registrations(charter: &Charter<'_>) -> anyhow::Result<Vec<MsgRegister>> {
    let registration = |founder: &Founder| {
        let spec = founder.node.clone()?;
        let address = Keyring::new(&founder.home).account_address();
        Some(address.map(|address| MsgRegister { address, spec }))
    };
    let all: Result<_, _> = charter.founders.iter().filter_map(registration).collect();
    Ok(all?)
}

/// Reads a home's genesis.
///
/// # Errors
/// When the file is missing or is no genesis.
pub fn read(home: &Home) -> anyhow::Result<Genesis> {
    let path = home.genesis_file();
    let bytes = std::fs::read(&path)
        .with_context(|| format!("cannot read {}; run `r3mes init` first", path.display()))?;
    Genesis::decode(&bytes).with_context(|| format!("{} is not a genesis", path.display()))
}

/// Blocks that each hash chain of the beacon lasts for: as many as those that the network began with.
///
/// # Errors
/// When the genesis has no validator.
pub fn beacon_chain(genesis: &Genesis) -> anyhow::Result<u64> {
    let first = genesis.validators.first();
    Ok(first.context("the genesis has no validator")?.chain_length)
}

/// The secret of this node's hash chains on the network of a genesis.
///
/// # Errors
/// When the seed cannot be read.
pub fn beacon_secret(keyring: &Keyring, genesis: &Genesis) -> anyhow::Result<[u8; 32]> {
    let seed = keyring.beacon_seed()?;
    Ok(match genesis.continued {
        None => *seed,
        Some(_) => continued_secret(&seed, &genesis.chain_id),
    })
}

/// The secret of hash chains on a network that goes on from another, where elements of the seed's own
/// chains were revealed.
pub fn continued_secret(seed: &[u8; 32], chain_id: &str) -> [u8; 32] {
    let secret = Hasher::new("r3mes continued beacon v1")
        .part(seed)
        .part(chain_id.as_bytes())
        .finish();
    *secret.as_bytes()
}

fn store_model(
    home: &Home,
    tokenizer: &Tokenizer,
) -> anyhow::Result<(ModelSpec, r3mes_model::ModelConfig)> {
    let packed = PackedModel::from_bytes(&Bytes::from_slice(assets::BASE_MODEL))?;
    let spec = ModelSpec {
        id: packed.id(),
        name: Text::new(assets::BASE_MODEL_NAME)?,
        base: put(home, assets::BASE_MODEL)?,
        base_bytes: assets::BASE_MODEL.len() as u64,
        tokenizer: put(home, assets::BASE_TOKENIZER)?,
        tokenizer_hash: tokenizer.hash(),
        exact_version: r3mes_training::job::EXACT_VERSION,
        memory_mib: 64,
        price_per_million_tokens: Amount::remes(1),
        licence: Text::new("MIT")?,
    };
    Ok((spec, packed.config().clone()))
}

fn store_texts(
    home: &Home,
    tokenizer: &Tokenizer,
    shards: usize,
) -> anyhow::Result<(DatasetSpec, Vec<Shard>)> {
    let texts: Vec<Vec<u32>> = assets::TEXTS
        .iter()
        .map(|(_, text)| tokenizer.encode(&normalize(text)))
        .collect::<Result<_, _>>()?;
    let split = split(&texts, shards, SEQUENCE);
    let vocabulary = u32::try_from(tokenizer.vocabulary())?;
    let shard = |tokens| Shard::new(tokenizer.hash(), vocabulary, tokens);
    let mut stored = Vec::new();
    for tokens in split.shards {
        stored.push(store_shard(home, &shard(tokens)?)?);
    }
    let all_held_out = shard(split.held_out.concat())?;
    let held_out = split.held_out.into_iter().map(shard);
    let held_out = held_out.collect::<Result<_, _>>()?;
    let names: Vec<_> = assets::TEXTS.iter().map(|(name, _)| *name).collect();
    let spec = DatasetSpec {
        name: Text::new("public-domain stories")?,
        licence: Text::new("public domain")?,
        source: Text::new(names.join(", "))?,
        tokenizer_hash: tokenizer.hash(),
        shards: List::new(stored)?,
        held_out: Some(store_shard(home, &all_held_out)?),
    };
    Ok((spec, held_out))
}

fn store_shard(home: &Home, shard: &Shard) -> anyhow::Result<DataShard> {
    Ok(DataShard {
        cid: put(home, &shard.encode())?,
        tokens: shard.tokens().len() as u64,
    })
}

fn put(home: &Home, bytes: &[u8]) -> anyhow::Result<r3mes_types::Cid> {
    let store = agents::open_store(&bootstrap_folder(home), BOOTSTRAP_STORAGE_MB, true)?;
    let cid = store.put(bytes)?;
    store.pin(&cid, &PinName::new(GENESIS_PIN)?)?;
    Ok(cid)
}

/// The folder of the ledger's own blob store.
pub fn bootstrap_folder(home: &Home) -> std::path::PathBuf {
    home.data("ledger").join("blobs")
}
