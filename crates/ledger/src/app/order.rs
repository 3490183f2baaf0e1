//! In which order transactions come into a block.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use r3mes_types::Address;
use r3mes_types::tx::Tx;

use super::{Known, parse, refusal};
use crate::auth::{self, Pending};
use crate::block::Lane;
use crate::error::Fault;
use crate::store::Context;

/// Orders candidates: at each place the best transaction that is next of its sender.
pub(super) fn order<'a>(
    ctx: &Context<'_>,
    candidates: &'a [Vec<u8>],
    known: Known<'_>,
) -> Result<Vec<Candidate<'a>>, Fault> {
    let mut senders: BTreeMap<Address, Queue<'a>> = BTreeMap::new();
    for (arrival, bytes) in candidates.iter().enumerate() {
        let Ok((tx, _)) = parse(bytes, known) else {
            continue;
        };
        let rank = rank(ctx, &tx, arrival)?;
        senders
            .entry(tx.signer())
            .or_default()
            .entry(tx.sequence)
            .or_insert((rank, bytes, tx));
    }
    let mut heads: BTreeSet<(Rank, Address)> = BTreeSet::new();
    for (sender, queue) in &senders {
        heads.extend(
            queue
                .first_key_value()
                .map(|(_, (rank, ..))| (*rank, *sender)),
        );
    }
    let mut ordered = Vec::with_capacity(candidates.len());
    while let Some((_, sender)) = heads.pop_first() {
        let Some(queue) = senders.get_mut(&sender) else {
            continue;
        };
        if let Some((_, (_, bytes, tx))) = queue.pop_first() {
            ordered.push((bytes, tx));
        }
        heads.extend(
            queue
                .first_key_value()
                .map(|(_, (rank, ..))| (*rank, sender)),
        );
    }
    Ok(ordered)
}

/// A transaction that may go into a block.
pub(super) type Candidate<'a> = (&'a [u8], Arc<Tx>);

/// The candidates of one sender by sequence.
type Queue<'a> = BTreeMap<u64, (Rank, &'a [u8], Arc<Tx>)>;

/// Place in a block, lower first: obligations before all, then by price, then by arrival.
type Rank = (bool, Reverse<u64>, usize);

fn rank(ctx: &Context<'_>, tx: &Tx, arrival: usize) -> Result<Rank, Fault> {
    let lane = auth::lane(ctx, tx, &Pending::in_block(true));
    let paid = !matches!(refusal(lane)?, Ok(Lane::Obligation(_)));
    Ok((paid, Reverse(auth::priority(tx)), arrival))
}
