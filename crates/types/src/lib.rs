//! Ids, addresses, keys, coins, roles, transactions, messages and their canonical encoding.
//!
//! Everything that crosses a process boundary or stands on the ledger is a type of this crate, and
//! every type has exactly one encoding ([`wire`]). Bytes from outside are parsed once into a checked
//! type and trusted from then on. There are no floats, clocks, threads or hash maps here: the same
//! bytes mean the same on every machine.
//!
//! ```
//! use r3mes_types::{Amount, SecretKey};
//!
//! let key = SecretKey::from_bytes(&[1; 32])?;
//! assert!(key.address().to_string().starts_with("remes1"));
//! assert_eq!("1000000uremes".parse::<Amount>()?, Amount::remes(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::float_arithmetic)]

pub mod wire;

mod address;
mod amount;
mod cid;
mod hash;
mod key;
mod resources;
mod role;
mod sha256;
mod time;

pub mod commitment;
pub mod merkle;
pub mod rewards;
pub mod task;
pub mod training;

pub mod event;
pub mod query;

mod amino;
pub mod auth;
pub mod bank;
pub mod beacon;
pub mod cosmos;
pub mod data;
pub mod escrow;
pub mod governance;
pub mod models;
pub mod nodes;

mod message;
pub mod tx;

pub use address::{Address, AddressError};
pub use amount::{Amount, AmountError, Coin, DENOM, Ppm, UREMES_PER_REMES};
pub use cid::{Cid, CidError, Codec};
pub use event::Event;
pub use hash::{Hash, HashError, Hasher};
pub use key::{
    AccountKey, ConsensusAddress, ConsensusKey, KeyError, PublicKey, SecretKey, Signature,
};
pub use message::{Message, MessageError};
pub use query::{PageRequest, Query};
pub use resources::{Allocation, Resources};
pub use role::{Role, RoleError, RoleSet};
pub use time::{MAX_BLOCK_INTERVAL, MIN_WINDOW, Millis, Time};
