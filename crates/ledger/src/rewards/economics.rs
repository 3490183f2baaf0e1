//! What deters: integer bounds on penalties.

use r3mes_types::Ppm;

/// Penalties are at least so many times the expected gain.
const SAFETY: u128 = 10;
/// The share of power that liars may hold is one in this many (rho = 1/3).
const LIARS_ONE_IN: u128 = 3;

/// The least penalty at which lying does not pay, rounded up:
/// `10 * reward / (a * (1 - rho^m))`, where `reward` is the most that a liar can gain in a round, `a`
/// the audited share, `m` the size of a panel and `rho = 1/3`.
///
/// `None` when nobody is audited and there is something to gain: then no penalty deters.
pub fn least_penalty(reward: u64, audited: Ppm, panel: u32) -> Option<u128> {
    if reward == 0 {
        return Some(0);
    }
    // a (1 - 3^-m) = a (3^m - 1) / 3^m
    let whole = LIARS_ONE_IN.checked_pow(panel.min(MAX_EXPONENT))?;
    let gain = SAFETY * u128::from(reward) * u128::from(Ppm::ONE.millionths());
    let divisor = u128::from(audited.millionths()) * (whole - 1);
    if divisor == 0 {
        return None;
    }
    Some((gain * whole).div_ceil(divisor))
}

/// Above this the chance that a whole panel lies is below 10^-7, and 3^m times any gain still fits.
const MAX_EXPONENT: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_formula() {
        // 10 * 900 / (1 * (1 - 1/9)) = 10,125
        assert_eq!(least_penalty(900, Ppm::ONE, 2), Some(10_125));
        // 10 * 900 / (0.1 * (1 - 1/27)) = 93,461.5...
        assert_eq!(least_penalty(900, Ppm::percent(10), 3), Some(93_462));
        assert_eq!(least_penalty(0, Ppm::ZERO, 3), Some(0));
        assert_eq!(least_penalty(1, Ppm::ZERO, 3), None);
        // The largest figures do not overflow.
        assert!(least_penalty(u64::MAX, Ppm::new(1).unwrap(), 16).is_some());
    }
}
