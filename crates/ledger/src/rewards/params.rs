//! Parameters of rewards.

use r3mes_types::rewards::RewardsParams;
use r3mes_types::{Amount, Millis};

/// Longest vesting: a year.
const MAX_VESTING: Millis = Millis::seconds(365 * 24 * 3600);

/// What a network has that says nothing else: a thousand million REMES, and vesting as long as stake
/// unbonds.
pub const fn defaults() -> RewardsParams {
    RewardsParams {
        max_supply: Amount::remes(1_000_000_000),
        vesting: Millis::seconds(7 * 24 * 3600),
    }
}

/// Checks parameters; every largest supply will do, and none at all ends emission. A development
/// network, which an authority decides for, may pay at once.
///
/// # Errors
/// When vesting is too long, or missing where it must not be.
pub fn check(params: &RewardsParams, development: bool) -> Result<(), String> {
    if params.vesting > MAX_VESTING {
        return Err(format!("rewards.vesting must be at most {MAX_VESTING}"));
    }
    if !development && params.vesting == Millis::default() {
        return Err(
            "rewards.vesting must be above zero: what a liar was paid could not be slashed".into(),
        );
    }
    Ok(())
}
