//! What auth tells.

use r3mes_types::{Address, Amount, Event};

/// The event `tx` that clients of the Cosmos SDK search by.
pub(super) fn admitted(signer: &Address, sequence: u64, fee: Amount, payer: &Address) -> Event {
    Event::new("tx")
        .with("fee", fee)
        .with("fee_payer", payer)
        .with("acc_seq", format_args!("{signer}/{sequence}"))
}

pub(super) fn granted(granter: &Address, grantee: &Address) -> Event {
    Event::new("auth.granted")
        .with("granter", granter)
        .with("grantee", grantee)
}

pub(super) fn revoked(granter: &Address, grantee: &Address) -> Event {
    Event::new("auth.revoked")
        .with("granter", granter)
        .with("grantee", grantee)
}

pub(super) fn fees_granted(granter: &Address, grantee: &Address, limit: Amount) -> Event {
    Event::new("auth.fees_granted")
        .with("granter", granter)
        .with("grantee", grantee)
        .with("limit", limit)
}

pub(super) fn fees_revoked(granter: &Address, grantee: &Address) -> Event {
    Event::new("auth.fees_revoked")
        .with("granter", granter)
        .with("grantee", grantee)
}
