//! `r3mes tx escrow`: coins set aside for calls of remote functions.

use std::time::Duration;

use anyhow::Context;
use r3mes_types::{
    escrow::{MsgClose, MsgOpen},
    wire::{Shown, Text},
};

use super::{Account, made};
use crate::{agents, cli::args::EscrowCommand, clock};

impl Account<'_> {
    pub(super) async fn escrow(&self, typed: &EscrowCommand) -> anyhow::Result<Shown> {
        let message = match typed {
            EscrowCommand::Open(typed) => MsgOpen {
                payer: self.address,
                gateway: typed.gateway,
                user: Text::new(&typed.user).context("no user's name is so long")?,
                deposit: typed.amount,
                expires_at: clock::after(Duration::from_secs(typed.hours * 3600)),
                voucher_key: None,
            }
            .into(),
            EscrowCommand::Close { escrow } => MsgClose {
                gateway: self.address,
                escrow: *escrow,
            }
            .into(),
        };
        let outcome = agents::chain::send(&self.client, &self.key, vec![message]).await?;
        let mut told = made(&outcome);
        told.push(("transaction", agents::chain::shown_outcome(&outcome)));
        Ok(Shown::Record(told))
    }
}
