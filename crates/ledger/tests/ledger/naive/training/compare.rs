//! Everything that can be asked about training, held against the model.

use std::collections::BTreeMap;

use r3mes_ledger::bank::{Module, SUPPLY};
use r3mes_types::models::QueryModel;
use r3mes_types::nodes::QuerySlashes;
use r3mes_types::rewards::{QueryTrust, QueryVesting};
use r3mes_types::training::{
    Audit as LedgerAudit, Entry as LedgerEntry, Obligation, Phase, QueryObligations, QueryRound,
    QueryRun, RoundRecord,
};
use r3mes_types::{Address, Hash};

use super::model::Naive;
use super::round::{Audit, Entry, Round};
use super::{NODES, RUN};
use crate::chain::{Chain, address};
use crate::naive::rewards::model::Record;

pub(super) fn compare(chain: &Chain, naive: &Naive) {
    let module = |module: Module| chain.balance(&module.address()).uremes();
    assert_eq!(
        module(Module::Treasury),
        naive.stakes.purse.treasury,
        "the treasury"
    );
    assert_eq!(
        module(Module::Slashed),
        naive.stakes.held_slashes(),
        "what is slashed"
    );
    let slashes = chain.query(&QuerySlashes::default()).slashes;
    let slashes = slashes
        .iter()
        .map(|slash| (slash.amount.uremes(), slash.status));
    let expected = naive.stakes.slashes.iter();
    let expected = expected.map(|slash| (slash.amount, slash.status));
    assert!(slashes.eq(expected), "the slashes");
    assert_eq!(module(Module::Rewards), 0, "what is issued is divided");
    let supply = SUPPLY.get(&chain.view()).unwrap().unwrap();
    assert_eq!(supply.uremes(), naive.stakes.purse.supply, "the supply");
    for (index, ..) in NODES {
        compare_node(chain, naive, index);
    }
    let run = chain.query(&QueryRun { run: RUN });
    assert_eq!(
        (run.status, run.open),
        (naive.status, naive.open().is_some())
    );
    assert_eq!(
        (run.round, run.oldest_kept),
        (naive.next(), naive.oldest_kept)
    );
    assert_eq!(run.adapter, naive.adapter);
    let id = Hash::of(b"model");
    let versions = chain.query(&QueryModel { id }).model.unwrap().versions;
    assert_eq!(versions, naive.versions, "versions of the model");
    let last = naive.rounds.last();
    if let Some(round) = last.filter(|round| round.number >= naive.oldest_kept) {
        compare_round(chain, round);
    }
    for round in &naive.rounds {
        let record = chain.query(&QueryRound {
            run: RUN,
            round: round.number,
        });
        let kept = round.number >= naive.oldest_kept;
        assert_eq!(record.head.is_some(), kept, "round {}", round.number);
        if kept {
            compare_second_audits(&record, round);
        }
    }
}

fn compare_node(chain: &Chain, naive: &Naive, index: u8) {
    let address = address(index);
    let balance = chain.balance(&address).uremes();
    assert_eq!(
        balance, naive.stakes.purse.balances[&address],
        "balance of {index}"
    );
    let vesting = chain.query(&QueryVesting { address }).parts;
    let vesting = vesting
        .iter()
        .map(|part| (part.due.nanos(), part.amount.uremes()));
    assert_eq!(
        vesting.collect::<BTreeMap<_, _>>(),
        naive.stakes.purse.vesting[&address],
        "vesting of {index}"
    );
    let (node, expected) = (chain.node(index), &naive.stakes.nodes[&address]);
    assert_eq!(node.bonded.uremes(), expected.bonded, "stake of {index}");
    assert_eq!(node.status, expected.status, "status of {index}");
    let disputes = naive.disputes(&address);
    assert_eq!(node.disputes as usize, disputes, "disputes of {index}");
    let locks = (node.locked.uremes(), node.locks as usize);
    assert_eq!(
        locks,
        (expected.locked(), expected.locks.len()),
        "locks of {index}"
    );
    let parts: Vec<u64> = node
        .unbonding
        .iter()
        .map(|part| part.amount.uremes())
        .collect();
    let expected: Vec<u64> = expected.unbonding.iter().map(|part| part.amount).collect();
    assert_eq!(parts, expected, "unbonding of {index}");
    let record = chain.query(&QueryTrust { address }).record;
    let found = Record {
        counts: [record.kept, record.missed, record.broken],
        trust: record.trust,
    };
    let expected = naive.records.get(&address).copied().unwrap_or_default();
    assert_eq!(found, expected, "record of {index}");
    let owed = chain.query(&QueryObligations { address }).obligations;
    let (again, owed): (Vec<_>, Vec<_>) = owed.iter().partition(|owed| owed.second);
    let about = |owed: &Obligation| owed.task.as_ref().map(|task| task.miner);
    let owed = owed.iter().map(|owed| (owed.kind, about(owed)));
    let expected = naive.open().map(|round| round.owed_by(&address));
    assert_eq!(
        owed.collect::<Vec<_>>(),
        expected.unwrap_or_default(),
        "owed by {index}"
    );
    let again = again
        .iter()
        .map(|owed| (owed.round, owed.kind, about(owed).unwrap()));
    let expected = naive.rounds.iter().flat_map(|round| {
        let owed = round.owed_again_by(&address).into_iter();
        owed.map(|(kind, miner)| (round.number, kind, miner))
    });
    assert_eq!(
        again.collect::<Vec<_>>(),
        expected.collect::<Vec<_>>(),
        "owed in second audits by {index}"
    );
}

fn compare_round(chain: &Chain, round: &Round) {
    let record = chain.query(&QueryRound {
        run: RUN,
        round: round.number,
    });
    let head = record.head.unwrap();
    assert_eq!(head.phase, round.phase);
    assert_eq!(head.start, round.start);
    if head.phase != Phase::Closed {
        let deadline = head.deadline.nanos();
        assert_eq!(deadline, round.deadline, "the deadline of {}", head.phase);
    }
    let counts = [head.audited, head.disputed, head.standing, head.assigned];
    let expected = [
        round.audited(),
        round.disputed(),
        round.standing(),
        round.entries.len(),
    ];
    assert_eq!(counts.map(|count| count as usize), expected);
    assert_eq!(
        head.proposal.map(|p| (p.proposer, p.aggregate)),
        round.proposal
    );
    assert_eq!(head.aggregate, round.aggregate);
    assert_eq!(head.slashed_proposers.to_vec(), round.wrong);
    assert_eq!(
        (head.paid.uremes(), head.slashed.uremes()),
        (round.paid, round.slashed)
    );
    assert_eq!(
        (head.duties, head.total_power),
        (round.owed, round.all_power())
    );
    assert_eq!(record.entries.len(), round.entries.len());
    for entry in &record.entries {
        compare_entry(entry, &round.entries[&entry.miner]);
    }
    // In turn, from wherever the first one is.
    let shards: Vec<u32> = record.entries.iter().map(|entry| entry.shard).collect();
    assert!(
        shards.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 2),
        "{shards:?}"
    );
    assert_eq!(record.duties.len(), round.duties.len());
    for duty in &record.duties {
        let expected = &round.duties[&duty.validator];
        let held: Option<Vec<Address>> = duty.held.as_ref().map(|held| held.miners.to_vec());
        assert_eq!(held, expected.held);
        assert_eq!(duty.aggregate, expected.aggregate);
        assert_eq!(
            duty.paid.uremes(),
            expected.paid,
            "pay of {}",
            duty.validator
        );
        assert_eq!(
            !duty.slashed.is_zero(),
            expected.refuted,
            "{}",
            duty.validator
        );
    }
    let votes = round
        .entries
        .values()
        .filter_map(|entry| entry.audit.as_ref());
    let votes: usize = votes.map(|audit| audit.votes.len()).sum();
    assert_eq!(record.court.len(), votes, "votes in court");
}

fn compare_entry(entry: &LedgerEntry, expected: &Entry) {
    assert_eq!(entry.feedback, expected.feedback);
    assert_eq!(entry.commitment, expected.commitment);
    assert_eq!(entry.package, expected.package);
    assert_eq!(entry.held, expected.held);
    assert_eq!(entry.outcome, expected.outcome, "{}", entry.miner);
    assert_eq!(entry.paid.uremes(), expected.paid, "pay of {}", entry.miner);
    compare_audit(entry.audit.as_ref(), expected.audit.as_ref());
}

fn compare_audit(audit: Option<&LedgerAudit>, expected: Option<&Audit>) {
    let (Some(audit), Some(expected)) = (audit, expected) else {
        assert!(audit.is_none() && expected.is_none());
        return;
    };
    assert_eq!(audit.served, expected.served);
    assert_eq!(audit.disputed, expected.disputed);
    let opened = audit.opened.iter().map(|leaf| (leaf.index, leaf.state));
    assert!(opened.eq(expected.opened.iter().map(|(leaf, state)| (*leaf, *state))));
    assert_eq!(audit.panel.len(), expected.panel.len());
    for seat in &audit.panel {
        let expected = &expected.panel[&seat.validator];
        assert_eq!(
            (seat.commitment, &seat.verdict),
            (expected.commitment, &expected.verdict)
        );
    }
}

fn compare_second_audits(record: &RoundRecord, round: &Round) {
    let mut votes = 0;
    for entry in &record.entries {
        let expected = round.entries[&entry.miner].second.as_ref();
        let (Some(second), Some(expected)) = (&entry.reaudit, expected) else {
            assert!(entry.reaudit.is_none() && expected.is_none());
            continue;
        };
        assert_eq!(
            (second.phase, second.outcome),
            (expected.phase, expected.outcome)
        );
        if second.phase != Phase::Closed {
            let deadline = second.deadline.nanos();
            assert_eq!(deadline, expected.deadline, "of {}", second.phase);
        }
        assert_eq!(
            (second.slashed.uremes(), second.paid.uremes()),
            (expected.slashed, expected.paid)
        );
        compare_audit(second.audit.as_ref(), expected.audit.as_ref());
        votes += expected.audit.as_ref().map_or(0, |audit| audit.votes.len());
    }
    assert_eq!(record.second_court.len(), votes, "votes in second courts");
}
