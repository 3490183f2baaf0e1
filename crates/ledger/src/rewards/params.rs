//! Parameters of rewards.

use r3mes_types::Amount;
use r3mes_types::rewards::RewardsParams;

/// What a network has that says nothing else: a thousand million REMES.
pub const fn defaults() -> RewardsParams {
    RewardsParams {
        max_supply: Amount::remes(1_000_000_000),
    }
}

/// Checks parameters; every largest supply will do, and none at all ends emission.
///
/// # Errors
/// None as yet.
pub const fn check(_: &RewardsParams) -> Result<(), String> {
    Ok(())
}
