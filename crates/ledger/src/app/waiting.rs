//! What waits for a block.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_types::tx::Tx;
use r3mes_types::{Address, Amount, Hash};

use crate::auth::{self, Pending};
use crate::block::{Admitted, Lane};

/// Transactions that wait for a block, as far as the next one to be checked has to know them.
///
/// The mempool admits to it what [`Ledger::check_tx`](crate::Ledger::check_tx) lets in, and begins a new one after each commit
/// or eviction, with what still waits, in order.
#[derive(Clone, Debug, Default)]
pub struct Waiting {
    sequences: BTreeMap<Address, u64>,
    fees: BTreeMap<Address, Amount>,
    granted: BTreeMap<(Address, Address), Amount>,
    answered: BTreeSet<Hash>,
}

impl Waiting {
    /// Takes a transaction into account that begins to wait.
    pub fn admit(&mut self, admitted: &Admitted) {
        self.sequences
            .insert(admitted.sender, admitted.sequence + 1);
        if let Lane::Obligation(keys) = &admitted.lane {
            self.answered.extend(keys);
        }
        let fee = Amount::new(admitted.fee);
        let by_grant = (admitted.payer, admitted.sender);
        let fees = self.fees.entry(admitted.payer).or_default();
        *fees = fees.saturating_add(fee);
        let granted = self.granted.entry(by_grant).or_default();
        *granted = granted.saturating_add(fee);
    }

    /// The sequence that `account` has once its waiting transactions have run, if any waits.
    pub fn sequence(&self, account: &Address) -> Option<u64> {
        self.sequences.get(account).copied()
    }

    /// What a transaction has to know of those that wait.
    pub(super) fn pending(&self, tx: &Tx, verified: bool) -> Pending<'_> {
        let (signer, payer) = (tx.signer(), auth::payer(tx));
        Pending {
            sequence: self.sequences.get(&signer).copied(),
            fees: self.fees.get(&payer).copied().unwrap_or_default(),
            granted: self
                .granted
                .get(&(payer, signer))
                .copied()
                .unwrap_or_default(),
            answered: &self.answered,
            verified,
            repeats: false,
        }
    }
}
