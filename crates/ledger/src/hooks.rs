//! Everything that happens in a block outside transactions, in the order in which it happens.
//!
//! This is the only such list. Work at the end of a block is capped by each domain and goes on in
//! the next block.

use r3mes_types::{Event, Time};

use crate::block::{BlockInput, ValidatorUpdate};
use crate::error::{Fault, LedgerError};
use crate::store::{Context, View};
use crate::{beacon, data, escrow, governance, nodes, rewards, training};

/// Something that happens once in every block.
type Hook = fn(&mut Context<'_>, &BlockInput) -> Result<(), LedgerError>;
/// Something that will happen by itself at a time.
type Deadline = fn(&dyn View) -> Result<Option<Time>, LedgerError>;

/// Before the transactions.
const BEGIN_BLOCK: &[(&str, Hook)] = &[("beacon", beacon::begin_block), ("nodes", nodes::punish)];

/// After the transactions.
const END_BLOCK: &[(&str, Hook)] = &[
    ("nodes", nodes::end_block),
    ("rewards", rewards::end_block),
    ("data", data::end_block),
    ("governance", governance::end_block),
    ("training", training::end_block),
    ("escrow", escrow::end_block),
];

/// When something happens next.
const DEADLINES: &[Deadline] = &[
    nodes::next_deadline,
    rewards::next_deadline,
    data::next_deadline,
    governance::next_deadline,
    training::next_deadline,
    escrow::next_deadline,
];

/// Runs the hooks before the transactions.
pub(crate) fn begin_block(ctx: &mut Context<'_>, input: &BlockInput) -> Result<(), Fault> {
    run(BEGIN_BLOCK, ctx, input)
}

/// Runs the hooks after the transactions.
pub(crate) fn end_block(ctx: &mut Context<'_>, input: &BlockInput) -> Result<(), Fault> {
    run(END_BLOCK, ctx, input)
}

/// Block validators whose power changed in this block.
pub(crate) fn validator_updates(ctx: &mut Context<'_>) -> Result<Vec<ValidatorUpdate>, Fault> {
    nodes::updates(ctx).map_err(LedgerError::into_fault)
}

/// Runs the hooks in order. What a refused hook did is dropped and told as an event: one domain's
/// mistake must not stop the chain, and every node comes to the same state either way.
fn run(
    hooks: &[(&'static str, Hook)],
    ctx: &mut Context<'_>,
    input: &BlockInput,
) -> Result<(), Fault> {
    for (name, hook) in hooks {
        match ctx.attempt(|inner| hook(inner, input)) {
            Ok(()) => {}
            Err(LedgerError::Fault(fault)) => return Err(fault),
            Err(refusal) => {
                ctx.emit(
                    Event::new(HOOK_REFUSED)
                        .with("hook", name)
                        .with("error", refusal),
                );
            }
        }
    }
    Ok(())
}

/// Kind of the event that tells of a hook that failed: a mistake in the ledger itself.
pub const HOOK_REFUSED: &str = "ledger.hook_refused";

/// The next time at which something happens by itself; one that has passed asks for a block now.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    let mut next: Option<Time> = None;
    for deadline in DEADLINES {
        next = [next, deadline(view)?].into_iter().flatten().min();
    }
    Ok(next)
}
