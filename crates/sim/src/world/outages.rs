//! Nodes that are down for a while, and processes that die wherever they are.

use r3mes_training::agent::Action;
use r3mes_types::{Millis, Time};

use super::World;

/// Sets the stream of deaths apart from that of everything else.
pub(super) const DEATHS: u64 = 0x6465_6174_6873;
/// Longest that a process takes to be started again, in milliseconds.
const RESTART: u64 = 5_000;

impl World {
    /// Outages strike some nodes as a phase begins.
    pub(super) fn strike(&mut self) {
        let (now, open) = (self.chain.time(), self.open);
        for node in &mut self.nodes {
            if !self.rng.percent(self.weather.struck) {
                continue;
            }
            let outage = Millis::new(self.rng.between(1, self.weather.outage));
            node.away_until = now.after(outage);
            match self.rng.below(3) {
                0 => {} // cut off from the ledger
                1 if !node.is_bound(open) => node.lose_disk(),
                _ => node.crash(),
            }
        }
    }

    /// A process dies in an action: before anything of it is done, in the midst of training, or when
    /// all is done. What is on its disk is there when it is started again.
    pub(super) fn die_in(&mut self, index: usize, now: Time, action: Action) {
        self.crashes += 1;
        let node = &mut self.nodes[index];
        match (self.deaths.below(3), action) {
            (0, _) => {}
            (1, Action::Train(task)) => {
                let until = self.deaths.below(u64::from(task.steps)) as u32;
                node.train(&mut self.site, &task, Some(until));
            }
            (_, action) => {
                for message in node.act(&mut self.site, action) {
                    self.post(index, now, message);
                }
            }
        }
        let back = now.after(Millis::new(self.deaths.between(1, RESTART)));
        let node = &mut self.nodes[index];
        node.crash();
        node.away_until = node.away_until.max(back);
        self.wake_at(index, back);
    }
}
