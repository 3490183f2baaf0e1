//! `r3mes tx proposal`: what the network decides about parameters, appeals and its treasury.

use anyhow::Context;
use r3mes_types::{
    governance::{Change, MsgPropose, MsgVote, QueryParams, SlashDecision, Spend},
    nodes::{QuerySlashes, SlashStatus},
    wire::{Shown, Text},
};

use super::{Account, settings};
use crate::cli::args::{DecideSlash, ProposalCommand, SlashFate, Submit, Vote};

impl Account<'_> {
    pub(super) async fn proposal(&self, typed: &ProposalCommand) -> anyhow::Result<Shown> {
        match typed {
            ProposalCommand::Vote { proposal, vote } => {
                let message = MsgVote {
                    voter: self.address,
                    proposal: *proposal,
                    approve: *vote == Vote::Yes,
                };
                self.send(message.into()).await
            }
            ProposalCommand::Set { settings, submit } => {
                let now = self.client.query(&QueryParams {}).await?;
                let change = settings::change(&now, settings)?;
                let title = format!("set {}", settings.join(" "));
                self.propose(change, title, submit).await
            }
            ProposalCommand::Slash(typed) => self.decide_on_slash(typed).await,
            ProposalCommand::Spend { to, amount, submit } => {
                let change = Change::Spend(Spend {
                    to: *to,
                    amount: *amount,
                });
                let title = format!("pay {amount} to {to}");
                self.propose(change, title, submit).await
            }
        }
    }

    async fn decide_on_slash(&self, typed: &DecideSlash) -> anyhow::Result<Shown> {
        let id = typed.slash;
        let all = self.client.list(QuerySlashes::default()).await?;
        let slash = all.iter().find(|slash| slash.id == id);
        let slash = slash.with_context(|| {
            format!("there is no slash {id}; `r3mes query slashes --all` lists them")
        })?;
        anyhow::ensure!(
            slash.status == SlashStatus::Appealed,
            "slash {id} is {}: only one that its node appealed is decided on",
            slash.status
        );
        let revert = typed.decision == SlashFate::Revert;
        let change = Change::Slash(SlashDecision { slash: id, revert });
        let verb = if revert { "revert" } else { "keep" };
        self.propose(change, format!("{verb} slash {id}"), &typed.submit)
            .await
    }

    /// Proposes a change, which is done at once if this account is the network's authority.
    async fn propose(
        &self,
        change: Change,
        title: String,
        submit: &Submit,
    ) -> anyhow::Result<Shown> {
        self.way().await?;
        let title = submit.title.clone().unwrap_or(title);
        let message = MsgPropose {
            proposer: self.address,
            title: Text::new(title).context("give a shorter title with --title")?,
            change,
        };
        Ok(self.submit(message.into(), submit, Vec::new()).await?)
    }
}
