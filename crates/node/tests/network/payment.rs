//! What a round pays, to the last uremes: computed from `docs/spec/round.md` and the round's public
//! record, and compared with what the ledger says it paid and with what the accounts hold.

use std::collections::BTreeMap;

use r3mes_gateway::rpc;
use r3mes_ledger::bank::Module;
use r3mes_types::{
    Address, Ppm,
    bank::QueryBalance,
    rewards::QueryVesting,
    training::{Entry, Outcome, QueryRound, QueryRun, RoundRecord, RunParams},
};

use super::{ROUNDS, RUN};

/// What a validator's duties weigh.
const HOLDING: u64 = 1;
const VERDICT: u64 = 4;
const COURT: u64 = 8;
const AGGREGATE: u64 = 2;

/// Uremes by account, spendable or vesting; those of the treasury with what was slashed, which comes
/// to it when no appeal can be made any more.
pub(crate) type Wealth = BTreeMap<Address, u64>;

/// What everybody has who takes part in the first round, and the treasury.
pub(crate) async fn wealth(ledger: &rpc::Client) -> Wealth {
    let members = record(ledger, 0).await.members.unwrap();
    let validators = members.validators.iter().map(|member| member.validator);
    let mut accounts: Vec<Address> = validators.collect();
    accounts.extend(members.miners.iter().chain(members.proposers.iter()));
    accounts.extend([Module::Treasury, Module::Slashed].map(Module::address));
    // After one and the same block: what has vested goes from one place to the other.
    let (height, _) = ledger.committed().await.unwrap();
    let mut wealth = Wealth::new();
    for address in accounts {
        let (balance, vesting) = (QueryBalance { address }, QueryVesting { address });
        let balance = ledger.query_at(&balance, Some(height)).await.unwrap();
        let vesting = ledger.query_at(&vesting, Some(height)).await.unwrap();
        wealth.insert(address, balance.amount.uremes() + vesting.total.uremes());
    }
    let slashed = wealth.remove(&Module::Slashed.address()).unwrap();
    *wealth.get_mut(&Module::Treasury.address()).unwrap() += slashed;
    wealth
}

/// Checks every payment of every round, and that nothing else has come to any account.
pub(crate) async fn check(ledger: &rpc::Client, before: &Wealth) {
    let params = ledger.query(&QueryRun { run: RUN }).await.unwrap().params;
    let mut expected = before.clone();
    for round in 0..ROUNDS as u32 {
        let record = record(ledger, round).await;
        let mut left = params.reward.uremes();
        for (address, amount) in payments(&params, &record) {
            let place = format!("round {round}, {address}");
            if let Some(entry) = record.entries.iter().find(|entry| entry.miner == address) {
                assert_eq!(entry.paid.uremes(), amount, "{place}");
            }
            if let Some(duty) = record.duties.iter().find(|duty| duty.validator == address) {
                assert_eq!(duty.paid.uremes(), amount, "{place}");
            }
            *expected.get_mut(&address).unwrap() += amount;
            left -= amount;
        }
        let summary = record.summary.unwrap();
        let paid = params.reward.uremes() - left;
        assert_eq!(summary.paid.uremes(), paid, "round {round}");
        // What nobody earned is the treasury's.
        let treasury = expected.get_mut(&Module::Treasury.address()).unwrap();
        *treasury += left + summary.slashed.uremes();
    }
    assert_eq!(wealth(ledger).await, expected);
}

async fn record(ledger: &rpc::Client, round: u32) -> RoundRecord {
    let question = QueryRound { run: RUN, round };
    ledger.query(&question).await.unwrap()
}

/// What a closed round owes everybody that took part in it.
fn payments(params: &RunParams, record: &RoundRecord) -> Wealth {
    let reward = params.reward.uremes();
    let head = record.head.as_ref().unwrap();
    let mut payments = Wealth::new();
    for entry in &record.entries {
        let pool = share(reward, params.split.miners);
        let accepted = entry.outcome == Some(Outcome::Accepted);
        let part = if accepted {
            pool / u64::from(head.assigned)
        } else {
            0
        };
        payments.insert(entry.miner, part);
    }
    let duties: BTreeMap<Address, Duties> = record
        .duties
        .iter()
        .map(|duty| (duty.validator, Duties::of(duty.validator, record)))
        .collect();
    let owed: u64 = duties.values().map(|duties| duties.owed).sum();
    for (validator, duties) in duties {
        let pool = share(reward, params.split.validators);
        payments.insert(validator, pool * duties.done / owed);
    }
    for proposer in &record.members.as_ref().unwrap().proposers {
        let posted = head.proposal.as_ref();
        let taken = posted.is_some_and(|posted| {
            posted.proposer == *proposer && Some(&posted.aggregate) == head.aggregate.as_ref()
        });
        let part = if taken {
            share(reward, params.split.proposer)
        } else {
            0
        };
        payments.insert(*proposer, part);
    }
    payments
}

/// A share of an amount, rounded down.
fn share(amount: u64, share: Ppm) -> u64 {
    amount * u64::from(share.millionths()) / 1_000_000
}

/// The weights of what one validator owed and did.
struct Duties {
    owed: u64,
    done: u64,
}

impl Duties {
    fn of(validator: Address, record: &RoundRecord) -> Self {
        let duty = record
            .duties
            .iter()
            .find(|duty| duty.validator == validator)
            .unwrap();
        assert!(duty.slashed.is_zero(), "{validator} was slashed");
        let mut duties = Self { owed: 0, done: 0 };
        duties.add(HOLDING, duty.held.is_some());
        let aggregate = &record.head.as_ref().unwrap().aggregate;
        let right = duty.aggregate.is_some() && duty.aggregate == *aggregate;
        duties.add(AGGREGATE, right);
        for entry in &record.entries {
            let Some(audit) = &entry.audit else { continue };
            for seat in audit
                .panel
                .iter()
                .filter(|seat| seat.validator == validator)
            {
                duties.add(VERDICT, seat.verdict.is_some());
            }
            if audit.disputed {
                duties.add(COURT, votes_with_the_quorum(validator, entry, record));
            }
        }
        duties
    }

    fn add(&mut self, weight: u64, done: bool) {
        self.owed += weight;
        self.done += if done { weight } else { 0 };
    }
}

/// Whether validators with more than 2/3 of the power voted the same as this one.
fn votes_with_the_quorum(validator: Address, entry: &Entry, record: &RoundRecord) -> bool {
    let votes = record.court.iter().filter(|vote| vote.miner == entry.miner);
    let votes: Vec<_> = votes.collect();
    let Some(own) = votes.iter().find(|vote| vote.validator == validator) else {
        return false;
    };
    let power = |validator: Address| {
        let duty = record
            .duties
            .iter()
            .find(|duty| duty.validator == validator);
        duty.unwrap().power
    };
    let same = votes
        .iter()
        .filter(|vote| vote.verdict.steps == own.verdict.steps);
    let agreeing: u64 = same.map(|vote| power(vote.validator)).sum();
    3 * agreeing > 2 * record.head.as_ref().unwrap().total_power
}
