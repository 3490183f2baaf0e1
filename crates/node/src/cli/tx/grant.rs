//! `r3mes tx grant`: keys that act for this account, or whose fees it pays.

use std::time::Duration;

use anyhow::Context;
use r3mes_types::{
    Message, Time,
    auth::{MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees, QueryGrants},
    wire::{List, Shown, Text},
};

use super::Account;
use crate::{
    agents,
    cli::args::{GrantCommand, Lasting},
    clock,
};

impl Account<'_> {
    pub(super) async fn grant(&self, typed: &GrantCommand) -> anyhow::Result<Shown> {
        let granter = self.address;
        let messages = match typed {
            GrantCommand::Messages {
                key,
                types,
                lasting,
            } => vec![
                MsgGrant {
                    granter,
                    grantee: *key,
                    type_urls: type_urls(types)?,
                    expires_at: lasting.end(),
                }
                .into(),
            ],
            GrantCommand::Fees {
                key,
                limit,
                lasting,
            } => vec![
                MsgGrantFees {
                    granter,
                    grantee: *key,
                    limit: *limit,
                    expires_at: lasting.end(),
                }
                .into(),
            ],
            GrantCommand::Revoke { key } => {
                let grantee = *key;
                let page = None;
                let grants = self.client.list(QueryGrants { granter, page }).await?;
                let found = grants.iter().find(|entry| entry.grantee == grantee);
                let found = found.with_context(|| {
                    format!("{grantee} was granted nothing by {granter}; `r3mes query grants` lists who was")
                })?;
                let act = found.grant.as_ref();
                let act = act.map(|_| Message::from(MsgRevoke { granter, grantee }));
                let pay = found.fees.as_ref();
                let pay = pay.map(|_| Message::from(MsgRevokeFees { granter, grantee }));
                act.into_iter().chain(pay).collect()
            }
        };
        let outcome = agents::chain::send(&self.client, &self.key, messages).await?;
        Ok(agents::chain::shown_outcome(&outcome))
    }
}

impl Lasting {
    fn end(self) -> Time {
        clock::after(Duration::from_secs(self.days * 24 * 3600))
    }
}

/// The messages that are named, as the ledger takes them: each once, ascending.
fn type_urls<const LENGTH: usize, const MAX: usize>(
    typed: &[String],
) -> anyhow::Result<List<Text<LENGTH>, MAX>> {
    let mut urls: Vec<&str> = typed.iter().map(String::as_str).collect();
    urls.sort_unstable();
    urls.dedup();
    for url in &urls {
        anyhow::ensure!(
            Message::type_urls().any(|known| known == *url),
            "{url:?} is no type of message; the messages there are: {}",
            Message::type_urls().collect::<Vec<_>>().join(" ")
        );
    }
    let urls: Result<Vec<_>, _> = urls.into_iter().map(Text::new).collect();
    List::new(urls?).context("a grant names at most 64 messages")
}

#[cfg(test)]
mod tests {
    use r3mes_types::{auth::MAX_GRANTED_TYPES, tx::MAX_TYPE_URL};

    use super::*;

    #[test]
    fn messages_are_granted_once_each_and_unknown_ones_not() {
        let parse = |typed: &[&str]| {
            let typed: Vec<String> = typed.iter().map(|url| (*url).to_owned()).collect();
            type_urls::<MAX_TYPE_URL, MAX_GRANTED_TYPES>(&typed)
        };
        let (unjail, leave) = ("/r3mes.nodes.v1.MsgUnjail", "/r3mes.nodes.v1.MsgLeave");
        let urls = parse(&[unjail, leave, unjail]).unwrap();
        let urls: Vec<&str> = urls.iter().map(|url| &**url).collect();
        assert_eq!(urls, [leave, unjail]);
        let refusal = parse(&["MsgUnjail"]).unwrap_err().to_string();
        assert!(refusal.contains(unjail), "{refusal}");
    }
}
