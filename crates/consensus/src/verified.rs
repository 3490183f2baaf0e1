//! Transactions that this process parsed and whose signatures it verified, so that it does so once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::application::TxHash;

/// How many are remembered, and how many bytes they have as they came: more than wait in a mempool.
const MOST: usize = 65_536;
const MOST_BYTES: usize = 96 << 20;

/// Verified transactions; the oldest are forgotten first.
pub(crate) struct Verified<T> {
    txs: HashMap<TxHash, Known<T>>,
    by_age: BTreeMap<u64, TxHash>,
    next_age: u64,
    bytes: usize,
}

struct Known<T> {
    tx: Arc<T>,
    bytes: usize,
    age: u64,
}

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self {
            txs: HashMap::new(),
            by_age: BTreeMap::new(),
            next_age: 0,
            bytes: 0,
        }
    }
}

impl<T> Verified<T> {
    pub(crate) fn get(&self, hash: &TxHash) -> Option<Arc<T>> {
        self.txs.get(hash).map(|known| known.tx.clone())
    }

    /// Remembers a transaction that came as so many bytes.
    pub(crate) fn remember(&mut self, hash: TxHash, tx: Arc<T>, bytes: usize) {
        self.forget(&hash);
        let age = self.next_age;
        self.next_age += 1;
        self.txs.insert(hash, Known { tx, bytes, age });
        self.by_age.insert(age, hash);
        self.bytes += bytes;
        while self.txs.len() > MOST || self.bytes > MOST_BYTES {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.forget(&oldest);
        }
    }

    pub(crate) fn forget(&mut self, hash: &TxHash) {
        if let Some(known) = self.txs.remove(hash) {
            self.by_age.remove(&known.age);
            self.bytes -= known.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> TxHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    #[test]
    fn one_that_no_block_takes_does_not_keep_others_from_being_forgotten() {
        let tx = Arc::new(());
        let mut verified = Verified::default();
        verified.remember(hash(0), tx.clone(), 100);
        for number in 1..1000 {
            verified.remember(hash(number), tx.clone(), 100);
            verified.forget(&hash(number));
        }
        assert_eq!(
            (verified.txs.len(), verified.by_age.len(), verified.bytes),
            (1, 1, 100)
        );
        assert!(verified.get(&hash(0)).is_some());
    }

    #[test]
    fn the_oldest_make_room() {
        let tx = Arc::new(());
        let mut verified = Verified::default();
        let half = MOST_BYTES / 2;
        for number in 0..3 {
            verified.remember(hash(number), tx.clone(), half);
        }
        let known = [0, 1, 2].map(|number| verified.get(&hash(number)).is_some());
        assert_eq!(known, [false, true, true]);
        assert_eq!((verified.by_age.len(), verified.bytes), (2, 2 * half));
    }
}
