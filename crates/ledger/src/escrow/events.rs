//! What is told about escrows.

use r3mes_types::escrow::Escrow;
use r3mes_types::{Address, Amount, Event};

pub(super) fn opened(escrow: &Escrow) -> Event {
    Event::new("escrow.opened")
        .with("escrow", escrow.id)
        .with("payer", escrow.payer)
        .with("gateway", escrow.gateway)
        .with("user", &escrow.user)
        .with("deposit", escrow.deposit)
        .with("expires_at", escrow.expires_at.nanos())
}

/// An account was paid out of an escrow, so much more than before.
pub(super) fn charged(escrow: u64, payee: &Address, amount: Amount) -> Event {
    Event::new("escrow.charged")
        .with("escrow", escrow)
        .with("payee", payee)
        .with("amount", amount)
}

/// An escrow has ended; this went back.
pub(super) fn closed(escrow: &Escrow) -> Event {
    Event::new("escrow.closed")
        .with("escrow", escrow.id)
        .with("payer", escrow.payer)
        .with("charged", escrow.charged)
        .with("refund", escrow.left())
}
