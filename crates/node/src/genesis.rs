//! Founds a network of one's own: its first state, and the blobs that this state names.

use anyhow::Context;
use r3mes_blobs::PinName;
use r3mes_consensus::key::ValidatorKey;
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
    Amount, Hash, Hasher, Time,
    bank::Balance,
    beacon::HashChain,
    data::{DataShard, DatasetSpec},
    models::ModelSpec,
    task::{AdapterRef, HyperParameters},
    wire::{List, Text, Wire},
};

use crate::{agents, assets, home::Home, keyring::Keyring};

/// Blocks that a hash chain of the beacon lasts for where a network is to last.
pub const BEACON_CHAIN: u64 = 1 << 20;
/// Tokens of a training sequence, for which the held-out windows are cut.
pub const SEQUENCE: usize = 128;
/// Number of the dataset that a founded network begins with.
const FIRST_DATASET: u64 = 1;
/// Disk that the bootstrap blob store may take, in MiB.
pub const BOOTSTRAP_STORAGE_MB: u64 = 16 << 10;
/// Most that the faucet of a development network gives at once.
const FAUCET: Amount = Amount::remes(1_000);
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
#[derive(Clone, Copy, Debug)]
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
}

/// Writes a genesis into a home, and the blobs it names into the store of the home's ledger. The
/// home's account becomes the network's authority; its keys sign blocks and feed the beacon. The base
/// model is registered, and the texts that come with the binary are the first dataset.
///
/// # Errors
/// When keys, files or the store cannot be used.
pub fn found(home: &Home, charter: &Charter<'_>) -> anyhow::Result<Founding> {
    let keyring = Keyring::new(home);
    let authority = keyring.account_address()?;
    let (beacon, consensus) = (keyring.beacon_seed()?, keyring.consensus_seed()?);
    let chain = HashChain::new(&beacon, charter.beacon_chain);
    let validator = GenesisValidator {
        operator: authority,
        key: ValidatorKey::from_seed(&consensus).public_key(),
        power: 1,
        chain_end: chain.end(),
        chain_length: charter.beacon_chain,
    };
    let tokenizer = Tokenizer::from_bytes(assets::BASE_TOKENIZER)?;
    let (dataset, held_out) = store_texts(home, &tokenizer, charter.shards)?;
    let (model, config) = store_model(home, &tokenizer)?;
    let genesis = Genesis {
        chain_id: Text::new(charter.chain_id)?,
        time: charter.time,
        params: params(Some(authority), FAUCET),
        balances: List::new(charter.balances.to_vec())?,
        validators: List::new(vec![validator])?,
        nodes: List::default(),
        models: List::new(vec![model.clone()])?,
        datasets: List::new(vec![dataset])?,
        runs: List::default(),
    };
    std::fs::write(home.genesis_file(), genesis.encode())
        .with_context(|| format!("cannot write {}", home.genesis_file().display()))?;
    Ok(Founding {
        model,
        dataset: FIRST_DATASET,
        held_out,
        adapter_seed: Hasher::new("r3mes founding adapter v1")
            .part(genesis.hash().as_ref())
            .finish(),
        config,
    })
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
