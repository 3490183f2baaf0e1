//! Escrow: what a payer sets aside for calls of remote functions, and what a gateway may charge of it.

use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::tx::MAX_CHAIN_ID;
use crate::wire::{Blob, List, Text, Wire};
use crate::{
    Address, Amount, Hasher, PublicKey, SecretKey, Signature, Time, messages, queries, schema,
};

/// Longest name of a user at a gateway, in bytes.
pub const MAX_USER: usize = 64;
/// Most accounts that are paid out of one escrow.
pub const MAX_PAYEES: usize = 64;

messages! {
    /// Messages about escrows.
    pub enum EscrowMessage {
        "/r3mes.escrow.v1.MsgOpen" => Open(MsgOpen) by payer,
        "/r3mes.escrow.v1.MsgCharge" => Charge(MsgCharge) by gateway,
        "/r3mes.escrow.v1.MsgClose" => Close(MsgClose) by gateway,
    }
}

schema! {
    /// Sets coins aside, out of which a gateway may pay for what a user of it calls, until a time. What
    /// is left then goes back by itself.
    pub struct MsgOpen {
        /// Who pays, and gets back what is left.
        1 => payer: Address,
        /// The account that may charge: a gateway's.
        2 => gateway: Address,
        /// Whose calls are paid: a user of that gateway, by the name that its tokens have.
        3 => user: Text<MAX_USER>,
        /// The most that can be charged.
        4 => deposit: Amount,
        /// From this time on nothing can be charged, and what is left goes back.
        5 => expires_at: Time,
        /// If given, no more can be charged than a [`Voucher`] says that is signed by this key.
        6 => voucher_key: Option<PublicKey>,
    }

    /// Pays out what calls have cost: a gateway's usage record. Totals count from the escrow's opening,
    /// so that a record that comes twice, late or not at all changes nothing but when it is paid.
    pub struct MsgCharge {
        /// The gateway.
        1 => gateway: Address,
        /// The escrow.
        2 => escrow: u64,
        /// Who has earned how much so far, ascending by address and without repeats.
        3 => totals: List<Total, MAX_PAYEES>,
        /// What the payer's key has signed, where the escrow names one.
        4 => voucher: Option<Voucher>,
    }

    /// Ends an escrow before its time: what is left goes back to its payer.
    #[derive(Copy)]
    pub struct MsgClose {
        /// The gateway.
        1 => gateway: Address,
        /// The escrow.
        2 => escrow: u64,
    }

    /// What an account has earned out of an escrow since it was opened.
    #[derive(Copy)]
    pub struct Total {
        /// Who.
        1 => payee: Address,
        /// How much in all.
        2 => amount: Amount,
    }

    /// A payer's word: so much may be charged in all.
    #[derive(Copy)]
    pub struct Voucher {
        /// The most that all totals of the escrow may add up to.
        1 => total: Amount,
        /// The signature of the escrow's voucher key over the [`VoucherContent`].
        2 => signature: Signature,
    }

    /// What a voucher's signature covers.
    pub struct VoucherContent {
        /// The chain that the escrow is on.
        1 => chain_id: Text<MAX_CHAIN_ID>,
        /// The escrow.
        2 => escrow: u64,
        /// The most that all totals of the escrow may add up to.
        3 => total: Amount,
    }

    /// An escrow that is open.
    pub struct Escrow {
        /// Its number.
        1 => id: u64,
        /// Who pays.
        2 => payer: Address,
        /// Who may charge.
        3 => gateway: Address,
        /// Whose calls are paid.
        4 => user: Text<MAX_USER>,
        /// What was set aside.
        5 => deposit: Amount,
        /// What of it has been paid out.
        6 => charged: Amount,
        /// When what is left goes back.
        7 => expires_at: Time,
        /// Whose vouchers bound what is charged, if any.
        8 => voucher_key: Option<PublicKey>,
        /// Who was paid how much, ascending by address.
        9 => totals: List<Total, MAX_PAYEES>,
    }

    /// Asks for an escrow.
    #[derive(Copy)]
    pub struct QueryEscrow {
        /// Its number.
        1 => escrow: u64,
    }

    /// The answer to [`QueryEscrow`].
    pub struct EscrowAnswer {
        /// The escrow, if it is open.
        1 => escrow: Option<Escrow>,
    }

    /// Asks for the open escrows of a payer or a gateway, ascending by number.
    pub struct QueryEscrows {
        /// Whose: those that it pays, and those that it may charge.
        1 => account: Address,
        /// Which part.
        2 => page: Option<PageRequest>,
    }

    /// A page of escrows.
    pub struct Escrows {
        /// The escrows.
        1 => escrows: List<Escrow, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }
}

queries! {
    "/r3mes.escrow.v1.Query/Escrow" => QueryEscrow: EscrowAnswer,
    "/r3mes.escrow.v1.Query/Escrows" => QueryEscrows: Escrows,
}

impl VoucherContent {
    /// The voucher that says this.
    pub fn sign(&self, key: &SecretKey) -> Voucher {
        Voucher {
            total: self.total,
            signature: key.sign(&self.signed_bytes()),
        }
    }

    /// Whether a voucher says this, signed by `key`.
    pub fn is_in(&self, voucher: &Voucher, key: &PublicKey) -> bool {
        voucher.total == self.total && key.verify(&self.signed_bytes(), &voucher.signature)
    }

    /// A hash in a domain of its own, so that no signature of anything else is a voucher.
    fn signed_bytes(&self) -> [u8; 32] {
        let hash = Hasher::new("r3mes escrow voucher v1").part(&self.encode());
        *hash.finish().as_bytes()
    }
}

impl Escrow {
    /// What can still be charged.
    pub fn left(&self) -> Amount {
        self.deposit.saturating_sub(self.charged)
    }

    /// What an account has been paid out of it so far.
    pub fn paid_to(&self, payee: &Address) -> Amount {
        let paid = self.totals.iter().find(|total| total.payee == *payee);
        paid.map_or(Amount::ZERO, |total| total.amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voucher_holds_for_its_own_chain_escrow_total_and_key_only() {
        let key = SecretKey::from_bytes(&[1; 32]).unwrap();
        let content = VoucherContent {
            chain_id: Text::new("a").unwrap(),
            escrow: 1,
            total: Amount::new(5),
        };
        let voucher = content.sign(&key);
        assert!(content.is_in(&voucher, &key.public_key()));
        let others = [
            VoucherContent {
                chain_id: Text::new("b").unwrap(),
                ..content.clone()
            },
            VoucherContent {
                escrow: 2,
                ..content.clone()
            },
            VoucherContent {
                total: Amount::new(6),
                ..content.clone()
            },
        ];
        for other in others {
            assert!(!other.is_in(&voucher, &key.public_key()), "{other:?}");
            let raised = Voucher {
                total: other.total,
                ..voucher
            };
            assert!(!other.is_in(&raised, &key.public_key()), "{other:?}");
        }
        let stranger = SecretKey::from_bytes(&[2; 32]).unwrap();
        assert!(!content.is_in(&voucher, &stranger.public_key()));
    }
}
