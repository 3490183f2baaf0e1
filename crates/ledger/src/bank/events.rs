//! What the bank tells.

use r3mes_types::{Address, Amount, Event};

pub(super) fn transfer(from: &Address, to: &Address, amount: Amount) -> Event {
    Event::new("transfer")
        .with("sender", from)
        .with("recipient", to)
        .with("amount", amount)
}

pub(super) fn mint(to: &Address, amount: Amount) -> Event {
    Event::new("coinbase")
        .with("minter", to)
        .with("amount", amount)
}

pub(super) fn burn(from: &Address, amount: Amount) -> Event {
    Event::new("burn")
        .with("burner", from)
        .with("amount", amount)
}
