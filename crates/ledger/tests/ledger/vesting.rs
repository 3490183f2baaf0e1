//! Rewards that vest: held, slashed after the stake, paid when their time has come.

use r3mes_ledger::bank::{self, Module};
use r3mes_ledger::{Genesis, Ledger, nodes, rewards};
use r3mes_types::bank::Balance;
use r3mes_types::governance::{Change, MsgPropose};
use r3mes_types::nodes::{NodeStatus, QuerySlashes};
use r3mes_types::rewards::{QueryVesting, RewardsParams, Vesting};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Millis, Role, Time};

use crate::chain::{Chain, address, development, register};

const VESTING: Millis = Millis::seconds(160);
const ONE: Amount = Amount::remes(1);

fn founding(vesting: Millis) -> Genesis {
    let mut genesis = development();
    genesis.params.rewards.vesting = vesting;
    genesis
}

/// A chain that pays rewards out of what was issued for a round.
fn issuing(vesting: Millis) -> Chain {
    let mut chain = Chain::from(&founding(vesting));
    chain.block(Vec::new());
    chain
        .act(|ctx| bank::mint(ctx, Module::Rewards, Amount::remes(1_000)))
        .unwrap();
    chain
}

fn pay(chain: &mut Chain, to: Address, amount: Amount) {
    chain
        .act(|ctx| rewards::pay(ctx, Module::Rewards, &to, amount))
        .unwrap();
}

fn vesting(chain: &Chain, address: Address) -> Vesting {
    chain.query(&QueryVesting { address })
}

fn next(chain: &Chain) -> Option<Time> {
    Ledger::next_deadline(&chain.state).unwrap()
}

#[test]
fn a_reward_is_paid_when_its_time_has_come_and_not_before() {
    let mut chain = issuing(VESTING);
    let owner = address(1);
    let before = chain.balance(&owner);
    pay(&mut chain, owner, ONE);
    let earned_at = chain.time;
    chain.wait(Millis::seconds(25));
    pay(&mut chain, owner, Amount::remes(2));
    assert_eq!(chain.balance(&owner), before);
    let held = vesting(&chain, owner);
    assert_eq!(held.total, Amount::remes(3));
    let parts: Vec<Amount> = held.parts.iter().map(|part| part.amount).collect();
    assert_eq!(parts, [ONE, Amount::remes(2)]);
    let due = held.parts[0].due;
    assert!(due >= earned_at.after(VESTING));
    assert_eq!(next(&chain), Some(due));

    chain.time = Time::from_nanos(due.nanos() - 2_000_000);
    chain.block(Vec::new());
    assert_eq!(chain.balance(&owner), before);
    chain.block(Vec::new());
    assert_eq!(chain.balance(&owner), before.saturating_add(ONE));
    assert_eq!(vesting(&chain, owner).parts.len(), 1);
    chain.wait(Millis::seconds(40));
    let after = before.saturating_add(Amount::remes(3));
    assert_eq!(chain.balance(&owner), after);
    assert_eq!(
        (vesting(&chain, owner).total, next(&chain)),
        (Amount::ZERO, None)
    );
}

#[test]
fn rewards_of_nearly_the_same_time_are_one_part() {
    let mut chain = issuing(VESTING);
    let owner = address(1);
    for _ in 0..160 {
        pay(&mut chain, owner, Amount::new(7));
        chain.wait(Millis::new(999));
    }
    let held = vesting(&chain, owner);
    assert!(held.parts.len() <= 17, "{}", held.parts.len());
    assert_eq!(held.total, Amount::new(7 * 160));
}

#[test]
fn a_block_pays_so_many_parts_and_the_next_one_goes_on() {
    let mut chain = issuing(VESTING);
    let owners: Vec<Address> = (0..100).map(|n| Address::from([n; 20])).collect();
    for owner in &owners {
        pay(&mut chain, *owner, ONE);
    }
    let due = next(&chain).unwrap();
    chain.time = due;
    chain.block(Vec::new());
    let paid = |chain: &Chain| owners.iter().filter(|o| chain.balance(o) == ONE).count();
    assert_eq!((paid(&chain), next(&chain)), (64, Some(due)));
    chain.block(Vec::new());
    assert_eq!((paid(&chain), next(&chain)), (100, None));
}

#[test]
fn a_slash_takes_the_stake_first_and_then_what_vests_soonest() {
    let mut chain = issuing(VESTING);
    let node = address(1);
    chain.must(1, register(1, &[Role::Miner], Amount::remes(5)));
    pay(&mut chain, node, Amount::remes(2));
    chain.wait(Millis::seconds(25));
    pay(&mut chain, node, Amount::remes(4));
    let slash = |chain: &mut Chain, remes| {
        let amount = Amount::remes(remes);
        chain
            .act(|ctx| nodes::slash(ctx, &node, amount, "test"))
            .unwrap()
    };
    assert_eq!(slash(&mut chain, 4), Amount::remes(4));
    assert_eq!(vesting(&chain, node).total, Amount::remes(6), "stake first");
    assert_eq!(slash(&mut chain, 4), Amount::remes(4));
    let held = vesting(&chain, node);
    assert_eq!((held.parts.len(), held.total), (1, Amount::remes(3)));
    assert_eq!(chain.node(1).bonded, Amount::ZERO);
    assert_eq!(chain.node(1).status, NodeStatus::Jailed);
    assert_eq!(slash(&mut chain, 40), Amount::remes(3), "there is no more");
    assert_eq!(vesting(&chain, node).total, Amount::ZERO);
    assert_eq!(slash(&mut chain, 1), Amount::ZERO);

    let slashes = chain.query(&QuerySlashes::default()).slashes;
    let amounts: Vec<Amount> = slashes.iter().map(|slash| slash.amount).collect();
    assert_eq!(amounts, [4, 4, 3].map(Amount::remes));
    let treasury = Module::Treasury.address();
    let before = chain.balance(&treasury);
    chain.wait(Millis::seconds(60));
    let gained = chain.balance(&treasury).saturating_sub(before);
    assert_eq!(gained, Amount::remes(11));
    // Nothing is left to be paid.
    let balance = chain.balance(&node);
    chain.wait(Millis::seconds(400));
    assert_eq!(chain.balance(&node), balance);
}

#[test]
fn without_vesting_a_reward_is_paid_at_once() {
    let mut chain = issuing(Millis::default());
    let owner = address(1);
    let before = chain.balance(&owner);
    pay(&mut chain, owner, ONE);
    assert_eq!(chain.balance(&owner), before.saturating_add(ONE));
    assert_eq!(next(&chain), None);
}

#[test]
fn only_a_development_network_pays_at_once_and_none_vests_for_ever() {
    let refused = |genesis: &Genesis| Ledger::init_chain(genesis).is_err();
    let year = Millis::seconds(365 * 24 * 3600);
    assert!(!refused(&founding(Millis::default())) && !refused(&founding(year)));
    assert!(refused(&founding(Millis::new(year.millis() + 1))));
    let mut open = founding(Millis::default());
    open.params = r3mes_ledger::genesis::params(None, Amount::ZERO);
    open.balances = List::new(Vec::<Balance>::new()).unwrap();
    assert!(!refused(&open));
    open.params.rewards.vesting = Millis::default();
    assert!(refused(&open));
}

#[test]
fn a_changed_time_is_for_rewards_to_come() {
    let mut chain = issuing(VESTING);
    let owner = address(1);
    pay(&mut chain, owner, ONE);
    let due = vesting(&chain, owner).parts[0].due;
    let change = |vesting| MsgPropose {
        proposer: address(0),
        title: Text::new("vesting").unwrap(),
        change: Change::Rewards(RewardsParams {
            vesting,
            ..rewards::default_params()
        }),
    };
    chain.must(0, change(Millis::seconds(16)));
    pay(&mut chain, owner, ONE);
    let held = vesting(&chain, owner);
    assert_eq!(held.parts.len(), 2);
    assert!(held.parts[0].due <= chain.time.after(Millis::seconds(17)));
    assert_eq!(held.parts[1].due, due);
}
