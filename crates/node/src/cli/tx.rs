//! `r3mes tx`: what this node's account signs and sends.

mod escrow;
mod grant;
mod materials;
mod nodes;
mod proposal;
mod run;
mod settings;

use anyhow::Context;
use r3mes_gateway::rpc::{Client, SendError, TxOutcome};
use r3mes_types::{
    Address, Message, Role, RoleSet, SecretKey,
    bank::{MsgFaucet, MsgSend},
    data::MsgVoteDataset,
    governance::{Change, MsgPropose, QueryParams},
    models::Model,
    nodes::{MsgLeave, NodeStatus, QueryNode},
    wire::{Shown, Text},
};

use super::{
    args::{DatasetCommand, ModelCommand, Overrides, RunCommand, Submit, Tx, TxCommand, Vote},
    output::Output,
};
use crate::{
    agents::{self, depot::Depot, models},
    config::Config,
    home::Home,
    keyring::Keyring,
};

/// Disk that blobs fetched for one command may take, in MiB.
const FETCHED_MB: u64 = 16 << 10;
/// What events call the things that a transaction made: kind and attribute.
const MADE: [(&str, &str); 5] = [
    ("models.registered", "model"),
    ("data.dataset", "dataset"),
    ("training.create_run", "run"),
    ("governance.proposal", "proposal"),
    ("escrow.opened", "escrow"),
];

/// `r3mes tx`
pub(super) fn run(
    home: &Home,
    typed: &Tx,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    if let TxCommand::Run(RunCommand::Example) = &typed.command {
        return run::example(out);
    }
    let config = super::load(home, overrides)?;
    super::runtime()?.block_on(async {
        if let TxCommand::Unjail = &typed.command {
            return out.show_ledger(&nodes::unjail(home, &config).await?);
        }
        let account = Account::open(home, &config)?;
        let done = account.execute(&typed.command).await?;
        out.show_ledger(&done)
    })
}

/// How an account decides something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It is the network's authority.
    Alone,
    /// The validators vote.
    Proposal,
}

/// Something to be decided.
struct Decision {
    /// The message of the authority.
    alone: Message,
    /// What the validators vote on.
    change: Change,
    /// The proposal's title where none is typed.
    title: String,
}

/// The account that signs, and the node that it sends to.
struct Account<'a> {
    home: &'a Home,
    config: &'a Config,
    client: Client,
    key: SecretKey,
    address: Address,
}

impl<'a> Account<'a> {
    fn open(home: &'a Home, config: &'a Config) -> anyhow::Result<Self> {
        let key = Keyring::new(home).account()?;
        Ok(Self {
            home,
            config,
            client: agents::chain::connect(home, config)?,
            address: key.address(),
            key,
        })
    }

    async fn execute(&self, command: &TxCommand) -> anyhow::Result<Shown> {
        let address = self.address;
        match command {
            TxCommand::Send { to, amount } => {
                self.send(MsgSend::new(address, *to, *amount).into()).await
            }
            TxCommand::Faucet { amount } => {
                let message = MsgFaucet {
                    to: address,
                    amount: *amount,
                };
                self.send(message.into()).await
            }
            TxCommand::Register { roles, stake } => {
                refuse_unconfigured(self.config, roles)?;
                let roles = RoleSet::of(roles);
                let outcome = agents::register_roles(self.home, self.config, roles, *stake);
                Ok(agents::chain::shown_outcome(&outcome.await?))
            }
            TxCommand::Leave => self.send(MsgLeave { address }.into()).await,
            TxCommand::Model(ModelCommand::Register(typed)) => self.register_model(typed).await,
            TxCommand::Dataset(DatasetCommand::Propose(typed)) => self.propose_dataset(typed).await,
            TxCommand::Dataset(DatasetCommand::Vote { dataset, vote }) => {
                let message = MsgVoteDataset {
                    voter: address,
                    dataset: *dataset,
                    approve: *vote == Vote::Yes,
                };
                self.send(message.into()).await
            }
            TxCommand::Run(typed) => self.decide_on_run(typed).await,
            TxCommand::Escrow(typed) => self.escrow(typed).await,
            TxCommand::Proposal(typed) => self.proposal(typed).await,
            TxCommand::Grant(typed) => self.grant(typed).await,
            TxCommand::Appeal { slash, statement } => self.appeal(*slash, statement).await,
            TxCommand::Unjail => nodes::unjail(self.home, self.config).await,
        }
    }

    async fn send(&self, message: Message) -> anyhow::Result<Shown> {
        let outcome = agents::chain::send(&self.client, &self.key, vec![message]).await?;
        Ok(agents::chain::shown_outcome(&outcome))
    }

    /// Sends a message with as much gas as it takes. With `--dry-run` only says what it would take.
    async fn submit(
        &self,
        message: Message,
        submit: &Submit,
        content: Vec<(&'static str, Shown)>,
    ) -> Result<Shown, SendError> {
        let sender = agents::chain::sender(&self.client, self.key.clone());
        let gas = sender.simulate(vec![message.clone()]).await?;
        if submit.dry_run {
            let told = [
                ("sent", Shown::Bool(false)),
                ("message", Shown::Text(message.type_url().to_owned())),
                ("gas_used", Shown::Number(gas.into())),
            ];
            return Ok(Shown::Record(told.into_iter().chain(content).collect()));
        }
        // The state may change before the block.
        let sender = sender.with_gas_limit(gas + gas / 4);
        let outcome = sender.send(vec![message]).await?;
        let mut told = made(&outcome);
        if told.is_empty() {
            told.push(("unchanged", Shown::Bool(true)));
        }
        told.extend(content);
        told.push(("transaction", agents::chain::shown_outcome(&outcome)));
        Ok(Shown::Record(told))
    }

    /// How this account decides something: alone where it is the network's authority, else by a proposal
    /// to the validators, of whom it must be one.
    async fn way(&self) -> anyhow::Result<Way> {
        let address = self.address;
        let params = self.client.query(&QueryParams {}).await?;
        let authority = params.governance.authority;
        if authority == Some(address) {
            return Ok(Way::Alone);
        }
        let node = self.client.query(&QueryNode { address }).await?.node;
        let votes = node.is_some_and(|node| {
            node.status == NodeStatus::Active && node.spec.roles.contains(Role::Validator)
        });
        let who = match authority {
            Some(authority) => format!("its authority {authority}, or of an active validator"),
            None => "an active validator".to_owned(),
        };
        anyhow::ensure!(
            votes,
            "{address} has no say on this network: use the home of {who}"
        );
        Ok(Way::Proposal)
    }

    fn message(&self, way: Way, decision: Decision, submit: &Submit) -> anyhow::Result<Message> {
        if way == Way::Alone {
            return Ok(decision.alone);
        }
        let title = submit.title.clone().unwrap_or(decision.title);
        let proposal = MsgPropose {
            proposer: self.address,
            title: Text::new(title).context("give a shorter --title")?,
            change: decision.change,
        };
        Ok(proposal.into())
    }

    /// A registered model by its name or id.
    async fn model(&self, typed: &str) -> anyhow::Result<Model> {
        let mut models = models::registered(&self.client).await?;
        let is_named =
            |model: &Model| *model.spec.name == *typed || model.spec.id.to_string() == typed;
        match models.iter().position(is_named) {
            Some(at) => Ok(models.swap_remove(at)),
            None => {
                let names = models.iter().map(|model| model.spec.name.as_str());
                anyhow::bail!(
                    "no model {typed:?} is registered; there is: {}",
                    names.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    /// A depot that fetches from the network into a folder that is cleared afterwards.
    fn depot(&self) -> anyhow::Result<(Depot, tempfile::TempDir)> {
        let folder = tempfile::tempdir()?;
        let store = agents::open_store(folder.path(), FETCHED_MB, false)?;
        let depot = Depot::new(self.home, self.config, store, self.client.clone())?;
        Ok((depot, folder))
    }
}

/// The numbers and ids of what a transaction made.
fn made(outcome: &TxOutcome) -> Vec<(&'static str, Shown)> {
    let mut made = Vec::new();
    for (kind, attributes) in &outcome.events {
        for (event, name) in MADE {
            let value = attributes.iter().find(|(key, _)| key == name);
            if let Some((_, value)) = value.filter(|_| kind == event) {
                let number = value.parse().map(Shown::Number);
                made.push((name, number.unwrap_or_else(|_| Shown::Text(value.clone()))));
            }
        }
    }
    made
}

/// A registered role that does not run here would fail its obligations and lose stake.
fn refuse_unconfigured(config: &Config, roles: &[Role]) -> anyhow::Result<()> {
    match roles.iter().find(|role| config.role(**role).is_none()) {
        Some(role) => anyhow::bail!(
            "the role {role} is not in this node's configuration, so nothing here would do its work; \
             add a section roles.{role} first"
        ),
        None => Ok(()),
    }
}
