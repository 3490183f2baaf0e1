//! What happens in a block as CometBFT tells it to subscribers, and the queries that choose from it.
//!
//! A query is conditions joined by `AND`, each `KEY OPERATOR VALUE`: `tm.event = 'Tx'`,
//! `tx.height > 5`, `transfer.recipient CONTAINS 'remes1'`, `slash.node EXISTS`. A condition holds if
//! one of the values under its key makes it true.

use std::collections::BTreeMap;

use r3mes_consensus::application::{BlockOutput, Event};
use r3mes_consensus::block::{SignedBlock, tx_hash};
use serde_json::{Value, json};

use crate::rpc::shapes;

/// Longest query, as in CometBFT.
const MAX_QUERY_BYTES: usize = 512;
/// Kinds of events that there are here.
const KINDS: [&str; 3] = ["NewBlock", "NewBlockHeader", "Tx"];
/// Key of an event's kind.
const KIND: &str = "tm.event";

/// Something that subscribers hear of.
pub(super) struct Happened {
    /// What it is, in CometBFT's shape.
    pub(super) data: Value,
    /// Values by key, for queries.
    pub(super) events: BTreeMap<String, Vec<String>>,
}

/// Which events somebody wants to hear of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EventQuery(Vec<Condition>);

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Text(String),
    Number(Compared, f64),
    Contains(String),
    Exists,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compared {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Everything that a block tells, in CometBFT's order.
pub(super) fn of_block(signed: &SignedBlock, output: &BlockOutput) -> Vec<Happened> {
    let height = signed.height();
    let happened = |kind: &str, value: Value, tell: &[&[Event]]| {
        let mut events = BTreeMap::from([(KIND.to_owned(), vec![kind.to_owned()])]);
        for event in tell.iter().flat_map(|events| events.iter()) {
            for (name, value) in &event.attributes {
                let key = format!("{}.{name}", event.kind);
                events.entry(key).or_default().push(value.clone());
            }
        }
        let data = json!({"type": format!("tendermint/event/{kind}"), "value": value});
        Happened { data, events }
    };
    let mut block = shapes::block(signed);
    block["result_finalize_block"] = shapes::finalized(output);
    let header = json!({"header": shapes::header(&signed.block.header)});
    let mut all = vec![
        happened("NewBlock", block, &[&output.events]),
        happened("NewBlockHeader", header, &[]),
    ];
    let txs = signed.block.data.iter().zip(&output.tx_results);
    for (index, (tx, result)) in txs.enumerate() {
        let value = json!({"TxResult": {
            "height": height.to_string(),
            "index": index,
            "tx": shapes::base64(tx),
            "result": shapes::tx_result(result),
        }});
        let mut one = happened("Tx", value, &[&result.events]);
        let hash = shapes::hex(&tx_hash(tx));
        one.events.insert("tx.hash".to_owned(), vec![hash]);
        one.events
            .insert("tx.height".to_owned(), vec![height.to_string()]);
        all.push(one);
    }
    all
}

impl EventQuery {
    /// Parses a query.
    ///
    /// # Errors
    /// Says what is not understood.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_QUERY_BYTES {
            return Err(format!("a query has at most {MAX_QUERY_BYTES} bytes"));
        }
        let words = words(text)?;
        if words.is_empty() {
            return Err("a query has a condition, such as tm.event = 'NewBlock'".to_owned());
        }
        let conditions = words
            .split(|word| *word == Word::Bare("AND".to_owned()))
            .map(condition);
        let conditions: Vec<Condition> = conditions.collect::<Result<_, _>>()?;
        for condition in conditions.iter().filter(|condition| condition.key == KIND) {
            if let Test::Text(kind) = &condition.test
                && !KINDS.contains(&kind.as_str())
            {
                return Err(format!(
                    "there are no events {kind:?} here, only {}",
                    KINDS.join(", ")
                ));
            }
        }
        Ok(Self(conditions))
    }

    /// Whether an event is wanted.
    pub(super) fn wants(&self, happened: &Happened) -> bool {
        self.0.iter().all(|condition| {
            let values = happened.events.get(&condition.key);
            values.is_some_and(|values| values.iter().any(|value| condition.test.holds(value)))
        })
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Text(text) => value == text,
            Self::Contains(part) => value.contains(part.as_str()),
            Self::Exists => true,
            Self::Number(compared, number) => {
                value.parse::<f64>().is_ok_and(|value| match compared {
                    Compared::Equal => value == *number,
                    Compared::Less => value < *number,
                    Compared::LessOrEqual => value <= *number,
                    Compared::Greater => value > *number,
                    Compared::GreaterOrEqual => value >= *number,
                })
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    Bare(String),
    Quoted(String),
    Sign(String),
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' => {
                let Some(end) = rest[1..].find('\'') else {
                    return Err("a text in quotes does not end".to_owned());
                };
                words.push(Word::Quoted(rest[1..=end].to_owned()));
                end + 2
            }
            '=' | '<' | '>' => {
                let length = rest
                    .find(|letter| !matches!(letter, '=' | '<' | '>'))
                    .unwrap_or(rest.len());
                words.push(Word::Sign(rest[..length].to_owned()));
                length
            }
            _ => {
                let ends = |letter: char| {
                    letter.is_whitespace() || matches!(letter, '=' | '<' | '>' | '\'')
                };
                let length = rest.find(ends).unwrap_or(rest.len());
                words.push(Word::Bare(rest[..length].to_owned()));
                length
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

fn condition(words: &[Word]) -> Result<Condition, String> {
    let (key, test) = match words {
        [Word::Bare(key), Word::Bare(exists)] if exists == "EXISTS" => (key, Test::Exists),
        [Word::Bare(key), Word::Bare(contains), Word::Quoted(part)] if contains == "CONTAINS" => {
            (key, Test::Contains(part.clone()))
        }
        [Word::Bare(key), Word::Sign(sign), Word::Quoted(text)] if sign == "=" => {
            (key, Test::Text(text.clone()))
        }
        [Word::Bare(key), Word::Sign(sign), Word::Bare(number)] => {
            let compared = match sign.as_str() {
                "=" => Compared::Equal,
                "<" => Compared::Less,
                "<=" => Compared::LessOrEqual,
                ">" => Compared::Greater,
                ">=" => Compared::GreaterOrEqual,
                other => return Err(format!("{other:?} compares nothing")),
            };
            let number = number.parse();
            let number = number.map_err(|_| "a text stands in single quotes".to_owned())?;
            (key, Test::Number(compared, number))
        }
        _ => {
            return Err(
                "a condition is KEY = 'TEXT', KEY < NUMBER, KEY CONTAINS 'TEXT' or KEY EXISTS"
                    .to_owned(),
            );
        }
    };
    Ok(Condition {
        key: key.clone(),
        test,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(events: &[(&str, &str)]) -> Happened {
        let events = events.iter();
        let one = |(key, value): &(&str, &str)| ((*key).to_owned(), vec![(*value).to_owned()]);
        Happened {
            data: Value::Null,
            events: events.map(one).collect(),
        }
    }

    #[test]
    fn a_query_chooses_by_text_number_part_and_presence() {
        let tx = happened(&[("tm.event", "Tx"), ("tx.height", "7"), ("a.b", "x AND y")]);
        for (query, wanted) in [
            ("tm.event='Tx'", true),
            ("tm.event = 'NewBlock'", false),
            ("tm.event='Tx' AND tx.height=7", true),
            ("tm.event='Tx' AND tx.height>7", false),
            ("tx.height >= 7 AND tx.height <= 7 AND tx.height < 8", true),
            ("a.b='x AND y'", true),
            ("a.b CONTAINS 'AND'", true),
            ("a.b CONTAINS 'z'", false),
            ("a.b EXISTS", true),
            ("a.c EXISTS", false),
        ] {
            let parsed = EventQuery::parse(query).unwrap();
            assert_eq!(parsed.wants(&tx), wanted, "{query}");
        }
    }

    #[test]
    fn what_is_no_query_is_refused_with_the_reason() {
        let long = format!("a='{}'", "x".repeat(MAX_QUERY_BYTES));
        for (query, why) in [
            ("", "a condition"),
            ("tm.event", "a condition is"),
            ("tm.event='Tx", "does not end"),
            ("tm.event=Tx", "single quotes"),
            ("tx.height<>3", "compares nothing"),
            ("tm.event='Vote'", "no events \"Vote\""),
            ("tm.event='Tx' AND", "a condition is"),
            (&long, "at most"),
        ] {
            let error = EventQuery::parse(query).unwrap_err();
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
