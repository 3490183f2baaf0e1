//! Parameters of the bank.

use r3mes_types::bank::BankParams;

/// Checks parameters; any faucet limit will do, and genesis decides whether there is a faucet.
///
/// # Errors
/// None as yet.
pub const fn check(_: &BankParams) -> Result<(), String> {
    Ok(())
}
