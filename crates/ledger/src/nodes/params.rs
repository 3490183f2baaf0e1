//! Parameters of the nodes.

use r3mes_types::nodes::{NodesParams, RoleStake};
use r3mes_types::wire::List;
use r3mes_types::{Amount, MIN_WINDOW, Millis, Ppm, Role};

/// How long evidence against a block validator is accepted (CometBFT's default of 48 hours): stake
/// must stay slashable for at least as long.
const EVIDENCE_AGE: Millis = Millis::seconds(48 * 3600);

/// What a network has that says nothing else.
pub fn defaults() -> NodesParams {
    let minimum = |role, remes| RoleStake {
        role,
        minimum: Amount::remes(remes),
    };
    let stakes = vec![
        minimum(Role::Miner, 1),
        minimum(Role::Serving, 1),
        minimum(Role::Validator, 100),
        minimum(Role::Proposer, 50),
    ];
    NodesParams {
        minimum_stakes: List::new(stakes).expect("there are four roles"),
        unbonding: Millis::seconds(7 * 24 * 3600),
        appeal_window: Millis::seconds(3 * 24 * 3600),
        jail: Millis::seconds(600),
        max_block_validators: 100,
        double_sign_slash: Ppm::percent(5),
    }
}

/// Checks parameters. A development network, which an authority decides for, may be hastier.
///
/// # Errors
/// Says which parameter is wrong, and what would do.
pub fn check(params: &NodesParams, development: bool) -> Result<(), String> {
    let roles: Vec<Role> = params
        .minimum_stakes
        .iter()
        .map(|entry| entry.role)
        .collect();
    if roles != Role::ALL {
        return Err("minimum_stakes must have every role once, in order".into());
    }
    if params
        .minimum_stakes
        .iter()
        .any(|entry| entry.minimum.is_zero())
    {
        return Err("minimum_stakes must be above zero: free nodes could flood the network".into());
    }
    if !development && params.unbonding < EVIDENCE_AGE {
        return Err(format!(
            "unbonding must be at least the evidence age of {EVIDENCE_AGE}"
        ));
    }
    if params.appeal_window < MIN_WINDOW {
        return Err(format!(
            "appeal_window must be at least {MIN_WINDOW}, in which four blocks are made: nobody could appeal"
        ));
    }
    if params.unbonding < params.appeal_window {
        return Err("unbonding must be at least as long as appeal_window".into());
    }
    Ok(())
}
