//! How much a user may use a function.

use std::{collections::HashMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Moment, wire::messages::Used as UsedElsewhere};

/// An allowance: `2_hours_daily`, `100_calls_hourly`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quota {
    /// How much.
    pub amount: Amount,
    /// In which time.
    pub per: Period,
}

/// How much of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many calls.
    Calls(u64),
    /// So many seconds of running.
    Seconds(u64),
}

/// In which time an allowance comes back: hours, days and weeks of UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// An hour.
    Hourly,
    /// A day.
    Daily,
    /// Seven days.
    Weekly,
    /// Thirty days.
    Monthly,
}

impl Period {
    const NAMES: [(Self, &'static str, u64); 4] = [
        (Self::Hourly, "hourly", 3600),
        (Self::Daily, "daily", 24 * 3600),
        (Self::Weekly, "weekly", 7 * 24 * 3600),
        (Self::Monthly, "monthly", 30 * 24 * 3600),
    ];

    fn entry(self) -> (Self, &'static str, u64) {
        Self::NAMES[self as usize]
    }

    fn micros(self) -> u64 {
        self.entry().2 * 1_000_000
    }
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} is no quota: write AMOUNT_UNIT_PERIOD such as 2_hours_daily or \
                 100_calls_hourly, with calls, seconds, minutes or hours, and hourly, daily, weekly \
                 or monthly"
            )
        };
        let mut parts = text.split('_');
        let (Some(number), Some(unit), Some(period), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refused());
        };
        let number: u64 = number.parse().map_err(|_| refused())?;
        let seconds = |each: u64| number.checked_mul(each).map(Amount::Seconds);
        let amount = match unit {
            "call" | "calls" => Some(Amount::Calls(number)),
            "second" | "seconds" => seconds(1),
            "minute" | "minutes" => seconds(60),
            "hour" | "hours" => seconds(3600),
            _ => None,
        };
        let per = Period::NAMES.iter().find(|(_, name, _)| *name == period);
        match (amount, per) {
            (Some(amount), Some((per, ..))) if number > 0 => Ok(Self { amount, per: *per }),
            _ => Err(refused()),
        }
    }
}

impl TryFrom<String> for Quota {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Quota> for String {
    fn from(quota: Quota) -> Self {
        quota.to_string()
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = self.per.entry().1;
        match self.amount {
            Amount::Calls(calls) => write!(f, "{calls}_calls_{period}"),
            Amount::Seconds(seconds) if seconds % 3600 == 0 => {
                write!(f, "{}_hours_{period}", seconds / 3600)
            }
            Amount::Seconds(seconds) => write!(f, "{seconds}_seconds_{period}"),
        }
    }
}

/// What users have used, by user and function.
#[derive(Debug, Default)]
pub struct Usage {
    used: HashMap<(String, String), Used>,
}

#[derive(Debug, Default)]
struct Used {
    window: u64,
    ends: Moment,
    calls: u64,
    micros: u64,
}

impl Usage {
    /// Most users and functions that are kept count of; the oldest windows go first.
    const MOST: usize = 100_000;

    /// Counts a call that is about to run.
    ///
    /// # Errors
    /// Milliseconds until there is an allowance again, when it is used up. A call that is running is
    /// not cut short: time is counted when it ends.
    pub fn begin(
        &mut self,
        user: &str,
        function: &str,
        quota: Quota,
        now: Moment,
    ) -> Result<(), u64> {
        let used = self.entry(user, function, quota, now);
        let spent = match quota.amount {
            Amount::Calls(calls) => used.calls >= calls,
            Amount::Seconds(seconds) => used.micros >= seconds.saturating_mul(1_000_000),
        };
        if spent {
            return Err(used.ends.micros_after(now) / 1000 + 1);
        }
        used.calls += 1;
        Ok(())
    }

    /// Counts the time that a call ran.
    pub fn end(&mut self, user: &str, function: &str, quota: Quota, micros: u64, now: Moment) {
        let used = self.entry(user, function, quota, now);
        used.micros = used.micros.saturating_add(micros);
    }

    /// Counts what was used at another gateway.
    pub fn add(&mut self, used: &UsedElsewhere, now: Moment) {
        let entry = self.entry(&used.user, &used.function, used.quota, now);
        entry.calls = entry.calls.saturating_add(used.calls);
        entry.micros = entry.micros.saturating_add(used.micros);
    }

    /// Calls and microseconds that a user has used of an allowance in its running period.
    pub fn used(&self, user: &str, function: &str, quota: Quota, now: Moment) -> (u64, u64) {
        let used = self.used.get(&(user.to_owned(), function.to_owned()));
        let window = now.0 / quota.per.micros();
        let used = used.filter(|used| used.window == window);
        used.map_or((0, 0), |used| (used.calls, used.micros))
    }

    fn entry(&mut self, user: &str, function: &str, quota: Quota, now: Moment) -> &mut Used {
        if self.used.len() >= Self::MOST {
            self.used.retain(|_, used| used.ends > now);
        }
        let length = quota.per.micros();
        let window = now.0 / length;
        let used = self
            .used
            .entry((user.to_owned(), function.to_owned()))
            .or_default();
        if used.window != window {
            *used = Used {
                window,
                ends: Moment((window + 1) * length),
                ..Used::default()
            };
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1_000_000;

    #[test]
    fn what_was_used_is_told_until_the_period_ends() {
        let (mut usage, quota) = (Usage::default(), "2_hours_daily".parse().unwrap());
        usage.begin("alice", "train", quota, Moment(DAY)).unwrap();
        usage.end("alice", "train", quota, 5, Moment(DAY + 5));
        let used = |user, at| usage.used(user, "train", quota, Moment(at));
        assert_eq!(used("alice", 2 * DAY - 1), (1, 5));
        assert_eq!((used("alice", 2 * DAY), used("bob", DAY)), ((0, 0), (0, 0)));
    }

    #[test]
    fn quotas_are_read_and_written() {
        for text in ["2_hours_daily", "100_calls_hourly", "90_seconds_weekly"] {
            assert_eq!(text.parse::<Quota>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "2_hours",
            "0_calls_daily",
            "2_weeks_daily",
            "x_calls_daily",
            "1_call_daily_x",
        ] {
            assert!(text.parse::<Quota>().is_err(), "{text}");
        }
    }

    #[test]
    fn time_is_used_up_by_one_user_and_comes_back_the_next_day() {
        let quota: Quota = "2_hours_daily".parse().unwrap();
        let mut usage = Usage::default();
        let now = Moment(20_000 * DAY + DAY / 2);
        usage.begin("alice", "train", quota, now).unwrap();
        usage.end("alice", "train", quota, 2 * 3600 * 1_000_000, now);
        let wait = usage.begin("alice", "train", quota, now).unwrap_err();
        assert_eq!(wait, DAY / 2 / 1000 + 1);
        usage.begin("bob", "train", quota, now).unwrap();
        usage
            .begin("alice", "train", quota, Moment(20_001 * DAY))
            .unwrap();
    }

    #[test]
    fn calls_are_counted_when_they_begin() {
        let quota: Quota = "1_calls_daily".parse().unwrap();
        let mut usage = Usage::default();
        usage.begin("alice", "f", quota, Moment(5)).unwrap();
        assert!(usage.begin("alice", "f", quota, Moment(6)).is_err());
        usage.begin("alice", "g", quota, Moment(6)).unwrap();
    }
}
