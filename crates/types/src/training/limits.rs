//! The bounds of everything a run or a round can hold.

use crate::Millis;

/// Most miners that one round takes.
pub const MAX_MINERS: usize = 256;
/// Most validators that one round takes; the ones with the most stake when there are more.
pub const MAX_VALIDATORS: usize = 256;
/// Most proposers that one round ranks: one drawn, the others its backups.
pub const MAX_PROPOSERS: usize = 16;
/// Most members of one panel.
pub const MAX_PANEL: usize = 16;
/// Most audited steps of one miner: the drawn ones, and the packaging of the update.
pub const MAX_AUDITED: usize = 17;
/// Most leaves a miner opens: before and after each audited step.
pub const MAX_OPENINGS: usize = 2 * MAX_AUDITED;
/// Most hashes in a Merkle path over `task::MAX_STEPS + 2` leaves.
pub const MAX_PROOF: usize = 13;
/// Most entries of a learning-rate table.
pub const MAX_LEARNING_RATES: usize = 1024;
/// Longest name of a run, in bytes.
pub const MAX_RUN_NAME: usize = 64;
/// Most bytes a package may claim to have.
pub const MAX_PACKAGE_BYTES: u64 = 1 << 30;
/// Longest window of one phase: one week.
pub const MAX_WINDOW: Millis = Millis::seconds(7 * 24 * 3600);
/// Most obligations that one query returns.
pub const MAX_OBLIGATIONS: usize = 1024;
