//! Ids, addresses, keys, coins, roles, transactions, messages and their canonical encoding.

mod cid;

pub use cid::{Cid, CidError, Codec};
