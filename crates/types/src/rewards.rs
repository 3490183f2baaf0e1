//! Rewards: what is issued for closed rounds, and how much each node has shown to be worth.

use crate::query::MAX_PAGE;
use crate::wire::List;
use crate::{Address, Amount, Millis, Time, queries, schema};

schema! {
    /// Parameters of rewards.
    #[derive(Copy)]
    pub struct RewardsParams {
        /// No coins are issued above this supply; a round's reward is cut to what is left below it.
        1 => max_supply: Amount,
        /// How long a reward is held before it is its owner's to spend; until then it can be slashed.
        /// Zero: not at all.
        2 => vesting: Millis,
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

    /// Asks for the rewards that an account has earned and cannot spend yet.
    #[derive(Copy)]
    pub struct QueryVesting {
        /// Whose.
        1 => address: Address,
    }

    /// Rewards that an account cannot spend yet.
    pub struct Vesting {
        /// Whose.
        1 => address: Address,
        /// All of them together.
        2 => total: Amount,
        /// By when they are paid, soonest first.
        3 => parts: List<VestingPart, MAX_PAGE>,
    }

    /// Rewards that are paid together.
    #[derive(Copy)]
    pub struct VestingPart {
        /// When.
        1 => due: Time,
        /// How much.
        2 => amount: Amount,
    }
}

queries! {
    "/r3mes.rewards.v1.Query/Trust" => QueryTrust: Trust,
    "/r3mes.rewards.v1.Query/Vesting" => QueryVesting: Vesting,
}

/// The highest trust.
pub const MAX_TRUST: u32 = 1_000;
