//! `r3mes tx grant` as typed.

use clap::{Args, Subcommand};
use r3mes_types::{Address, Amount};

/// What to do about grants. `r3mes tx register` and `r3mes start` grant the keys of this home's roles
/// what they need.
#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// Let a key send some kinds of message for this account, in place of what it could send before
    Messages {
        /// The key's address, remes1...
        key: Address,
        /// Type URLs of the messages, such as /r3mes.nodes.v1.MsgUnjail
        #[arg(required = true, value_name = "TYPE")]
        types: Vec<String>,
        /// How long it lasts.
        #[command(flatten)]
        lasting: Lasting,
    },
    /// Pay the fees of a key's transactions, up to an amount, in place of what was granted before
    Fees {
        /// The key's address, remes1...
        key: Address,
        /// The most that is paid in all, such as 1000000uremes
        limit: Amount,
        /// How long it lasts.
        #[command(flatten)]
        lasting: Lasting,
    },
    /// Take back everything that a key was granted: it may act no more, and no fee of it is paid
    Revoke {
        /// The key's address, remes1...
        key: Address,
    },
}

/// How long a grant lasts.
#[derive(Clone, Copy, Debug, Args)]
pub struct Lasting {
    /// Days until it ends, counted by this machine's clock
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub days: u64,
}
