//! What the parameters of a run must satisfy before it can start.

use r3mes_types::task::{HyperParameterError, MAX_STEPS};
use r3mes_types::training::{
    MAX_AUDITED, MAX_MINERS, MAX_PANEL, MAX_PROPOSERS, MAX_VALIDATORS, MAX_WINDOW, Preset,
    RunParams,
};
use r3mes_types::{MIN_WINDOW, Ppm};

use crate::rewards::economics;

/// Largest share of the training work that verification may cost, in percent.
const MAX_VERIFICATION_PERCENT: u128 = 5;

/// Why the parameters of a run are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// A figure is out of its bounds.
    #[error("{name} is {value}: it must be {allowed}")]
    OutOfBounds {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A hyper-parameter is out of its bounds.
    #[error("the hyper-parameters are refused")]
    HyperParameters {
        /// Which and why.
        #[source]
        source: HyperParameterError,
    },
    /// The parts of the reward are not the whole.
    #[error("the parts of the reward add up to {sum} millionths: they must be 1000000")]
    Split {
        /// What they add up to.
        sum: u64,
    },
    /// A liar would gain by lying.
    #[error(
        "a miner's penalty of {penalty} uremes does not deter: with this reward, panel and audited \
         share it must be at least {least}"
    )]
    Deterrence {
        /// The penalty.
        penalty: u64,
        /// What it must be at least.
        least: u128,
    },
    /// Verification would cost too much.
    #[error(
        "m * s * a / H is above 5%: lower panel, drawn steps or audited share, or choose the \
         demonstration preset"
    )]
    VerificationCost,
}

/// Checks everything that can be checked without looking at the ledger.
///
/// # Errors
/// Names the first parameter at fault.
pub fn check(params: &RunParams) -> Result<(), ParamsError> {
    check_counts(params)?;
    check_windows(params)?;
    params
        .hyper
        .check()
        .map_err(|source| ParamsError::HyperParameters { source })?;
    if let Some(rate) = params
        .learning_rates
        .iter()
        .find(|rate| !rate.is_finite_and_not_negative())
    {
        let allowed = "the bit pattern of a finite f32 that is not negative";
        let (name, value) = ("learning rate", u64::from(rate.0));
        return Err(ParamsError::OutOfBounds {
            name,
            value,
            allowed,
        });
    }
    let split = &params.split;
    let sum = [
        split.miners,
        split.validators,
        split.proposer,
        split.treasury,
    ]
    .iter()
    .map(|part| u64::from(part.millionths()))
    .sum();
    if sum != u64::from(Ppm::ONE.millionths()) {
        return Err(ParamsError::Split { sum });
    }
    check_economics(params)
}

fn check_counts(params: &RunParams) -> Result<(), ParamsError> {
    let counts = [
        ("steps", params.steps, 1, MAX_STEPS, "1 to 4096"),
        ("rounds", params.rounds, 1, u32::MAX, "at least 1"),
        ("panel", params.panel, 1, MAX_PANEL as u32, "1 to 16"),
        (
            "drawn_steps",
            params.drawn_steps,
            1,
            params.steps.min(MAX_AUDITED as u32 - 1),
            "1 to 16, and no more than there are steps",
        ),
        (
            "min_miners",
            params.min_miners,
            1,
            params.max_miners,
            "1 to max_miners",
        ),
        (
            "max_miners",
            params.max_miners,
            1,
            MAX_MINERS as u32,
            "1 to 256",
        ),
        (
            "min_validators",
            params.min_validators,
            1,
            MAX_VALIDATORS as u32,
            "1 to 256",
        ),
        (
            "proposers",
            params.proposers,
            1,
            MAX_PROPOSERS as u32,
            "1 to 16",
        ),
        ("kept_rounds", params.kept_rounds, 1, u32::MAX, "at least 1"),
    ];
    for (name, value, least, most, allowed) in counts {
        if value < least || value > most {
            return Err(ParamsError::OutOfBounds {
                name,
                value: u64::from(value),
                allowed,
            });
        }
    }
    Ok(())
}

fn check_windows(params: &RunParams) -> Result<(), ParamsError> {
    let windows = &params.windows;
    let all = [
        ("windows.commit", windows.commit),
        ("windows.reveal", windows.reveal),
        ("windows.availability", windows.availability),
        ("windows.serve", windows.serve),
        ("windows.verify", windows.verify),
        ("windows.verdict", windows.verdict),
        ("windows.open", windows.open),
        ("windows.court", windows.court),
        ("windows.aggregate", windows.aggregate),
    ];
    for (name, window) in all {
        if window < MIN_WINDOW || window > MAX_WINDOW {
            let allowed = "8000 ms, in which four blocks are made, to a week";
            return Err(ParamsError::OutOfBounds {
                name,
                value: window.millis(),
                allowed,
            });
        }
    }
    Ok(())
}

fn check_economics(params: &RunParams) -> Result<(), ParamsError> {
    let most = params.reward.share(params.split.miners).uremes() / u64::from(params.min_miners);
    let penalty = params.penalties.miner.uremes();
    let least = economics::least_penalty(most, params.audited_share, params.panel).ok_or(
        ParamsError::OutOfBounds {
            name: "audited_share",
            value: 0,
            allowed: "above 0 where miners are paid",
        },
    )?;
    if u128::from(penalty) < least {
        return Err(ParamsError::Deterrence { penalty, least });
    }
    let cost = u128::from(params.panel)
        * u128::from(params.drawn_steps)
        * u128::from(params.audited_share.millionths())
        * 100;
    let limit =
        u128::from(params.steps) * u128::from(Ppm::ONE.millionths()) * MAX_VERIFICATION_PERCENT;
    if params.preset == Preset::Production && cost > limit {
        return Err(ParamsError::VerificationCost);
    }
    if params.preset == Preset::Production && params.reaudited_share == Ppm::ZERO {
        return Err(ParamsError::OutOfBounds {
            name: "reaudited_share",
            value: 0,
            allowed: "above 0 outside the demonstration preset",
        });
    }
    Ok(())
}
