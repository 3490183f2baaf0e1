//! A network whose block validators are its registered nodes.

use r3mes_consensus::key::ValidatorKey;
use r3mes_ledger::genesis::{GenesisValidator, development};
use r3mes_types::bank::Balance;
use r3mes_types::beacon::HashChain;
use r3mes_types::nodes::{MsgRegister, NodeSpec};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Resources, Role, RoleSet, SecretKey};

/// Name of the chain.
pub(crate) const CHAIN: &str = "r3mes-validators";
/// Validators of the genesis.
pub(crate) const FOUNDERS: u8 = 4;
/// Elements of each hash chain of the beacon: few, so that they are used up.
pub(crate) const ELEMENTS: u64 = 6;
/// What each has at stake.
pub(crate) const STAKE: Amount = Amount::remes(1_000);

/// Everything secret about a node; all of it follows from its number.
pub(crate) struct Keys {
    pub(crate) operator: SecretKey,
    pub(crate) validator: ValidatorKey,
    pub(crate) beacon: [u8; 32],
}

impl Keys {
    pub(crate) fn of(number: u8) -> Self {
        Self {
            operator: SecretKey::from_bytes(&[number; 32]).unwrap(),
            validator: ValidatorKey::from_seed(&[number; 32]),
            beacon: [number; 32],
        }
    }

    pub(crate) fn registration(&self) -> MsgRegister {
        let spec = NodeSpec {
            moniker: Text::default(),
            roles: RoleSet::of(&[Role::Validator]),
            primary_role: None,
            stake: STAKE,
            resources: Resources::default(),
            allocations: List::default(),
            endpoints: List::default(),
            consensus_key: Some(self.validator.public_key()),
        };
        MsgRegister {
            address: self.operator.address(),
            spec,
        }
    }

    pub(crate) fn chain(&self) -> HashChain {
        HashChain::new(&self.beacon, ELEMENTS)
    }
}

/// A network whose founders are registered nodes; one more account is rich enough to join.
pub(crate) fn genesis() -> r3mes_ledger::Genesis {
    let mut balances: Vec<Balance> = (1..=FOUNDERS + 1)
        .map(|number| Balance {
            address: Keys::of(number).operator.address(),
            amount: Amount::remes(10_000),
        })
        .collect();
    balances.sort_by_key(|balance| balance.address);
    let authority = Keys::of(1).operator.address();
    let mut genesis = development(CHAIN, authority, &balances);
    genesis.params.nodes.max_block_validators = 100;
    let founders: Vec<Keys> = (1..=FOUNDERS).map(Keys::of).collect();
    let validators = founders.iter().map(|keys| GenesisValidator {
        operator: keys.operator.address(),
        key: keys.validator.public_key(),
        power: 1_000,
        chain_end: keys.chain().end(),
        chain_length: ELEMENTS,
    });
    genesis.validators = List::new(validators.collect()).unwrap();
    let nodes = founders.iter().map(Keys::registration);
    genesis.nodes = List::new(nodes.collect()).unwrap();
    genesis
}
