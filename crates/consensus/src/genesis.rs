//! What an engine has to know of a chain before its first block.

use r3mes_types::Time;
use tendermint::chain;

use crate::block::BLOCK_OVERHEAD_BYTES;
use crate::key::ValidatorKey;

/// The longest chain id, as in CometBFT.
pub const MAX_CHAIN_ID_BYTES: usize = 50;
/// The largest block, as in CometBFT.
pub const MAX_BLOCK_BYTES: usize = 100 << 20;

/// The part of the genesis that engines use; the ledger's own part is the application's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Names the chain in every signature.
    pub chain_id: chain::Id,
    /// When the chain begins; its first block is later.
    pub time: Time,
    /// Height of the first block: 1, or higher for a chain that goes on from an exported one.
    pub initial_height: u64,
    /// How many bytes an encoded block may have.
    pub max_block_bytes: usize,
    /// How much gas the transactions of a block may take; unlimited if `None`.
    pub max_block_gas: Option<u64>,
    /// Voting power of the only validator under engine `local`.
    pub local_power: u32,
}

/// A genesis cannot begin a chain.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The chain id is empty, too long, or has characters that CometBFT refuses.
    #[error(
        "chain id {chain_id:?} is not 1 to {MAX_CHAIN_ID_BYTES} letters, digits, '-', '_' or '.'"
    )]
    ChainId {
        /// The id.
        chain_id: String,
    },
    /// Engine `local` signs alone.
    #[error(
        "engine `local` signs blocks alone, with the key of {ours}, but the genesis names {named}: make a genesis with this key as its only block validator, or use engine `cometbft`"
    )]
    Validators {
        /// Address of the key at hand.
        ours: String,
        /// Addresses in the genesis.
        named: String,
    },
}

impl Genesis {
    /// A chain `chain_id` from `time`, with CometBFT's usual parameters.
    ///
    /// # Errors
    /// [`GenesisError`] if the chain id is not one.
    pub fn new(chain_id: &str, time: Time) -> Result<Self, GenesisError> {
        let refused = || GenesisError::ChainId {
            chain_id: chain_id.to_owned(),
        };
        Ok(Self {
            chain_id: chain::Id::try_from(chain_id).map_err(|_| refused())?,
            time,
            initial_height: 1,
            max_block_bytes: 4 << 20,
            max_block_gas: None,
            local_power: 1,
        })
    }

    /// The engine's part of a ledger's genesis, for a chain that `key` signs alone.
    ///
    /// # Errors
    /// [`GenesisError`] if the chain id is not one, or others sign as well.
    pub fn of_ledger(
        genesis: &r3mes_ledger::Genesis,
        key: &ValidatorKey,
    ) -> Result<Self, GenesisError> {
        let [validator] = &*genesis.validators else {
            return Err(not_alone(genesis, key));
        };
        if validator.key != key.public_key() {
            return Err(not_alone(genesis, key));
        }
        Ok(Self {
            max_block_gas: Some(genesis.params.auth.max_block_gas),
            local_power: u32::try_from(validator.power).unwrap_or(u32::MAX),
            ..Self::of_network(genesis)?
        })
    }

    /// The engine's part of a ledger's genesis, for a chain that its block validators sign together.
    /// How much gas a block may take is left to the ledger, whose parameters may change.
    ///
    /// # Errors
    /// [`GenesisError::ChainId`] if the chain id is not one.
    pub fn of_network(genesis: &r3mes_ledger::Genesis) -> Result<Self, GenesisError> {
        let max_txs_bytes = usize::try_from(genesis.params.auth.max_block_bytes);
        Ok(Self {
            max_block_bytes: max_txs_bytes
                .unwrap_or(usize::MAX)
                .saturating_add(BLOCK_OVERHEAD_BYTES)
                .min(MAX_BLOCK_BYTES),
            initial_height: genesis.initial_height(),
            ..Self::new(&genesis.chain_id, genesis.time)?
        })
    }
}

fn not_alone(genesis: &r3mes_ledger::Genesis, key: &ValidatorKey) -> GenesisError {
    let named = genesis.validators.iter();
    let named: Vec<String> = named.map(|v| v.key.address().to_string()).collect();
    GenesisError::Validators {
        ours: key.address().to_string(),
        named: named.join(", "),
    }
}
