//! Partitions: some nodes are cut off from the ledger, and come back.
//!
//! A node that is cut off goes on with the obligations that it saw last. What it sends waits on its way
//! until the partition heals, or is lost; what was on its way when it began arrives late. Bytes behind
//! CIDs stay within reach: it is the flow of messages to and from the ledger that is broken.

use std::collections::BTreeMap;

use r3mes_types::training::Obligation;
use r3mes_types::{Millis, Role, Time};

use crate::rng::Rng;

/// Pause between one partition and the next, in milliseconds: an honest miner that is cut off in both
/// has answered what it owes in between.
const PAUSE: (u64, u64) = (10_000, 15_000);
/// Miners, and proposers, that are cut off too, in percent.
const OTHERS: u64 = 30;
/// Messages of a node that is cut off which wait on their way, in percent; the others are lost.
const KEPT: u64 = 50;

/// How often a network is cut apart.
#[derive(Clone, Copy, Debug)]
pub struct Partitions {
    /// How many there are, one after another.
    pub count: u32,
    /// Longest time that validators and proposers are cut off.
    pub longest: Millis,
    /// Longest time that miners are: silence costs them their stake once it fills a window.
    pub longest_of_miners: Millis,
}

impl Partitions {
    /// So many partitions, none of which keeps a miner away for a whole window of a round.
    #[must_use]
    pub const fn of(count: u32) -> Self {
        Self {
            count,
            longest: Millis::seconds(90),
            longest_of_miners: Millis::seconds(20),
        }
    }
}

/// A node that is cut off.
struct Cut {
    until: Time,
    /// What it saw last.
    view: Vec<Obligation>,
}

/// The partitions of a network: those that are over, the one that there is, and those to come.
pub(crate) struct Schedule {
    partitions: Partitions,
    /// Randomness of its own: networks without partitions tell the same stories as ever.
    rng: Rng,
    begun: u32,
    next: Option<Time>,
    cuts: BTreeMap<usize, Cut>,
}

impl Schedule {
    pub(crate) fn new(seed: u64, partitions: Partitions, now: Time) -> Self {
        let mut rng = Rng::new(!seed);
        let next = (partitions.count > 0).then(|| now.after(pause(&mut rng)));
        Self {
            partitions,
            rng,
            begun: 0,
            next,
            cuts: BTreeMap::new(),
        }
    }

    /// How many partitions have begun.
    pub(crate) const fn begun(&self) -> u32 {
        self.begun
    }

    /// Whether some node is cut off.
    pub(crate) fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    /// Whether all partitions were and are healed.
    pub(crate) fn is_over(&self) -> bool {
        self.next.is_none() && self.cuts.is_empty()
    }

    /// When something begins or heals next.
    pub(crate) fn next_time(&self) -> Option<Time> {
        let heals = self.cuts.values().map(|cut| cut.until);
        heals.chain(self.next).min()
    }

    /// What a node that is cut off saw last, or `None` when it sees the ledger.
    pub(crate) fn view(&self, node: usize) -> Option<&[Obligation]> {
        self.cuts.get(&node).map(|cut| cut.view.as_slice())
    }

    /// The nodes that see the ledger again.
    pub(crate) fn heal(&mut self, now: Time) -> Vec<usize> {
        let healed = |cut: &Cut| cut.until <= now;
        let back: Vec<usize> = self
            .cuts
            .iter()
            .filter(|(_, cut)| healed(cut))
            .map(|(node, _)| *node)
            .collect();
        self.cuts.retain(|_, cut| !healed(cut));
        back
    }

    /// The nodes that a partition cuts off now, if one begins: between one validator and all of them.
    pub(crate) fn begin(&mut self, now: Time, roles: &[Role]) -> Vec<(usize, Time)> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        self.begun += 1;
        let of = |wanted: Role| (0..roles.len()).filter(move |node| roles[*node] == wanted);
        let validators: Vec<usize> = of(Role::Validator).collect();
        let count = self.rng.between(1, validators.len() as u64) as u32;
        let chosen = self.rng.choose(validators.len() as u32, count);
        let mut cut: Vec<(usize, Millis)> = chosen
            .into_iter()
            .map(|place| (validators[place as usize], self.partitions.longest))
            .collect();
        for (role, longest) in [
            (Role::Miner, self.partitions.longest_of_miners),
            (Role::Proposer, self.partitions.longest),
        ] {
            cut.extend(
                of(role)
                    .filter(|_| self.rng.percent(OTHERS))
                    .map(|node| (node, longest)),
            );
        }
        // Half of them are long.
        let longest = match self.rng.below(2) {
            0 => self.partitions.longest,
            _ => self
                .partitions
                .longest_of_miners
                .min(self.partitions.longest),
        };
        let length = self.rng.between(1, longest.millis());
        let until = |longest: Millis| now.after(Millis::new(length.min(longest.millis())));
        let more = self.begun < self.partitions.count;
        let healed = now.after(Millis::new(length));
        self.next = more.then(|| healed.after(pause(&mut self.rng)));
        cut.into_iter()
            .map(|(node, longest)| (node, until(longest)))
            .collect()
    }

    /// Cuts a node off with what it saw last.
    pub(crate) fn cut(&mut self, node: usize, until: Time, view: Vec<Obligation>) {
        self.cuts.insert(node, Cut { until, view });
    }

    /// When a message of this node sets out: at once, when the partition heals, or never.
    pub(crate) fn departure(&mut self, node: usize, now: Time) -> Option<Time> {
        match self.cuts.get(&node) {
            None => Some(now),
            Some(cut) => self.rng.percent(KEPT).then_some(cut.until),
        }
    }
}

fn pause(rng: &mut Rng) -> Millis {
    Millis::new(rng.between(PAUSE.0, PAUSE.1))
}
