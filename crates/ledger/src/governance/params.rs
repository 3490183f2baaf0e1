//! Parameters of governance, and the check of the parameters of all domains together.

use r3mes_types::governance::{GovernanceParams, Params};
use r3mes_types::{MIN_WINDOW, Millis, Ppm};

use crate::{auth, bank, data, nodes, rewards};

/// Longest vote.
const MAX_VOTING: Millis = Millis::seconds(30 * 24 * 3600);

/// What a network has that says nothing else: more than two thirds of the stake decides.
pub fn defaults() -> GovernanceParams {
    GovernanceParams {
        authority: None,
        voting: Millis::seconds(3 * 24 * 3600),
        threshold: Ppm::new(666_667).expect("two thirds are less than one"),
    }
}

/// Checks parameters.
///
/// # Errors
/// When votes would have too little time or never end, or a minority could decide.
pub fn check(params: &GovernanceParams) -> Result<(), String> {
    if params.voting < MIN_WINDOW || params.voting > MAX_VOTING {
        return Err(format!(
            "governance.voting must be between {MIN_WINDOW}, in which four blocks are made, and {MAX_VOTING}"
        ));
    }
    if params.threshold < Ppm::percent(50) || params.threshold == Ppm::ONE {
        return Err("governance.threshold must be at least one half, and less than one".into());
    }
    Ok(())
}

/// Checks the parameters of all domains together, at genesis and whenever one changes.
///
/// # Errors
/// Says which parameter is wrong, and what would do.
pub fn check_all(params: &Params) -> Result<(), String> {
    bank::check_params(&params.bank)?;
    auth::check_params(&params.auth)?;
    nodes::check_params(&params.nodes, params.governance.authority.is_some())?;
    data::check_params(&params.data)?;
    rewards::check_params(&params.rewards, params.governance.authority.is_some())?;
    check(&params.governance)?;
    if params.governance.authority.is_none() && !params.bank.faucet_limit.is_zero() {
        return Err("a faucet is for development networks, which have an authority".into());
    }
    Ok(())
}
