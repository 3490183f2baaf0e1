//! What rewards do for the domains that call them.

use r3mes_types::rewards::{MAX_TRUST, Record};
use r3mes_types::{Address, Amount};

use super::state::{PARAMS, RECORDS};
use crate::bank::{self, Module, SUPPLY};
use crate::error::LedgerError;
use crate::store::Context;

/// Trust gained by a kept obligation: this part of what is missing to the most.
const GAIN_ONE_IN: u32 = 20;
/// Trust lost by a missed one: this part of what there is.
const LOSS_ONE_IN: u32 = 10;

/// What became of an obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Answered, and nothing was found wrong.
    Kept,
    /// Not answered in time.
    Missed,
    /// Proved false.
    Broken,
}

/// Issues coins for a round, as far as the supply may grow, into the module's account. Returns how
/// many.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn issue(ctx: &mut Context<'_>, amount: Amount) -> Result<Amount, LedgerError> {
    let supply = SUPPLY.get(ctx)?.unwrap_or(Amount::ZERO);
    let room = PARAMS.require(ctx)?.max_supply.saturating_sub(supply);
    let amount = amount.min(room);
    if !amount.is_zero() {
        bank::mint(ctx, Module::Rewards, amount)?;
    }
    Ok(amount)
}

/// Writes down what became of one obligation of a node.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn note(ctx: &mut Context<'_>, address: &Address, deed: Deed) -> Result<(), LedgerError> {
    let record = RECORDS.get(ctx, address)?.unwrap_or_default();
    RECORDS.put(ctx, address, &after(record, deed))
}

/// The record after one more deed. Trust grows slowly, shrinks faster, and is lost by a falsehood.
fn after(mut record: Record, deed: Deed) -> Record {
    match deed {
        Deed::Kept => {
            record.kept += 1;
            record.trust += (MAX_TRUST - record.trust).div_ceil(GAIN_ONE_IN);
        }
        Deed::Missed => {
            record.missed += 1;
            record.trust -= record.trust.div_ceil(LOSS_ONE_IN);
        }
        Deed::Broken => {
            record.broken += 1;
            record.trust = 0;
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_all(deeds: &[Deed]) -> Record {
        deeds.iter().copied().fold(Record::default(), after)
    }

    #[test]
    fn trust_grows_to_its_bound_shrinks_by_misses_and_is_lost_by_a_falsehood() {
        assert_eq!(after_all(&[Deed::Kept]).trust, 50);
        assert_eq!(after_all(&[Deed::Kept; 500]).trust, MAX_TRUST);
        let missed = after_all(&[[Deed::Kept; 500].as_slice(), &[Deed::Missed]].concat());
        assert_eq!((missed.trust, missed.missed), (900, 1));
        assert_eq!(after_all(&[Deed::Missed; 3]).trust, 0);
        assert_eq!(after_all(&[Deed::Kept, Deed::Broken]).trust, 0);
    }
}
