//! Gas: a deterministic measure of what a transaction costs the network.

use crate::error::{LedgerError, TxRefusal};

/// Verifying a signature.
pub const SIGNATURE: u64 = 1_000;
/// Each byte of a transaction.
pub const TX_BYTE: u64 = 10;
/// Removing an entry.
pub const DELETE: u64 = 1_000;

const READ: u64 = 1_000;
const READ_BYTE: u64 = 3;
const WRITE: u64 = 2_000;
const WRITE_BYTE: u64 = 30;
const LIST_ENTRY: u64 = 30;

/// Reading a key and its value of together so many bytes.
pub const fn read(bytes: usize) -> u64 {
    READ + READ_BYTE * bytes as u64
}

/// Writing a key and its value of together so many bytes.
pub const fn write(bytes: usize) -> u64 {
    WRITE + WRITE_BYTE * bytes as u64
}

/// Listing so many entries of together so many bytes.
pub const fn list(entries: usize, bytes: usize) -> u64 {
    READ + LIST_ENTRY * entries as u64 + READ_BYTE * bytes as u64
}

/// How much gas may be used, and how much has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gas {
    limit: u64,
    used: u64,
}

impl Gas {
    /// At most `limit`.
    pub const fn new(limit: u64) -> Self {
        Self { limit, used: 0 }
    }

    /// As much as it takes: hooks and genesis.
    pub const fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// What has been used; at most the limit.
    pub const fn used(&self) -> u64 {
        if self.used < self.limit {
            self.used
        } else {
            self.limit
        }
    }

    pub(crate) fn consume(&mut self, amount: u64) -> Result<(), LedgerError> {
        self.used = self.used.saturating_add(amount);
        if self.used > self.limit {
            return Err(TxRefusal::OutOfGas { limit: self.limit }.into());
        }
        Ok(())
    }
}
