//! What must hold after every block, and what is counted on the way.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use r3mes_ledger::bank::SUPPLY;
use r3mes_ledger::block::TxResult;
use r3mes_ledger::invariants::Totals;
use r3mes_ledger::store::Committed;
use r3mes_training::agent::RoundKey;
use r3mes_types::training::{Entry, Outcome, Phase, RoundRecord};
use r3mes_types::{Address, Amount, Event, Message, Millis, Time};

use crate::behaviour::Behaviour;
use crate::chain::Chain;
use crate::network::{Network, REWARD, WINDOW};
use crate::world::RUN;

/// Phases with a window, and turns of backup proposers: a round takes no longer.
const MAX_WINDOWS: u64 = 8 + 4;

/// So many blocks apart everything is added up anew. In between the sums follow the changes of each
/// block, which costs as little as the block itself; that they missed none shows when they are the same
/// as those of all that there is.
const RECOUNT: u64 = 256;

/// What becomes of work, true or not, while too few validators see the ledger to make a quorum.
fn nobodys_fault(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Unavailable | Outcome::Undecided)
}

/// What was counted about one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rounds in which its package was accepted.
    pub accepted: u32,
    /// Rounds in which it lied, and its package came as far as the draw.
    pub lied: u32,
    /// Those of them in which it was slashed.
    pub caught: u32,
    /// Rounds in which it took part and nothing came of it.
    pub missed: u32,
    /// How often it was slashed for anything.
    pub slashed: u32,
}

/// Holds the network to its promises.
pub struct Watch {
    honest: BTreeSet<Address>,
    behaviours: BTreeMap<Address, Behaviour>,
    steps: u32,
    /// Liars hold less than a third of the power: only then is anything promised.
    promised: bool,
    /// All coins after the last block.
    supply: Option<Amount>,
    open: BTreeMap<u32, Time>,
    /// Whether some node is cut off.
    cut: bool,
    /// Rounds in which some were.
    disturbed: BTreeSet<u32>,
    /// By round and node, of all rounds until the end: a payment that comes late is one too many as well.
    paid: BTreeSet<(u32, Address)>,
    tallies: BTreeMap<Address, Tally>,
    rounds: u32,
    refused: BTreeMap<(String, u32), u64>,
}

impl Watch {
    pub(crate) fn new(honest: BTreeSet<Address>, network: &Network) -> Self {
        Self {
            honest,
            behaviours: BTreeMap::new(),
            steps: network.steps,
            promised: network.liars_are_few(),
            supply: None,
            open: BTreeMap::new(),
            cut: false,
            disturbed: BTreeSet::new(),
            paid: BTreeSet::new(),
            tallies: BTreeMap::new(),
            rounds: 0,
            refused: BTreeMap::new(),
        }
    }

    /// Learns how a node behaves.
    pub(crate) fn know(&mut self, address: Address, behaviour: Behaviour) {
        self.behaviours.insert(address, behaviour);
    }

    /// Learns whether some node is cut off.
    pub(crate) fn cut(&mut self, cut: bool) {
        self.cut = cut;
        if cut {
            self.disturbed.extend(self.open.keys());
        }
    }

    /// Counts refused messages. That a message comes too late or twice is weather, not a fault; what an
    /// honest node says must never be malformed.
    pub(crate) fn results(&mut self, messages: &[Message], results: &[TxResult]) -> Result<()> {
        for (message, result) in messages.iter().zip(results) {
            if result.code == 0 {
                continue;
            }
            *self
                .refused
                .entry((result.codespace.clone(), result.code))
                .or_default() += 1;
            let late = matches!(
                (result.codespace.as_str(), result.code),
                // Another phase, round closed, another proposer's turn, no proposal yet.
                ("training", 2 | 3 | 10) | ("sdk", _)
            );
            ensure!(
                late || !self.honest.contains(&message.actor()),
                "an honest node's {} was refused: {}",
                message.type_url(),
                result.log
            );
        }
        Ok(())
    }

    /// Checks the chain's last block.
    pub(crate) fn block(&mut self, chain: &Chain, events: &[Event]) -> Result<()> {
        let now = chain.time();
        for event in events {
            self.event(now, event)
                .with_context(|| format!("{event:?}"))?;
        }
        let longest = Millis::new(WINDOW.millis() * MAX_WINDOWS);
        for (round, opened) in &self.open {
            ensure!(now <= opened.after(longest), "round {round} does not close");
        }
        chain.totals().check(chain.state())?;
        if chain.height().is_multiple_of(RECOUNT) {
            let counted = Totals::count(chain.state())?;
            ensure!(
                counted == *chain.totals(),
                "the sums missed a change: {counted:?}"
            );
        }
        self.supply_grows_by_rewards_alone(chain, events)
    }

    /// Coins are issued when a round is paid, its reward at most, and at no other time.
    fn supply_grows_by_rewards_alone(&mut self, chain: &Chain, events: &[Event]) -> Result<()> {
        let supply = SUPPLY.get(&Committed(chain.state()))?;
        let supply = supply.context("there are coins")?;
        let pays = |event: &&Event| {
            event.kind == "training.phase" && event.get("phase") == Some(Phase::Pay.name())
        };
        let rounds = events.iter().filter(pays).count() as u64;
        let before = self.supply.replace(supply).unwrap_or(supply);
        let issued = supply.checked_sub(before).context("coins are gone")?;
        let most = REWARD.uremes() * rounds;
        ensure!(
            issued.uremes() <= most,
            "{issued} were issued in a block that pays {rounds} rounds"
        );
        Ok(())
    }

    fn event(&mut self, now: Time, event: &Event) -> Result<()> {
        let address = || -> Result<Address> {
            Ok(event
                .get("address")
                .context("the event names a node")?
                .parse()?)
        };
        let round = || -> Result<u32> {
            Ok(event
                .get("round")
                .context("the event names a round")?
                .parse()?)
        };
        match event.kind {
            r3mes_ledger::hooks::HOOK_REFUSED => bail!("a hook of the ledger failed"),
            "training.open_round" => {
                self.open.insert(round()?, now);
                if self.cut {
                    self.disturbed.insert(round()?);
                }
            }
            "training.close_round" => {
                self.open.remove(&round()?);
                self.rounds += 1;
            }
            "training.paid" => {
                ensure!(self.paid.insert((round()?, address()?)), "paid twice");
            }
            "training.slashed" => {
                let honest = self.honest.contains(&address()?);
                ensure!(!(honest && self.promised), "an honest node was slashed");
                self.tallies.entry(address()?).or_default().slashed += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Judges a round that has closed. `lied` says whether a miner lied in it.
    pub(crate) fn closed(
        &mut self,
        record: &RoundRecord,
        number: u32,
        lied: impl Fn(RoundKey, Address) -> bool,
    ) -> Result<()> {
        let round = RoundKey {
            run: RUN,
            round: number,
        };
        let disturbed = self.disturbed.remove(&number);
        for entry in &record.entries {
            let lied = lied(round, entry.miner);
            let outcome = entry
                .outcome
                .context("a closed round has an outcome for all")?;
            if self.promised && self.honest.contains(&entry.miner) {
                ensure!(
                    outcome == Outcome::Accepted || (disturbed && nobodys_fault(outcome)),
                    "the work of honest {} in round {number} is {outcome}",
                    entry.miner
                );
            }
            if !(disturbed && nobodys_fault(outcome)) {
                self.must_be_caught(entry, outcome, lied)?;
            }
            let tally = self.tallies.entry(entry.miner).or_default();
            match outcome {
                Outcome::Accepted => tally.accepted += 1,
                Outcome::Fraudulent => {}
                _ => tally.missed += 1,
            }
            if lied && matches!(outcome, Outcome::Accepted | Outcome::Fraudulent) {
                tally.lied += 1;
                tally.caught += u32::from(outcome == Outcome::Fraudulent);
            }
        }
        Ok(())
    }

    /// Who lies in every step, or about the package, is slashed in the round when audited.
    fn must_be_caught(&self, entry: &Entry, outcome: Outcome, lied: bool) -> Result<()> {
        let behaviour = self.behaviours.get(&entry.miner).copied();
        let sure = behaviour.is_some_and(|b| b.is_caught_by_every_audit(self.steps));
        let judged = entry.audit.as_ref().is_some_and(|audit| {
            audit
                .panel
                .iter()
                .any(|seat| seat.verdict.is_some() && self.honest.contains(&seat.validator))
        });
        if self.promised && lied && sure && judged {
            ensure!(
                outcome == Outcome::Fraudulent,
                "{behaviour:?} was audited and is {outcome}"
            );
        }
        Ok(())
    }

    pub(crate) fn tally(&self, address: &Address) -> Tally {
        self.tallies.get(address).copied().unwrap_or_default()
    }

    pub(crate) const fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(crate) fn refused(&self) -> BTreeMap<(String, u32), u64> {
        self.refused.clone()
    }
}
