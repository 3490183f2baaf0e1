//! The native half of the Python package `r3mes`: connections, values as bytes, and the threads that keep
//! them alive whatever Python code does.
//!
//! - [`codec`]: Python values as items of calls, by docs/spec/functions.md;
//! - [`memory`]: memory of Python objects lent to Rust, and of Rust lent to Python;
//! - [`runtime`]: the threads that move frames, and how Python waits for them;
//! - [`load`]: how busy this machine is;
//! - [`mailbox`]: things that threads leave for an event loop;
//! - [`tally`]: how calls went;
//! - [`client`], [`node`] and [`server`]: the three roles.

mod client;
mod codec;
mod failure;
mod hooks;
mod load;
mod mailbox;
mod memory;
mod node;
mod runtime;
mod server;
mod tally;

use pyo3::prelude::*;

/// The native half of the package r3mes.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::{
        client::{Connection, Head, Pending, Stream, Upload},
        codec::{Moment, Named, Pickled, Raw, Streamed, copies, decode, decode_arguments, encode},
        hooks::set_hooks,
        load::Machine,
        mailbox::Mailbox,
        memory::Memory,
        node::{Job, NodeHandle, Pool},
        server::ServerHandle,
        tally::calls_made,
    };
}
