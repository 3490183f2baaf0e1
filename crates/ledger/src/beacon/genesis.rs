//! How the beacon begins.

use r3mes_types::beacon::{Chain, MAX_CHAIN};

use super::handle::BeaconError;
use super::state::{CHAINS, MIX, MIXES};
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Chains removed at once.
const PAGE: usize = 256;

/// The first mix is the hash of genesis; each first block validator brings its chain.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    let mix = genesis.hash();
    MIX.put(ctx, &mix)?;
    MIXES.put(ctx, &(genesis.initial_height() - 1), &mix)?;
    for validator in &genesis.validators {
        let length = validator.chain_length;
        if length == 0 || length > MAX_CHAIN {
            return Err(BeaconError::Length {
                length,
                max: MAX_CHAIN,
            }
            .into());
        }
        let address = validator.key.address();
        let chain = Chain {
            last: validator.chain_end,
            remaining: length,
            next_end: None,
            next_length: 0,
        };
        CHAINS.put(ctx, &address, &chain)?;
    }
    Ok(())
}

/// Forgets all hash chains: on another chain their elements would be known.
pub(crate) fn forget_chains(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    loop {
        let page = CHAINS.range(ctx, None, PAGE)?;
        if page.is_empty() {
            return Ok(());
        }
        for (address, _) in page {
            CHAINS.remove(ctx, &address)?;
        }
    }
}
