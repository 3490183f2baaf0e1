//! What happens in a block, as CometBFT tells it to subscribers.
//!
//! The validators are always those of the genesis here, and none is ever found guilty, so nothing is told
//! of changes of the set and of evidence.

mod query;
mod syntax;

use std::collections::BTreeMap;

use r3mes_consensus::application::{BlockOutput, Event};
use r3mes_consensus::block::{SignedBlock, tx_hash};
use serde_json::{Value, json};

pub(super) use query::EventQuery;

use crate::rpc::shapes;

/// Key of an event's kind.
const KIND: &str = "tm.event";

/// Something that subscribers hear of.
pub(super) struct Happened {
    /// What it is, in CometBFT's shape.
    pub(super) data: Value,
    /// Values by key, for queries.
    pub(super) events: BTreeMap<String, Vec<String>>,
}

impl Happened {
    /// Something of a kind, with what the ledger told about it.
    fn new(kind: &str, value: Value, told: &[Event]) -> Self {
        let mut happened = Self {
            data: json!({"type": format!("tendermint/event/{kind}"), "value": value}),
            events: BTreeMap::new(),
        };
        for event in told.iter().filter(|event| !event.kind.is_empty()) {
            for (name, value) in event.attributes.iter().filter(|(name, _)| !name.is_empty()) {
                happened.add(format!("{}.{name}", event.kind), value.clone());
            }
        }
        happened.add(KIND.to_owned(), kind.to_owned());
        happened
    }

    fn add(&mut self, key: String, value: String) {
        self.events.entry(key).or_default().push(value);
    }
}

/// Everything that a block tells, in CometBFT's order.
pub(super) fn of_block(signed: &SignedBlock, output: &BlockOutput) -> Vec<Happened> {
    let height = signed.height();
    let mut block = shapes::block(signed);
    block["result_finalize_block"] = shapes::finalized(output);
    let header = json!({"header": shapes::header(&signed.block.header)});
    let summary = json!({
        "height": height.to_string(),
        "events": shapes::told(&output.events),
        "num_txs": signed.block.data.len().to_string(),
    });
    let mut all = vec![
        Happened::new("NewBlock", block, &output.events),
        Happened::new("NewBlockHeader", header, &[]),
        Happened::new("NewBlockEvents", summary, &output.events),
    ];
    let txs = signed.block.data.iter().zip(&output.tx_results);
    for (index, (tx, result)) in txs.enumerate() {
        let value = json!({"TxResult": shapes::told_tx(height, index, tx, result)});
        let mut one = Happened::new("Tx", value, &result.events);
        one.add("tx.hash".to_owned(), shapes::hex(&tx_hash(tx)));
        one.add("tx.height".to_owned(), height.to_string());
        all.push(one);
    }
    all
}
