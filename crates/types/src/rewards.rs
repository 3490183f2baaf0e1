//! Rewards: what is issued for closed rounds, and how much each node has shown to be worth.

use crate::{Address, Amount, queries, schema};

schema! {
    /// Parameters of rewards.
    #[derive(Copy)]
    pub struct RewardsParams {
        /// No coins are issued above this supply; a round's reward is cut to what is left below it.
        1 => max_supply: Amount,
    }

    /// What a node has done so far, counted by obligations.
    #[derive(Copy, Default)]
    pub struct Record {
        /// Kept.
        1 => kept: u64,
        /// Missed: no answer in time.
        2 => missed: u64,
        /// Broken: proved false.
        3 => broken: u64,
        /// Trust, from 0 to [`MAX_TRUST`].
        4 => trust: u32,
    }

    /// Asks for a node's record.
    #[derive(Copy)]
    pub struct QueryTrust {
        /// Whose.
        1 => address: Address,
    }

    /// A node's record, and the tier its trust stands for.
    #[derive(Copy)]
    pub struct Trust {
        /// Whose.
        1 => address: Address,
        /// What it has done.
        2 => record: Record,
        /// From 0 (unproven) to 3.
        3 => tier: u32,
    }
}

queries! {
    "/r3mes.rewards.v1.Query/Trust" => QueryTrust: Trust,
}

/// The highest trust.
pub const MAX_TRUST: u32 = 1_000;
