//! What is told about rewards.

use r3mes_types::{Address, Amount, Event, Time};

/// A reward was earned, to be paid later.
pub(super) fn vesting(to: &Address, amount: Amount, due: Time) -> Event {
    Event::new("rewards.vesting")
        .with("address", to)
        .with("amount", amount)
        .with("due", due.nanos())
}

/// Rewards were paid that had been held.
pub(super) fn vested(to: &Address, amount: Amount) -> Event {
    Event::new("rewards.vested")
        .with("address", to)
        .with("amount", amount)
}
