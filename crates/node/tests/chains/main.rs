//! Chains on this machine, used from the command line: proofs from far away, and networks that go on
//! under another name.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod export;
mod homes;
mod proofs;
