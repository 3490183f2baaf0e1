//! Parameters of auth.

use r3mes_types::Amount;
use r3mes_types::auth::AuthParams;

/// What a network has that says nothing else.
pub const fn defaults() -> AuthParams {
    AuthParams {
        fee_per_million_gas: Amount::new(1_000),
        max_tx_gas: 20_000_000,
        max_obligation_gas: 10_000_000,
        max_block_gas: 400_000_000,
        max_block_bytes: 4 * 1024 * 1024,
    }
}

/// Least gas a block must have room for, so that the ledger can always be used.
const MIN_BLOCK_GAS: u64 = 20_000_000;

/// Checks parameters.
///
/// # Errors
/// Says which limit leaves no room for what.
pub fn check(params: &AuthParams) -> Result<(), String> {
    if params.max_block_gas < MIN_BLOCK_GAS {
        return Err(format!("max_block_gas must be at least {MIN_BLOCK_GAS}"));
    }
    if params.max_tx_gas > params.max_block_gas || params.max_obligation_gas > params.max_tx_gas {
        return Err("max_obligation_gas <= max_tx_gas <= max_block_gas must hold".into());
    }
    if params.max_obligation_gas < 1_000_000 {
        return Err("max_obligation_gas must be at least 1000000".into());
    }
    let largest = r3mes_types::tx::MAX_TX_BYTES as u64;
    if params.max_block_bytes < 2 * largest {
        return Err(format!("max_block_bytes must be at least {}", 2 * largest));
    }
    Ok(())
}
