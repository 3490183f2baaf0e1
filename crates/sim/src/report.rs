//! What came out of a simulation.

use std::collections::BTreeMap;
use std::fmt;

use r3mes_types::{Address, Amount, Role};

use crate::behaviour::Behaviour;
use crate::watch::Tally;

/// One node in the end.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its account.
    pub address: Address,
    /// Its role.
    pub role: Role,
    /// How it behaved.
    pub behaviour: Behaviour,
    /// All it has.
    pub wealth: Amount,
    /// What was counted about it.
    pub tally: Tally,
}

/// The whole network in the end.
#[derive(Clone, Debug)]
pub struct Report {
    /// Rounds that closed.
    pub rounds: u32,
    /// Blocks made.
    pub blocks: u64,
    /// Partitions that have begun.
    pub partitions: u32,
    /// Processes that died in the midst of an action.
    pub crashes: u32,
    /// Messages that reached a block.
    pub messages: u64,
    /// Messages refused, by codespace and code.
    pub refused: BTreeMap<(String, u32), u64>,
    /// Steps of each round.
    pub steps: u32,
    /// The nodes: miners, validators, proposers.
    pub nodes: Vec<Standing>,
}

impl Report {
    /// The poorest honest node of a role.
    #[must_use]
    pub fn honest_twin(&self, role: Role) -> Option<&Standing> {
        let honest = self
            .nodes
            .iter()
            .filter(|n| n.role == role && n.behaviour.is_honest());
        honest.min_by_key(|node| node.wealth)
    }

    /// The nodes of one behaviour.
    pub fn of(&self, behaviour: Behaviour) -> impl Iterator<Item = &Standing> {
        self.nodes
            .iter()
            .filter(move |node| node.behaviour == behaviour)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds, {} blocks, {} messages, {} partitions, {} crashes",
            self.rounds, self.blocks, self.messages, self.partitions, self.crashes
        )?;
        for ((codespace, code), count) in &self.refused {
            writeln!(f, "refused with {codespace} {code}: {count}")?;
        }
        writeln!(
            f,
            "{:<10} {:<18} {:>8} {:>6} {:>6} {:>6} {:>8} {:>16}",
            "role", "behaviour", "accepted", "missed", "lied", "caught", "slashed", "uremes"
        )?;
        for node in &self.nodes {
            let tally = node.tally;
            writeln!(
                f,
                "{:<10} {:<18} {:>8} {:>6} {:>6} {:>6} {:>8} {:>16}",
                node.role.name(),
                node.behaviour.to_string(),
                tally.accepted,
                tally.missed,
                tally.lied,
                tally.caught,
                tally.slashed,
                node.wealth.uremes()
            )?;
        }
        Ok(())
    }
}
