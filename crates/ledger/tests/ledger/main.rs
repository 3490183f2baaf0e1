//! The ledger as an engine sees it: blocks in, changes and results out.

mod admission;
mod beacon;
mod chain;
mod codes;
mod messages;
mod naive;
mod nodes;
mod prepare;
mod votes;
