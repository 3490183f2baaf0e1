//! Delays, losses and outages.

use r3mes_types::{Millis, Time};

use crate::network::Network;

/// How rough it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Longest delay of a message, in milliseconds.
    pub(crate) delay: u64,
    /// Messages arrive at multiples of this only, in milliseconds: those of a beat share a block.
    pub(crate) beat: u64,
    /// Messages lost, in percent.
    pub(crate) lost: u64,
    /// Messages that arrive twice, in percent.
    pub(crate) doubled: u64,
    /// Nodes struck by an outage as a phase begins, in percent.
    pub(crate) struck: u64,
    /// Longest outage, in milliseconds.
    pub(crate) outage: u64,
    /// Actions of an agent in which its process dies, in percent.
    pub(crate) deadly: u64,
}

impl Weather {
    /// Hardly any delay.
    pub(crate) const FAIR: Self = Self {
        delay: 5,
        beat: 1,
        lost: 0,
        doubled: 0,
        struck: 0,
        outage: 1,
        deadly: 0,
    };
    /// Delays of seconds, and messages that arrive twice.
    pub(crate) const SLOW: Self = Self {
        delay: 2_000,
        beat: 1_000,
        lost: 0,
        doubled: 5,
        struck: 0,
        outage: 1,
        deadly: 0,
    };
    /// Delays of seconds, losses, and nodes that are down for a while.
    pub(crate) const BAD: Self = Self {
        delay: 2_000,
        beat: 1,
        lost: 2,
        doubled: 5,
        struck: 4,
        outage: 20_000,
        deadly: 5,
    };

    /// What a network is to go through; where it is cut apart, the rest of it is slow only.
    pub(crate) const fn of(network: &Network) -> Self {
        match (network.weather, network.partitions.count) {
            (true, _) => Self::BAD,
            (false, 0) => Self::FAIR,
            (false, _) => Self::SLOW,
        }
    }

    /// When something that could arrive at `time` does.
    pub(crate) fn arrival(&self, time: Time) -> Time {
        let millis = time.since(Time::default()).millis();
        time.after(Millis::new(millis.next_multiple_of(self.beat) - millis))
    }
}
