//! Founds a network of one's own: its first state, and the blobs that this state names.

use anyhow::Context;
use r3mes_exact::Bytes;
use r3mes_ledger::genesis::{Genesis, GenesisValidator, params};
use r3mes_model::{PackedModel, Tokenizer};
use r3mes_training::dataset::Shard;
use r3mes_types::{
    Address, Amount, Hash, Hasher, Millis, Time, UREMES_PER_REMES,
    bank::Balance,
    beacon::HashChain,
    data::DatasetSpec,
    governance::Params,
    models::ModelSpec,
    nodes::{MsgRegister, NodeSpec},
    wire::{List, Text, Wire},
};

use super::{BOOTSTRAP_STORAGE_MB, bootstrap_folder};
use crate::{
    agents, assets,
    home::Home,
    keyring::Keyring,
    materials::{Cut, DatasetLabels, ModelLabels, Shelf, store_model, store_texts},
    plan::{Plan, Subject},
};

/// Blocks that a hash chain of the beacon lasts for where a network is to last.
pub const BEACON_CHAIN: u64 = 1 << 20;
/// Tokens of a training sequence, for which the held-out windows are cut.
pub const SEQUENCE: usize = 128;
/// Number of the dataset that a founded network begins with.
const FIRST_DATASET: u64 = 1;
/// Most nodes that sign blocks, where the ledger's nodes decide that.
const MAX_BLOCK_VALIDATORS: u32 = 100;
/// Most that the faucet of a development network gives at once.
const FAUCET: Amount = Amount::remes(1_000);
/// How long rewards vest on a development network: to be seen, and over soon.
const VESTING: Millis = Millis::seconds(30);
/// Pin of everything the genesis names.
const GENESIS_PIN: &str = "genesis";

/// What a network was founded with.
pub struct Founding {
    /// The base model.
    pub model: ModelSpec,
    /// Number of the dataset.
    pub dataset: u64,
    /// What no shard holds of each text, to measure on.
    pub held_out: Vec<Shard>,
    /// Seed of the adapter that training starts from.
    pub adapter_seed: Hash,
    packed: PackedModel,
}

impl Founding {
    /// What a run on this network trains.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            model: self.model.id,
            config: self.packed.config(),
            dataset: self.dataset,
            adapter_seed: self.adapter_seed,
        }
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
    /// Who signs blocks from the start.
    pub founders: &'a [Founder],
    /// Nodes that are registered from the start and sign no blocks. They have no ledger.
    pub others: &'a [Founder],
    /// Whether the first founder's account is the network's authority and decides alone, as on a development
    /// network; else the validators vote, and times are those of [`params`] without one.
    pub authority: bool,
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

/// Writes a genesis into each home, and the blobs it names into the store of each founder's ledger. The base model is registered, and the texts that come with the binary are the first dataset.
///
/// # Errors
/// When keys, files or the store cannot be used, or there is no founder.
pub fn found(charter: &Charter<'_>) -> anyhow::Result<Founding> {
    let first = charter
        .founders
        .first()
        .context("nobody founds the network")?;
    let authority = match charter.authority {
        true => Some(Keyring::new(&first.home).account_address()?),
        false => None,
    };
    let tokenizer = Tokenizer::from_bytes(assets::BASE_TOKENIZER)?;
    let packed = PackedModel::from_bytes(&Bytes::from_slice(assets::BASE_MODEL))?;
    let mut stored = None;
    for founder in charter.founders {
        let store =
            agents::open_store(&bootstrap_folder(&founder.home), BOOTSTRAP_STORAGE_MB, true)?;
        let shelf = Shelf::new(vec![store], GENESIS_PIN)?;
        let texts = founding_texts(&shelf, &tokenizer, charter.shards)?;
        stored = Some((texts, founding_model(&shelf, &packed)?));
    }
    let ((dataset, held_out), model) = stored.context("nobody founds the network")?;
    let founding = Founding {
        model: model.clone(),
        dataset: FIRST_DATASET,
        held_out,
        adapter_seed: Hasher::new("r3mes founding adapter v1")
            .part(charter.chain_id.as_bytes())
            .number(charter.time.nanos())
            .finish(),
        packed,
    };
    let mut nodes = registrations(charter.founders)?;
    let params = founding_params(authority, nodes.len() == charter.founders.len());
    nodes.extend(registrations(charter.others)?);
    let run = charter.run.as_ref();
    let run = run
        .map(|plan| plan.params(&founding.subject()))
        .transpose()?;
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
    for founder in charter.founders.iter().chain(charter.others) {
        let path = founder.home.genesis_file();
        std::fs::write(&path, genesis.encode())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(founding)
}

/// The first parameters. With an authority times are short, and there is a faucet.
fn founding_params(authority: Option<Address>, follows_nodes: bool) -> Params {
    let development = authority.is_some();
    let mut founding = params(authority, if development { FAUCET } else { Amount::ZERO });
    if development {
        founding.rewards.vesting = VESTING;
    }
    founding.nodes.max_block_validators = match follows_nodes {
        true => MAX_BLOCK_VALIDATORS,
        false => 0,
    };
    founding
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

fn registrations(founders: &[Founder]) -> anyhow::Result<Vec<MsgRegister>> {
    let registration = |founder: &Founder| {
        let spec = founder.node.clone()?;
        let address = Keyring::new(&founder.home).account_address();
        Some(address.map(|address| MsgRegister { address, spec }))
    };
    let all: Result<_, _> = founders.iter().filter_map(registration).collect();
    Ok(all?)
}

fn founding_model(shelf: &Shelf, packed: &PackedModel) -> anyhow::Result<ModelSpec> {
    let labels = ModelLabels {
        name: assets::BASE_MODEL_NAME,
        licence: "MIT",
        memory_mib: 64,
        price: Amount::remes(1),
    };
    let model = (packed, assets::BASE_MODEL);
    store_model(shelf, model, assets::BASE_TOKENIZER, &labels)
}

fn founding_texts(
    shelf: &Shelf,
    tokenizer: &Tokenizer,
    shards: usize,
) -> anyhow::Result<(DatasetSpec, Vec<Shard>)> {
    let names = assets::TEXTS.map(|(name, _)| name).join(", ");
    let labels = DatasetLabels {
        name: "public-domain stories",
        licence: "public domain",
        source: &names,
    };
    let cut = Cut {
        shards,
        sequence: SEQUENCE,
    };
    let texts = assets::TEXTS.map(|(_, text)| text);
    store_texts(shelf, tokenizer, &texts, cut, &labels)
}

#[cfg(test)]
mod tests {
    use r3mes_ledger::governance::check_all;

    use super::*;

    #[test]
    fn a_network_without_an_authority_is_held_to_the_times_of_a_lasting_one() {
        for follows_nodes in [true, false] {
            let lasting = founding_params(None, follows_nodes);
            check_all(&lasting).unwrap();
            assert_eq!(lasting.bank.faucet_limit, Amount::ZERO);
            assert!(lasting.rewards.vesting > VESTING);
            let hasty = founding_params(Some(Address::from([1; 20])), follows_nodes);
            check_all(&hasty).unwrap();
            assert!(hasty.nodes.unbonding < lasting.nodes.unbonding);
            assert_eq!(
                hasty.nodes.max_block_validators,
                lasting.nodes.max_block_validators
            );
        }
    }
}
