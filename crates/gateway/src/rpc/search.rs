//! `tx_search` and `block_search` under engine `local`: transactions by hash, height and their events,
//! blocks by height and theirs.
//!
//! Conditions are CometBFT's, joined by `AND`: `tx.hash='..'`, `tx.height>=5`, `block.height<9`,
//! `transfer.sender='..'`.
//! Events are looked for in the blocks themselves, so a search without a hash looks at a bounded number
//! of heights.

use std::ops::RangeInclusive;

use r3mes_consensus::application::Event;
use r3mes_consensus::block::tx_hash;
use r3mes_consensus::local::TxInfo;
use serde_json::{Value, json};

use crate::rpc::methods::{page_of, tx_proof};
use crate::rpc::request::{Params, RpcError};
use crate::rpc::serve::Service;
use crate::rpc::shapes;

/// Heights that one search looks at.
const MAX_HEIGHTS: u64 = 10_000;
/// Conditions of one search.
const MAX_CONDITIONS: usize = 16;

/// Where a transaction is: height and place in the block.
type Place = (u64, u32);

/// Which condition on heights a search understands.
const TX_HEIGHT: &str = "tx.height";
const BLOCK_HEIGHT: &str = "block.height";

/// What is looked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    hash: Option<[u8; 32]>,
    lowest: u64,
    highest: Option<u64>,
    /// Kind and attribute of an event joined by a dot, and the value; none for any.
    events: Vec<(String, Option<String>)>,
}

/// Answers `tx_search`.
pub(super) async fn tx_search(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let prove = params.flag("prove")?;
    let wanted = Wanted::parse(&params.text("query")?, TX_HEIGHT)?;
    let mut found: Vec<Place> = match wanted.hash {
        Some(hash) => {
            let found = service.handle.tx(hash).await?.into_iter();
            let matching = found.filter(|info| wanted.matches(info));
            matching.map(|info| (info.height, info.index)).collect()
        }
        None => wanted.txs(service).await?,
    };
    let page = page(&mut found, params, "asc")?;
    let txs = at(service, page, prove).await?;
    Ok(json!({"txs": txs, "total_count": found.len().to_string()}))
}

/// Answers `block_search`.
pub(super) async fn block_search(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let wanted = Wanted::parse(&params.text("query")?, BLOCK_HEIGHT)?;
    let mut found = wanted.blocks(service).await?;
    let mut blocks = Vec::new();
    for height in page(&mut found, params, "desc")? {
        if let Some(signed) = service.handle.block(height).await? {
            blocks.push(shapes::block(&signed));
        }
    }
    Ok(json!({"blocks": blocks, "total_count": found.len().to_string()}))
}

/// The page of `found` (ascending) that is asked for, in the order that is, or else in the usual one.
fn page<T: Copy>(found: &mut [T], params: &Params, usual_order: &str) -> Result<Vec<T>, RpcError> {
    let asked = params.text("order_by")?;
    let order = if asked.is_empty() {
        usual_order
    } else {
        &asked
    };
    match order {
        "asc" => (),
        "desc" => found.reverse(),
        _ => {
            let why = "expected order_by to be either `asc` or `desc` or empty";
            return Err(RpcError::internal(why));
        }
    }
    Ok(found[page_of(params, found.len())?].to_vec())
}

/// The transactions at these places, each block read once where neighbours share it.
async fn at(service: &Service, places: Vec<Place>, prove: bool) -> Result<Vec<Value>, RpcError> {
    let mut txs = Vec::new();
    for places in places.chunk_by(|a, b| a.0 == b.0) {
        let height = places[0].0;
        let output = service.handle.block_results(height).await?;
        let signed = service.handle.block(height).await?;
        let (Some(output), Some(signed)) = (output, signed) else {
            // Pruned since it was found.
            continue;
        };
        for &(_, index) in places {
            let place = index as usize;
            let tx = signed.block.data.get(place);
            if let Some((tx, result)) = tx.zip(output.tx_results.get(place)) {
                let mut found = shapes::tx(&TxInfo {
                    hash: tx_hash(tx),
                    height,
                    index,
                    tx: tx.clone(),
                    result: result.clone(),
                });
                if prove {
                    found["proof"] = tx_proof(&signed, place);
                }
                txs.push(found);
            }
        }
    }
    Ok(txs)
}

impl Wanted {
    /// Reads a query in which heights are called `height`; only transactions have a hash.
    fn parse(query: &str, height: &str) -> Result<Self, RpcError> {
        let conditions: Vec<&str> = query.split(" AND ").map(str::trim).collect();
        if query.trim().is_empty() || conditions.len() > MAX_CONDITIONS {
            let why = format!("query must have 1 to {MAX_CONDITIONS} conditions joined by AND");
            return Err(RpcError::internal(why));
        }
        let mut wanted = Self::default();
        for condition in conditions {
            wanted.add(condition, height).ok_or_else(|| {
                let hash = if height == TX_HEIGHT { "tx.hash='HASH', " } else { "" };
                RpcError::internal(format!(
                    "the condition {condition:?} is not one of {hash}{height}=N (or >=, >, <=, <), KIND.KEY='VALUE', KIND.KEY EXISTS"
                ))
            })?;
        }
        Ok(wanted)
    }

    fn add(&mut self, condition: &str, height: &str) -> Option<()> {
        if let Some(name) = condition.strip_suffix(" EXISTS") {
            self.events.push((name.trim().to_owned(), None));
            return Some(());
        }
        let at = condition.find(['=', '<', '>'])?;
        let (name, rest) = condition.split_at(at);
        let operators = [">=", "<=", "=", ">", "<"];
        let operator = operators
            .into_iter()
            .find(|known| rest.starts_with(known))?;
        let value = rest[operator.len()..].trim().trim_matches('\'');
        match (name.trim(), operator) {
            ("tx.hash", "=") if height == TX_HEIGHT => {
                self.hash = Some(hex::decode(value).ok()?.try_into().ok()?);
            }
            (name, operator) if name == height => {
                let at: u64 = value.parse().ok()?;
                let (lowest, highest) = match operator {
                    "=" => (at, Some(at)),
                    ">=" => (at, None),
                    ">" => (at.checked_add(1)?, None),
                    "<=" => (0, Some(at)),
                    _ => (0, Some(at.checked_sub(1)?)),
                };
                self.lowest = self.lowest.max(lowest);
                self.highest = self.highest.into_iter().chain(highest).min();
            }
            (name, "=") if name.contains('.') => {
                self.events.push((name.to_owned(), Some(value.to_owned())));
            }
            _ => return None,
        }
        Some(())
    }

    /// The heights to look at.
    async fn heights(
        &self,
        service: &Service,
        height: &str,
    ) -> Result<RangeInclusive<u64>, RpcError> {
        let status = service.handle.status().await?;
        let newest = status.latest.height;
        let lowest = self.lowest.max(status.earliest.unwrap_or(newest + 1));
        let highest = self.highest.unwrap_or(newest).min(newest);
        if highest.saturating_sub(lowest) >= MAX_HEIGHTS {
            return Err(RpcError::internal(format!(
                "a search looks at no more than {MAX_HEIGHTS} heights: add {height}>={}",
                highest + 1 - MAX_HEIGHTS
            )));
        }
        Ok(lowest..=highest)
    }

    async fn blocks(&self, service: &Service) -> Result<Vec<u64>, RpcError> {
        let mut found = Vec::new();
        for height in self.heights(service, BLOCK_HEIGHT).await? {
            let output = service.handle.block_results(height).await?;
            if output.is_some_and(|output| self.has(&output.events)) {
                found.push(height);
            }
        }
        Ok(found)
    }

    async fn txs(&self, service: &Service) -> Result<Vec<Place>, RpcError> {
        let mut found = Vec::new();
        for height in self.heights(service, TX_HEIGHT).await? {
            let Some(output) = service.handle.block_results(height).await? else {
                continue;
            };
            let results = (0..).zip(&output.tx_results);
            let matching = results.filter(|(_, result)| self.has(&result.events));
            found.extend(matching.map(|(index, _)| (height, index)));
        }
        Ok(found)
    }

    fn matches(&self, info: &TxInfo) -> bool {
        let in_range =
            info.height >= self.lowest && self.highest.is_none_or(|highest| info.height <= highest);
        in_range && self.has(&info.result.events)
    }

    /// Whether every condition on events is met by some event.
    fn has(&self, events: &[Event]) -> bool {
        self.events.iter().all(|(name, value)| {
            events.iter().any(|event| {
                event.attributes.iter().any(|(key, found)| {
                    name.strip_prefix(event.kind.as_str())
                        .and_then(|rest| rest.strip_prefix('.'))
                        .is_some_and(|wanted| wanted == key)
                        && value.as_ref().is_none_or(|value| value == found)
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_cometbft_writes_them() {
        let hash = "AB".repeat(32);
        let wanted = Wanted::parse(&format!("tx.hash='{hash}'"), TX_HEIGHT).unwrap();
        assert_eq!(wanted.hash, Some([0xab; 32]));
        let query =
            "transfer.sender='remes1a' AND tx.height>=5 AND tx.height < 9 AND tx.fee EXISTS";
        let wanted = Wanted::parse(query, TX_HEIGHT).unwrap();
        assert_eq!((wanted.lowest, wanted.highest), (5, Some(8)));
        let sender = ("transfer.sender".to_owned(), Some("remes1a".to_owned()));
        assert_eq!(wanted.events, [sender, ("tx.fee".to_owned(), None)]);
        for wrong in ["", "tx.hash='zz'", "tx.height=a", "sender", "a.b>5"] {
            assert!(Wanted::parse(wrong, TX_HEIGHT).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn blocks_are_looked_for_by_their_own_height() {
        let wanted = Wanted::parse("block.height>3 AND block.height<=7", BLOCK_HEIGHT).unwrap();
        assert_eq!((wanted.lowest, wanted.highest), (4, Some(7)));
        let refusal = Wanted::parse("block.height=a", BLOCK_HEIGHT).unwrap_err();
        assert!(format!("{refusal:?}").contains("block.height"));
        // What is neither is an event, as in CometBFT.
        let wanted = Wanted::parse("tx.height=3", BLOCK_HEIGHT).unwrap();
        assert_eq!(
            wanted.events,
            [("tx.height".to_owned(), Some("3".to_owned()))]
        );
    }

    #[test]
    fn an_event_matches_by_kind_key_and_value() {
        let events = [Event {
            kind: "transfer".into(),
            attributes: vec![("sender".into(), "a".into()), ("amount".into(), "5".into())],
        }];
        let has = |query| Wanted::parse(query, TX_HEIGHT).unwrap().has(&events);
        assert!(has("transfer.sender='a' AND transfer.amount='5'"));
        assert!(has("transfer.amount EXISTS"));
        assert!(!has("transfer.sender='b'"));
        assert!(!has("transfer.recipient EXISTS"));
        assert!(!has("transfers.sender='a'"));
    }
}
