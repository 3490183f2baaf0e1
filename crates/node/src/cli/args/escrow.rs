//! `r3mes tx escrow` as typed.

use clap::{Args, Subcommand};
use r3mes_types::{Address, Amount};

/// What to do about escrows.
#[derive(Debug, Subcommand)]
pub enum EscrowCommand {
    /// Set coins aside, out of which a gateway pays for what one of its users calls; what is left goes
    /// back to this account at the end
    Open(EscrowOpen),
    /// End an escrow that this account may charge, before its time: what is left goes back to its payer
    Close {
        /// Number of the escrow
        escrow: u64,
    },
}

/// `r3mes tx escrow open`
#[derive(Debug, Args)]
pub struct EscrowOpen {
    /// The gateway's account, remes1...: it may charge up to the amount, so name one that you trust with it
    pub gateway: Address,
    /// The most that can be charged, such as 5000000uremes
    pub amount: Amount,
    /// The user of the gateway whose calls are paid, by the name that its tokens have
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Hours until it ends
    #[arg(long, default_value_t = 720, value_parser = clap::value_parser!(u64).range(1..=8760))]
    pub hours: u64,
}
