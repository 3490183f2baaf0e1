//! The replicated state machine, one module per domain; pure.
//!
//! An engine hands blocks in and gets changes out ([`Ledger`]); nothing here knows a clock, a disk or
//! a network. Domains have the same files, each those that it needs: `messages` (what can be checked about
//! a message by itself), `state` (what is kept), `params`, `handle` (what messages and hooks do),
//! `query`, `events`, `genesis`. Where domains meet there is one list each: [`hooks`] for blocks, `dispatch`
//! for messages and questions, [`obligations`] for what travels free.
//!
//! ```
//! use r3mes_ledger::{Ledger, genesis};
//! use r3mes_types::Address;
//!
//! let genesis = genesis::development("r3mes-doc", Address::from([1; 20]), &[]);
//! let (changes, validators) = Ledger::init_chain(&genesis)?;
//! assert_eq!(validators.len(), 1);
//! # Ok::<(), r3mes_ledger::Fault>(())
//! ```

#![warn(clippy::float_arithmetic)]

pub mod block;
pub mod export;
pub mod genesis;

mod app;
mod dispatch;
mod error;
pub mod gas;
pub mod hooks;
pub mod obligations;
pub mod query;
pub mod store;

pub mod invariants;
mod votes;

pub mod auth;
pub mod bank;
pub mod beacon;
mod cosmos;
pub mod data;
pub mod escrow;
pub mod governance;
pub mod models;
pub mod nodes;
pub mod rewards;
pub mod training;

pub use app::{CHAIN_ID, Known, LAST_HEIGHT, LAST_TIME, Ledger, Proposal, Waiting};
pub use block::{BlockInput, BlockOutput};
pub use error::{Fault, LedgerError, QueryError, TxRefusal};
pub use genesis::Genesis;
