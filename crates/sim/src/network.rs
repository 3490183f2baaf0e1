//! What a simulated network consists of, and the genesis it begins with.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use r3mes_ledger::Genesis;
use r3mes_ledger::genesis::development;
use r3mes_types::bank::Balance;
use r3mes_types::data::{DataShard, DatasetSpec};
use r3mes_types::models::ModelSpec;
use r3mes_types::nodes::{MsgRegister, NodeSpec};
use r3mes_types::task::{AdapterRef, F32Bits, HyperParameters, Targets};
use r3mes_types::training::{Backend, Penalties, Preset, RunParams, Split, Windows};
use r3mes_types::wire::{List, Text};
use r3mes_types::{
    Address, Amount, Cid, Hash, Millis, Ppm, PublicKey, Resources, Role, RoleSet, SecretKey,
};

use crate::behaviour::Behaviour;
use crate::compute::{ADAPTER, Compute};
use crate::node::Node;
use crate::partition::Partitions;
use crate::rng::Rng;

/// What each node puts at stake, and has besides.
pub const STAKE: Amount = Amount::remes(20_000);
/// How long each phase may take. An honest node that is cut off or down is back well within it.
pub const WINDOW: Millis = Millis::seconds(60);
/// What a round is worth, all parts together.
pub const REWARD: Amount = Amount::remes(10);
/// Closed rounds that the ledger keeps in full.
pub const KEPT_ROUNDS: u32 = 3;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Network {
    /// Everything follows from it.
    pub seed: u64,
    /// Behaviour of each miner.
    pub miners: Vec<Behaviour>,
    /// Behaviour of each validator, all of equal power.
    pub validators: Vec<Behaviour>,
    /// Behaviour of each proposer.
    pub proposers: Vec<Behaviour>,
    /// Rounds of the run.
    pub rounds: u32,
    /// Share of packages that are audited.
    pub audited: Ppm,
    /// Share of the kept packages that are audited again when their miner takes stake back.
    pub reaudited: Ppm,
    /// Members of a panel.
    pub panel: u32,
    /// Steps of a round.
    pub steps: u32,
    /// Steps that are drawn.
    pub drawn: u32,
    /// Whether nodes crash, are cut off, and messages are delayed, lost and doubled.
    pub weather: bool,
    /// Whether all compute with the same back end: verdicts that split by back end pause a run, and
    /// with few voters one liar is enough of a side.
    pub one_backend: bool,
    /// How often some of them are cut off from the ledger.
    pub partitions: Partitions,
}

impl Network {
    /// Only honest nodes, every package audited, in fair weather.
    #[must_use]
    pub fn honest(seed: u64, miners: usize, validators: usize, proposers: usize) -> Self {
        Self {
            seed,
            miners: vec![Behaviour::Honest; miners],
            validators: vec![Behaviour::Honest; validators],
            proposers: vec![Behaviour::Honest; proposers],
            rounds: 1,
            audited: Ppm::ONE,
            reaudited: Ppm::ZERO,
            panel: 2,
            steps: 8,
            drawn: 1,
            weather: false,
            one_backend: false,
            partitions: Partitions::of(0),
        }
    }

    /// Fifty nodes in bad weather with liars of every kind, under a third of the power.
    #[must_use]
    pub fn zoo(seed: u64, rounds: u32) -> Self {
        use Behaviour as B;
        let mut network = Self::honest(seed, 30, 15, 5);
        let liars = [
            B::FalsifiedSteps(8),
            B::FalsifiedSteps(2),
            B::ForgedMoments,
            B::CopiedPackage,
            B::StalePackage,
            B::SwappedCid,
            B::WithheldPackage,
            B::WithheldStates,
            B::WrongFeedback,
            B::Leaver,
            B::Quitter(0),
            B::Quitter(8),
        ];
        network.miners[..liars.len()].copy_from_slice(&liars);
        let liars = [
            B::LazyVerdict,
            B::GuessedVerdict,
            B::FalseAccuser,
            B::Accomplice,
        ];
        network.validators[..liars.len()].copy_from_slice(&liars);
        network.proposers[0] = B::WrongAggregate;
        network.rounds = rounds;
        network.audited = Ppm::percent(60);
        network.reaudited = Ppm::percent(50);
        network.panel = 3;
        network.weather = true;
        network
    }

    /// Seven validators, two of them liars, a lying miner among three, and so many partitions.
    #[must_use]
    pub fn partitioned(seed: u64, partitions: u32) -> Self {
        use Behaviour as B;
        let mut network = Self::honest(seed, 3, 7, 2);
        network.miners[0] = B::FalsifiedSteps(4);
        network.validators[0] = B::FalseAccuser;
        network.validators[1] = B::Accomplice;
        // More than will be needed.
        network.rounds = 1_000 + 10 * partitions;
        network.steps = 4;
        network.one_backend = true;
        network.partitions = Partitions::of(partitions);
        network
    }

    /// Whether validators that do not keep to the protocol hold less than a third of the power.
    #[must_use]
    pub fn liars_are_few(&self) -> bool {
        let liars = self.validators.iter().filter(|b| !b.is_honest()).count();
        3 * liars < self.validators.len()
    }

    /// The nodes, their keys, and the genesis that registers them and starts the run.
    ///
    /// # Errors
    /// When there are more nodes than a genesis holds.
    pub fn build(&self, compute: &dyn Compute) -> Result<Built> {
        let mut rng = Rng::new(self.seed);
        let mut nodes = Vec::new();
        let mut keys = BTreeMap::new();
        let groups = [
            (Role::Miner, &self.miners),
            (Role::Validator, &self.validators),
            (Role::Proposer, &self.proposers),
        ];
        for (role, behaviours) in groups {
            for &behaviour in behaviours {
                let key = SecretKey::from_bytes(&rng.bytes())?;
                keys.insert(key.address(), key.public_key());
                let mut node = Node::new(key.address(), role, behaviour, rng.bytes());
                if self.one_backend {
                    node.backend = Backend::Scalar;
                }
                nodes.push(node);
            }
        }
        let initial = vec![7; ADAPTER];
        let genesis = self.genesis(compute, &nodes, &initial)?;
        Ok(Built {
            nodes,
            keys,
            genesis,
            initial,
            secret: rng.bytes(),
            rng,
        })
    }

    fn genesis(&self, compute: &dyn Compute, nodes: &[Node], initial: &[u8]) -> Result<Genesis> {
        let authority = nodes.first().context("a network has nodes")?.address;
        let mut balances: Vec<Balance> = nodes
            .iter()
            .map(|node| Balance {
                address: node.address,
                amount: STAKE.saturating_add(STAKE),
            })
            .collect();
        balances.sort_by_key(|balance| balance.address);
        let mut genesis = development("r3mes-sim", authority, &balances);
        genesis.params.nodes.jail = Millis::seconds(1);
        genesis.params.nodes.appeal_window = Millis::seconds(600);
        genesis.params.nodes.unbonding = Millis::seconds(600);
        genesis.params.rewards.vesting = Millis::seconds(600);
        let mut specs: Vec<MsgRegister> = nodes.iter().map(register).collect::<Result<_>>()?;
        specs.sort_by_key(|spec| spec.address);
        genesis.nodes = List::new(specs)?;
        genesis.models = List::new(vec![model()?])?;
        genesis.datasets = List::new(vec![dataset()?])?;
        genesis.runs = List::new(vec![self.params(compute, initial)?])?;
        Ok(genesis)
    }

    /// The run's parameters. The penalty is the least that the ledger accepts.
    fn params(&self, compute: &dyn Compute, initial: &[u8]) -> Result<RunParams> {
        let miners = self.miners.len() as u32;
        let min_miners = miners.div_ceil(2);
        let split = Split {
            miners: Ppm::percent(60),
            validators: Ppm::percent(30),
            proposer: Ppm::percent(5),
            treasury: Ppm::percent(5),
        };
        let most = REWARD.share(split.miners).uremes() / u64::from(min_miners);
        let least = r3mes_ledger::rewards::economics::least_penalty(most, self.audited, self.panel)
            .context("packages are audited")?;
        let penalty = Amount::new(u64::try_from(least)?);
        Ok(RunParams {
            name: Text::new("simulated")?,
            model: Hash::of(b"model"),
            exact_version: 1,
            dataset: 1,
            steps: self.steps,
            hyper: hyper(),
            learning_rates: List::default(),
            initial: AdapterRef {
                cid: None,
                adapter: Hash::of(initial),
                state: Hash::of(&compute.start(initial)),
            },
            rounds: self.rounds,
            reward: REWARD,
            split,
            panel: self.panel,
            drawn_steps: self.drawn,
            audited_share: self.audited,
            min_miners,
            max_miners: miners,
            min_validators: 1,
            proposers: 3,
            windows: Windows {
                commit: WINDOW,
                reveal: WINDOW,
                availability: WINDOW,
                serve: WINDOW,
                verify: WINDOW,
                verdict: WINDOW,
                open: WINDOW,
                court: WINDOW,
                aggregate: WINDOW,
            },
            penalties: Penalties {
                miner: penalty,
                validator: penalty,
                proposer: penalty,
            },
            kept_rounds: KEPT_ROUNDS,
            preset: Preset::Demonstration,
            adapter_seed: Hash::of(b"adapter seed"),
            reaudited_share: self.reaudited,
        })
    }
}

/// A network that is ready to begin.
pub struct Built {
    /// Its nodes: miners, validators, proposers.
    pub nodes: Vec<Node>,
    /// Their public keys.
    pub keys: BTreeMap<Address, PublicKey>,
    /// The genesis that registers them.
    pub genesis: Genesis,
    /// The adapter the run starts from.
    pub initial: Vec<u8>,
    /// The secret of the beacon.
    pub secret: [u8; 32],
    /// The randomness of what happens from now on.
    pub rng: Rng,
}

fn register(node: &Node) -> Result<MsgRegister> {
    Ok(MsgRegister {
        address: node.address,
        spec: NodeSpec {
            moniker: Text::new(node.behaviour.to_string())?,
            roles: RoleSet::of(&[node.role]),
            primary_role: None,
            stake: STAKE,
            resources: Resources::default(),
            allocations: List::default(),
            endpoints: List::default(),
            consensus_key: None,
        },
    })
}

fn model() -> Result<ModelSpec> {
    Ok(ModelSpec {
        id: Hash::of(b"model"),
        name: Text::new("simulated")?,
        base: Cid::raw(b"model"),
        base_bytes: 5,
        tokenizer: Cid::raw(b"tokenizer"),
        tokenizer_hash: Hash::of(b"tokenizer"),
        exact_version: 1,
        memory_mib: 1,
        price_per_million_tokens: Amount::new(1),
        licence: Text::new("MIT")?,
    })
}

fn dataset() -> Result<DatasetSpec> {
    let shards = (0..64u8)
        .map(|n| DataShard {
            cid: Cid::raw(&[n]),
            tokens: 1_000,
        })
        .collect();
    Ok(DatasetSpec {
        name: Text::new("simulated")?,
        licence: Text::new("MIT")?,
        source: Text::new("made up")?,
        tokenizer_hash: Hash::of(b"tokenizer"),
        shards: List::new(shards)?,
        held_out: None,
    })
}

fn hyper() -> HyperParameters {
    HyperParameters {
        batch: 1,
        sequence: 8,
        rank: 1,
        alpha: F32Bits::ONE,
        targets: Targets::ALL,
        learning_rate: F32Bits::ONE,
        beta1: F32Bits::ZERO,
        beta2: F32Bits::ZERO,
        c1: F32Bits::ONE,
        c2: F32Bits::ONE,
        epsilon: F32Bits::ONE,
        weight_decay: F32Bits::ZERO,
        chunk: 8,
        top_k: 1,
        decay: F32Bits::ZERO,
    }
}
