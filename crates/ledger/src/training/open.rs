//! How a round opens: who takes part, and in which data.

use std::collections::BTreeMap;

use r3mes_types::nodes::Node;
use r3mes_types::training::{
    MAX_MINERS, MAX_VALIDATORS, Member, Members, Phase, Round, Run, RunParams,
};
use r3mes_types::wire::List;
use r3mes_types::{Address, Amount, Role};

use super::draw::Draw;
use super::events;
use super::state::{MEMBERS, RUNS, RoundId, put_round};
use crate::beacon;
use crate::error::LedgerError;
use crate::nodes;
use crate::store::Context;

/// Opens the run's next round if enough nodes are there with enough free stake.
pub(super) fn open_round(ctx: &mut Context<'_>, run: &mut Run) -> Result<bool, LedgerError> {
    let id = RoundId {
        run: run.id,
        round: run.round,
    };
    let beacon = beacon::last_mix(ctx)?;
    let mut draw = Draw::new(&beacon, id, "members", &[]);
    let Some(members) = choose_members(ctx, &run.params, &mut draw)? else {
        return Ok(false);
    };
    let params = &run.params;
    let round = Round {
        run: run.id,
        round: run.round,
        phase: Phase::Assign,
        opened_at: ctx.now(),
        deadline: ctx.now(),
        beacon,
        start: run.adapter.clone(),
        learning_rate: params.learning_rate(run.round),
        assigned: members.miners.len() as u32,
        total_power: members.validators.iter().map(|member| member.power).sum(),
        pending: 0,
        settling: false,
        cursor: 0,
        draw_height: 0,
        draw: None,
        audited: 0,
        disputed: 0,
        standing: members.miners.len() as u32,
        proposers: List::default(),
        attempt: 0,
        proposal: None,
        aggregate: None,
        duties: 0,
        unpaid: Amount::ZERO,
        paid: Amount::ZERO,
        slashed: Amount::ZERO,
        package_bytes: 0,
        closed_at: ctx.now(),
        tallies: List::default(),
        slashed_proposers: List::default(),
    };
    run.open = true;
    RUNS.put(ctx, &run.id, run)?;
    MEMBERS.put(ctx, &id, &members)?;
    put_round(ctx, &round)?;
    ctx.emit(events::round("training.open_round", id).with("miners", members.miners.len()));
    Ok(true)
}

/// Free stake that no role has been promised yet, per node.
struct FreeStake(BTreeMap<Address, Amount>);

impl FreeStake {
    /// Sets `amount` of a node's free stake aside, if there is so much.
    fn take(&mut self, address: &Address, free: Amount, amount: Amount) -> bool {
        let left = self.0.entry(*address).or_insert(free);
        match left.checked_sub(amount) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}

/// Nodes that can cover what they would owe, or none if they are too few. A node with several roles
/// needs stake for each.
///
/// A run that waits for nodes comes here in every block, so many of one role are not looked at while
/// another role has too few.
fn choose_members(
    ctx: &Context<'_>,
    params: &RunParams,
    draw: &mut Draw,
) -> Result<Option<Members>, LedgerError> {
    let needed = [
        (Role::Validator, params.min_validators),
        (Role::Proposer, 1),
        (Role::Miner, params.min_miners),
    ];
    for (role, least) in needed {
        if nodes::count(ctx, role)? < u64::from(least) {
            return Ok(None);
        }
    }
    let mut stake = FreeStake(BTreeMap::new());
    let penalties = &params.penalties;
    let mut able = |role, penalty| -> Result<Vec<Node>, LedgerError> {
        let mut candidates = nodes::active(ctx, role)?;
        candidates.retain(|node| stake.take(&node.address, node.free(), penalty));
        Ok(candidates)
    };
    let validators = members(able(Role::Validator, penalties.validator)?);
    if validators.len() < params.min_validators as usize {
        return Ok(None);
    }
    let addresses =
        |nodes: Vec<Node>| -> Vec<Address> { nodes.into_iter().map(|node| node.address).collect() };
    let proposers = addresses(able(Role::Proposer, penalties.proposer)?);
    if proposers.is_empty() {
        return Ok(None);
    }
    let proposers = ascending(draw.choose(&proposers, MAX_MINERS));
    let miners = addresses(able(Role::Miner, penalties.miner)?);
    if miners.len() < params.min_miners as usize {
        return Ok(None);
    }
    let miners = ascending(draw.choose(&miners, params.max_miners as usize));
    let bounded = "the lists were cut to their bounds";
    Ok(Some(Members {
        miners: List::new(miners).expect(bounded),
        validators,
        proposers: List::new(proposers).expect(bounded),
    }))
}

/// Nodes as validators with their power, ascending by address: the ones with the most stake when there
/// are too many.
pub(super) fn members(mut nodes: Vec<Node>) -> List<Member, MAX_VALIDATORS> {
    nodes.sort_by(|a, b| b.bonded.cmp(&a.bonded).then(a.address.cmp(&b.address)));
    nodes.truncate(MAX_VALIDATORS);
    let members = nodes.into_iter().map(|node| Member {
        validator: node.address,
        power: node.bonded.uremes(),
    });
    let mut members: Vec<Member> = members.collect();
    members.sort_by_key(|member| member.validator);
    List::new(members).expect("the list was cut to its bound")
}

fn ascending(mut addresses: Vec<Address>) -> Vec<Address> {
    addresses.sort();
    addresses
}
