//! `r3mes tx unjail` and `r3mes tx appeal`: what a node does after it was punished.

use anyhow::Context;
use r3mes_gateway::rpc::{Client, TxClient};
use r3mes_types::{
    Address, Message, Time,
    nodes::{
        MAX_REASON, MsgAppeal, MsgUnjail, Node, NodeStatus, QueryNode, QuerySlashes, Slash,
        SlashStatus,
    },
    wire::{Shown, Text},
};

use super::Account;
use crate::{agents, clock, config::Config, home::Home, keyring::Keyring};

/// `r3mes tx unjail`: with the account's key where it is here, else with a role's.
pub(super) async fn unjail(home: &Home, config: &Config) -> anyhow::Result<Shown> {
    let keyring = Keyring::new(home);
    let address = keyring.account_address()?;
    let client = agents::chain::connect(home, config)?;
    let node = client.query(&QueryNode { address }).await?.node;
    refuse_free(address, node.as_ref())?;
    let sender = match keyring.has_account() {
        true => agents::chain::sender(&client, keyring.account()?),
        false => by_a_role(&client, &keyring, config, address)?,
    };
    let outcome = sender
        .send(vec![MsgUnjail { address }.into()])
        .await
        .context("the node stays jailed")?;
    Ok(agents::chain::shown_outcome(&outcome))
}

/// Signs with the key of a role that runs here; the account pays, as it granted.
fn by_a_role(
    client: &Client,
    keyring: &Keyring,
    config: &Config,
    account: Address,
) -> anyhow::Result<TxClient> {
    let roles = config.enabled_roles();
    let (role, _) = roles.first().context(
        "the account's 24 words are not in this home, and it runs no role whose key could ask instead: run this where the words are",
    )?;
    let sender = agents::chain::sender(client, keyring.role(*role)?);
    Ok(sender.paid_by(account))
}

/// Says why a node cannot ask back in, before the ledger is asked.
fn refuse_free(address: Address, node: Option<&Node>) -> anyhow::Result<()> {
    let node = node.with_context(|| {
        format!("{address} is not a registered node: `r3mes tx register` registers it")
    })?;
    match node.status {
        NodeStatus::Active => anyhow::bail!("{address} is not jailed: it takes part"),
        NodeStatus::Left => anyhow::bail!(
            "{address} has left the network: `r3mes tx register` joins again, once its jail term is over"
        ),
        NodeStatus::Jailed => {}
    }
    let left = left_until(node.jailed_until);
    anyhow::ensure!(
        left.is_none(),
        "{address} is jailed for {} more: {}",
        left.unwrap_or_default(),
        &*node.jail_reason
    );
    Ok(())
}

impl Account<'_> {
    /// `r3mes tx appeal`
    pub(super) async fn appeal(&self, slash: u64, statement: &str) -> anyhow::Result<Shown> {
        let length = statement.len();
        let statement = Text::new(statement).with_context(|| {
            format!("the statement has {length} bytes; it is one line of at most {MAX_REASON}")
        })?;
        let slashes = QuerySlashes {
            node: Some(self.address),
            page: None,
        };
        let ours = self.client.list(slashes).await?;
        let found = ours.iter().find(|found| found.id == slash);
        refuse_appeal(self.address, slash, found, &statement)?;
        let message = MsgAppeal {
            address: self.address,
            slash,
            statement,
        };
        self.send(Message::from(message)).await
    }
}

/// Says why a slash cannot be appealed.
fn refuse_appeal(
    node: Address,
    id: u64,
    slash: Option<&Slash>,
    statement: &Text<MAX_REASON>,
) -> anyhow::Result<()> {
    let slash = slash.with_context(|| {
        format!("no slash {id} is of {node}; `r3mes query slashes` lists those that are")
    })?;
    let amount = slash.amount;
    match slash.status {
        SlashStatus::Held if left_until(slash.final_at).is_some() => Ok(()),
        SlashStatus::Appealed if slash.statement == *statement => Ok(()),
        SlashStatus::Appealed => anyhow::bail!(
            "slash {id} is appealed already, and its decision is awaited; the statement was {:?}",
            &*slash.statement
        ),
        SlashStatus::Reverted => {
            anyhow::bail!("slash {id} needs no appeal: its {amount} were given back")
        }
        SlashStatus::Held | SlashStatus::Final => anyhow::bail!(
            "the appeal window of slash {id} is over: its {amount} went to the treasury, from which only a decision of the network could pay them back (`r3mes tx proposal spend`)"
        ),
    }
}

/// How long it is until a time, by this machine's clock, in the largest units that say it; `None` once
/// it has come.
fn left_until(time: Time) -> Option<String> {
    let seconds = time.since(clock::now()).millis().div_ceil(1000);
    Some(match seconds {
        0 => return None,
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        7_200..172_800 => format!("{} h", seconds.div_ceil(3_600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use r3mes_types::Amount;

    use super::*;

    fn slash(status: SlashStatus, final_at: Time) -> Slash {
        Slash {
            id: 3,
            node: Address::from([1; 20]),
            amount: Amount::remes(5),
            reason: Text::default(),
            status,
            at: Time::default(),
            final_at,
            statement: Text::new("the disk failed").unwrap(),
        }
    }

    #[test]
    fn an_appeal_that_cannot_be_is_refused_with_the_reason() {
        let node = Address::from([1; 20]);
        let later = clock::after(Duration::from_secs(600));
        let try_it = |slash: Option<&Slash>, statement: &str| {
            let tried = refuse_appeal(node, 3, slash, &Text::new(statement).unwrap());
            tried.err().map(|error| error.to_string())
        };
        assert!(try_it(None, "").unwrap().contains("query slashes"));
        let held = slash(SlashStatus::Held, later);
        assert_eq!(try_it(Some(&held), "no"), None);
        let over = slash(SlashStatus::Held, Time::default());
        assert!(try_it(Some(&over), "no").unwrap().contains("is over"));
        let gone = slash(SlashStatus::Final, Time::default());
        assert!(try_it(Some(&gone), "no").unwrap().contains("is over"));
        let appealed = slash(SlashStatus::Appealed, later);
        assert_eq!(try_it(Some(&appealed), "the disk failed"), None);
        let other = try_it(Some(&appealed), "no").unwrap();
        assert!(other.contains("\"the disk failed\""), "{other}");
        let back = slash(SlashStatus::Reverted, later);
        assert!(try_it(Some(&back), "no").unwrap().contains("given back"));
    }

    #[test]
    fn time_that_is_left_is_told_in_units_that_say_it() {
        let left = |seconds| left_until(clock::after(Duration::from_secs(seconds)));
        assert_eq!(left_until(clock::now()), None);
        assert_eq!(left(7_000).unwrap(), "117 min");
        assert_eq!(left(86_400).unwrap(), "24 h");
        assert_eq!(left(3 * 86_400).unwrap(), "3 days");
    }
}
