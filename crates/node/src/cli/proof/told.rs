//! What was verified, as it is printed.

use r3mes_types::Amount;
use serde::Serialize;

use crate::agents::chain::remes;

/// What was verified.
#[derive(Debug, Serialize)]
pub(super) struct Verified {
    pub(super) chain_id: String,
    /// The verified header.
    pub(super) height: u64,
    pub(super) hash: String,
    pub(super) time: String,
    pub(super) app_hash: String,
    /// How much of the voting power signed it.
    pub(super) signed_power: u64,
    pub(super) total_power: u64,
    pub(super) validators: Vec<Validator>,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Debug, Serialize)]
pub(super) struct Validator {
    pub(super) address: String,
    pub(super) power: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verified")]
pub(super) enum What {
    Block {
        /// Hashes of the transactions, in order.
        transactions: Vec<String>,
    },
    Balance {
        address: String,
        uremes: u64,
        /// The balance is the one after this block.
        state_height: u64,
    },
    Participants {
        nodes: Vec<Participant>,
        state_height: u64,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct Participant {
    pub(super) address: String,
    pub(super) moniker: String,
    pub(super) roles: Vec<String>,
    pub(super) status: String,
    pub(super) bonded_uremes: u64,
}

/// The same for people.
pub(super) fn text(verified: &Verified) -> String {
    let mut lines = vec![
        format!(
            "block {} of {} is verified: {} of {} power signed it",
            verified.height, verified.chain_id, verified.signed_power, verified.total_power
        ),
        format!("  hash      {}", verified.hash),
        format!("  time      {}", verified.time),
        format!("  app hash  {}", verified.app_hash),
    ];
    match &verified.what {
        What::Block { transactions } => {
            lines.push(format!("  transactions: {}", transactions.len()));
            lines.extend(transactions.iter().map(|hash| format!("    {hash}")));
        }
        What::Balance {
            address,
            uremes,
            state_height,
        } => lines.push(format!(
            "{address} has {} after block {state_height}",
            remes(Amount::new(*uremes))
        )),
        What::Participants {
            nodes,
            state_height,
        } => {
            lines.push(format!("block validators: {}", verified.validators.len()));
            let signers = verified.validators.iter();
            lines.extend(signers.map(|info| format!("  {} power {}", info.address, info.power)));
            lines.push(format!(
                "{} nodes after block {state_height} (each is proved; that none is left out is not)",
                nodes.len()
            ));
            lines.extend(nodes.iter().map(|node| {
                format!(
                    "  {} {} {} bonded {}",
                    node.address,
                    node.status,
                    node.roles.join(","),
                    remes(Amount::new(node.bonded_uremes))
                )
            }));
        }
    }
    lines.join("\n")
}
