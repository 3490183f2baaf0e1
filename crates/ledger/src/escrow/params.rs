//! What holds for escrows on every network.

use r3mes_types::{Amount, Millis};

/// The least deposit: that of less the refund would cost the network more than it is worth.
pub const MIN_DEPOSIT: Amount = Amount::new(1_000);
/// The longest that an escrow may last: a year.
pub const MAX_LIFETIME: Millis = Millis::seconds(365 * 24 * 3600);
