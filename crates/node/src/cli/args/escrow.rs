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
    /// Hours until it ends, counted by this machine's clock: at most an hour less than the ledger's year
    #[arg(long, default_value_t = 720, value_parser = clap::value_parser!(u64).range(1..=MAX_HOURS))]
    pub hours: u64,
}

/// A clock that is up to an hour ahead of the ledger's still names an end that the ledger takes.
const MAX_HOURS: u64 = 365 * 24 - 1;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        open: EscrowOpen,
    }

    #[test]
    fn an_escrow_may_last_as_long_as_the_ledger_allows_by_any_clock() {
        let gateway = r3mes_types::Address::from([2; 20]).to_string();
        let parse = |hours: &str| {
            let open = ["open", &gateway, "5000uremes", "--user", "alice", "--hours"];
            Typed::try_parse_from(open.iter().copied().chain([hours]))
        };
        assert_eq!(parse("8759").ok().map(|typed| typed.open.hours), Some(8759));
        assert!(parse("8760").is_err());
    }
}
