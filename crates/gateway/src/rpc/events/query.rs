//! The language in which subscribers choose events, as CometBFT 0.38 reads it (`libs/pubsub/query`):
//! the same queries are taken, with the same meaning, and refused in the same words.
//!
//! A query is conditions joined by `AND`, each `KEY OPERATOR VALUE`: `tm.event = 'Tx'`,
//! `tx.height > 5`, `transfer.recipient CONTAINS 'remes1'`, `slash.node EXISTS`,
//! `a.b < TIME 2026-01-01T00:00:00Z`, `a.b = DATE 2026-01-01`. A condition holds if one of the values
//! under its key makes it true. A key that is only the kind of an event holds an empty text.

use std::fmt;

use tendermint::Time;

use super::Happened;
use super::syntax::Scanner;

/// Which events somebody wants to hear of.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rpc) struct EventQuery(Vec<Condition>);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) key: String,
    pub(super) test: Test,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    Exists,
    Contains(String),
    Is(String),
    Compares(Sign, Operand),
}

/// What a value is compared with, as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Number(String),
    Time(String),
    Date(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl EventQuery {
    /// Parses a query.
    ///
    /// # Errors
    /// Says what is not understood, in CometBFT's words.
    pub(in crate::rpc) fn parse(text: &str) -> Result<Self, String> {
        let conditions = Scanner::new(text).conditions();
        let conditions = conditions.map_err(|why| format!("failed to parse query: {why}"))?;
        Ok(Self(conditions))
    }

    /// Whether an event is wanted.
    pub(in crate::rpc) fn wants(&self, happened: &Happened) -> bool {
        self.0.iter().all(|condition| {
            happened.events.iter().any(|(key, values)| {
                let kind = key.rsplit_once('.').map_or("", |(kind, _)| kind);
                (*key == condition.key && values.iter().any(|value| condition.test.holds(value)))
                    || (kind == condition.key && condition.test.holds(""))
            })
        })
    }
}

/// One form for all ways of writing the same query: it names a subscription.
impl fmt::Display for EventQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Condition { key, test }) in self.0.iter().enumerate() {
            let and = if place == 0 { "" } else { " AND " };
            write!(f, "{and}{key} ")?;
            match test {
                Test::Exists => write!(f, "EXISTS"),
                Test::Contains(part) => write!(f, "CONTAINS '{part}'"),
                Test::Is(text) => write!(f, "= '{text}'"),
                Test::Compares(sign, Operand::Number(text)) => write!(f, "{sign} {text}"),
                Test::Compares(sign, Operand::Time(text)) => write!(f, "{sign} TIME {text}"),
                Test::Compares(sign, Operand::Date(text)) => write!(f, "{sign} DATE {text}"),
            }?;
        }
        Ok(())
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::Contains(part) => value.contains(part.as_str()),
            Self::Is(text) => value == text,
            Self::Compares(sign, Operand::Number(text)) => {
                sign.holds(Decimal::leading(value), Decimal::leading(text))
            }
            Self::Compares(sign, Operand::Time(text)) => sign.holds(time(value), time(text)),
            Self::Compares(sign, Operand::Date(text)) => sign.holds(date(value), date(text)),
        }
    }
}

impl Sign {
    /// Whether `value` stands so to `operand`; what could not be read stands in no way to it.
    fn holds<T: Ord>(self, value: Option<T>, operand: Option<T>) -> bool {
        let Some((value, operand)) = value.zip(operand) else {
            return false;
        };
        match self {
            Self::Equal => value == operand,
            Self::Less => value < operand,
            Self::LessOrEqual => value <= operand,
            Self::Greater => value > operand,
            Self::GreaterOrEqual => value >= operand,
        }
    }
}

/// A number of any size, exactly. The order of the fields is that of the numbers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Decimal<'t> {
    digits: usize,
    whole: &'t str,
    fraction: &'t str,
}

impl<'t> Decimal<'t> {
    /// The number that a text begins with, as amounts do: `5000000uremes`.
    fn leading(text: &'t str) -> Option<Self> {
        let digits = |text: &'t str| {
            let end = text.find(|letter: char| !letter.is_ascii_digit());
            text.split_at(end.unwrap_or(text.len()))
        };
        let (whole, rest) = digits(text);
        if whole.is_empty() {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = rest.strip_prefix('.').map_or("", |rest| digits(rest).0);
        Some(Self {
            digits: whole.len(),
            whole,
            fraction: fraction.trim_end_matches('0'),
        })
    }
}

pub(super) fn time(text: &str) -> Option<Time> {
    Time::parse_from_rfc3339(text).ok()
}

pub(super) fn date(text: &str) -> Option<Time> {
    time(&format!("{text}T00:00:00Z"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

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
    fn a_query_chooses_by_text_number_time_part_and_presence() {
        let tx = happened(&[
            ("tm.event", "Tx"),
            ("tx.height", "7"),
            ("a.b", "x AND y"),
            ("transfer.amount", "5000000uremes"),
            ("big.number", "340282366920938463463374607431768211455.50"),
            ("big.below", "-3"),
            ("end.at", "2026-03-01T10:00:00+02:00"),
            ("end.on", "2026-03-01"),
        ]);
        for (query, wanted) in [
            ("tm.event='Tx'", true),
            ("tm.event = 'NewBlock'", false),
            ("tm.event='Vote'", false),
            ("tm.event='Tx' AND tx.height=7", true),
            ("tm.event='Tx' AND tx.height>7", false),
            ("tx.height >= 7 AND tx.height <= 7 AND tx.height < 8", true),
            ("tx.height = 7.0", true),
            ("a.b='x AND y'", true),
            ("a.b CONTAINS 'AND'", true),
            ("a.b CONTAINS 'z'", false),
            ("a.b EXISTS", true),
            ("a.c EXISTS", false),
            // The kind of an event alone.
            ("transfer EXISTS", true),
            ("transfers EXISTS", false),
            ("transfer = 'x'", false),
            ("transfer.amount > 4999999.9", true),
            ("transfer.amount > 5000000", false),
            ("a.b > 0", false),
            ("big.below < 0", false),
            ("big.number > 340282366920938463463374607431768211455", true),
            (
                "big.number = 340282366920938463463374607431768211455.5",
                true,
            ),
            ("end.at = TIME 2026-03-01T08:00:00Z", true),
            ("end.at > TIME 2026-03-01T08:00:00Z", false),
            ("end.on >= DATE 2026-03-01", true),
            ("end.on < DATE 2026-03-01", false),
            ("end.on = TIME 2026-03-01T00:00:00Z", false),
        ] {
            let parsed = EventQuery::parse(query).unwrap();
            assert_eq!(parsed.wants(&tx), wanted, "{query}");
        }
    }

    #[test]
    fn all_ways_of_writing_a_query_have_one_name() {
        for (query, name) in [
            ("tm.event='Tx'", "tm.event = 'Tx'"),
            (
                "  a.b<=5  AND\ta.c CONTAINS'x'",
                "a.b <= 5 AND a.c CONTAINS 'x'",
            ),
            ("a.b EXISTS AND c>1.50", "a.b EXISTS AND c > 1.50"),
            ("a>=DATE 2026-01-01", "a >= DATE 2026-01-01"),
            (
                "a = TIME 2026-01-01T00:00:00Z",
                "a = TIME 2026-01-01T00:00:00Z",
            ),
        ] {
            let named = EventQuery::parse(query).unwrap().to_string();
            assert_eq!(named, name);
            assert_eq!(EventQuery::parse(&named).unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_no_query_is_refused_in_cometbft_s_words() {
        for (query, why) in [
            ("", "offset 0: EOF"),
            ("tm.event='Tx", "offset 9: EOF"),
            ("tm.event = 'Tx' AND", "offset 19: EOF"),
            ("5 = 5", "offset 0: got number, wanted tag"),
            (
                "a b",
                "offset 2: got tag, wanted <= operator, >= operator, < operator, > operator, = operator, CONTAINS operator or EXISTS operator",
            ),
            (
                "a = b",
                "offset 4: got tag, wanted number, timestamp, datestamp or string",
            ),
            (
                "a > 'b'",
                "offset 4: got string, wanted number, timestamp or datestamp",
            ),
            ("a CONTAINS 5", "offset 11: got number, wanted string"),
            ("a = 5 b = 6", "offset 6: got tag, want AND operator"),
            ("a = 5 !", "offset 6: got invalid token, want AND operator"),
            ("a ! 5", "offset 2: invalid input ! at offset 3"),
            (
                "a = TIME 2026",
                "offset 4: invalid TIME value: cannot parse \"2026\"",
            ),
        ] {
            let error = EventQuery::parse(query).unwrap_err();
            assert_eq!(error, format!("failed to parse query: {why}"), "{query}");
        }
    }
}
