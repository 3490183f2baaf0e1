//! What was used, by user and function, since the broker started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What calls have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Calls that a node ran.
    pub calls: u64,
    /// Those of them that failed, whoever was to blame.
    pub failed: u64,
    /// Microseconds for which they ran.
    pub busy_us: u64,
    /// Bytes of their arguments.
    pub argument_bytes: u64,
    /// Bytes of their results.
    pub result_bytes: u64,
}

impl Spent {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.busy_us += other.busy_us;
        self.argument_bytes += other.argument_bytes;
        self.result_bytes += other.result_bytes;
    }
}

/// The count.
#[derive(Debug, Default)]
pub struct Meter {
    spent: BTreeMap<String, BTreeMap<String, Spent>>,
    total: Spent,
    entries: usize,
}

impl Meter {
    /// Most users and functions that are counted apart; what comes later is counted as `others`.
    const MOST: usize = 100_000;
    /// Under which name of user and function.
    const OTHERS: &str = "others";

    /// Counts what a call used.
    pub fn add(&mut self, user: &str, function: &str, spent: Spent) {
        self.total.add(spent);
        if let Some(known) = self.spent.get_mut(user).and_then(|of| of.get_mut(function)) {
            return known.add(spent);
        }
        let (user, function) = match self.entries < Self::MOST {
            true => (user, function),
            false => (Self::OTHERS, Self::OTHERS),
        };
        let of_user = self.spent.entry(user.to_owned()).or_default();
        self.entries += usize::from(!of_user.contains_key(function));
        of_user.entry(function.to_owned()).or_default().add(spent);
    }

    /// What all have used.
    pub fn total(&self) -> Spent {
        self.total
    }

    /// What each user has used, by function: of one user, or of all.
    pub fn of(&self, user: Option<&str>) -> impl Iterator<Item = (&str, &str, Spent)> {
        let users = self.spent.iter();
        users
            .filter(move |(name, _)| user.is_none_or(|user| *name == user))
            .flat_map(|(name, of)| of.iter().map(move |(f, spent)| (&**name, &**f, *spent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_added_up_by_user_and_function() {
        let mut meter = Meter::default();
        let spent = Spent {
            calls: 1,
            busy_us: 5,
            ..Spent::default()
        };
        meter.add("alice", "train", spent);
        meter.add("alice", "train", spent);
        meter.add("bob", "train", spent);
        let of_alice: Vec<_> = meter.of(Some("alice")).collect();
        assert_eq!(of_alice.len(), 1);
        assert_eq!((of_alice[0].2.calls, of_alice[0].2.busy_us), (2, 10));
        assert_eq!(meter.of(None).count(), 2);
    }

    #[test]
    fn what_is_too_much_to_tell_apart_is_counted_together() {
        let mut meter = Meter::default();
        let once = Spent {
            calls: 1,
            ..Spent::default()
        };
        for user in 0..Meter::MOST + 10 {
            meter.add(&user.to_string(), "f", once);
        }
        assert_eq!(meter.of(None).count(), Meter::MOST + 1);
        let calls: u64 = meter.of(None).map(|(_, _, spent)| spent.calls).sum();
        assert_eq!(calls, Meter::MOST as u64 + 10);
    }
}
