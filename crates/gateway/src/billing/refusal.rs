//! What becomes of charges that the ledger refuses: they are sent again ever more rarely, or not at all.

use std::time::Duration;

use r3mes_ledger::escrow::EscrowError;
use r3mes_types::{Amount, Time};

use super::book::later;

/// Time from the first refusal to the next charge; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long before an escrow's end the last charge is sent, whatever the pause would be.
const LAST_CHANCE: Duration = Duration::from_secs(20);
/// The error of an escrow that has ended, which the ledger lists no more.
const NOT_OPEN: u32 = EscrowError::NotOpen { escrow: 0 }.code();

/// What the ledger said to a charge.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) codespace: String,
    pub(super) code: u32,
    pub(super) log: String,
}

impl Refusal {
    /// Whether the same charge is refused whenever it is sent: its escrow is not to be charged so.
    fn is_final(&self) -> bool {
        self.codespace == EscrowError::CODESPACE && self.code != NOT_OPEN
    }
}

/// An escrow that the ledger refuses to have charged.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedCharge {
    times: u32,
    /// When it is charged again; never if this is absent.
    again: Option<Time>,
    why: String,
}

impl RefusedCharge {
    pub(super) fn add(&mut self, refusal: &Refusal, now: Time, ends: Time) {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.times.min(16));
        let next = later(now, doubled.min(LONGEST_PAUSE));
        let before_end = u64::try_from(LAST_CHANCE.as_nanos()).unwrap_or(u64::MAX);
        let last = Time::from_nanos(ends.nanos().saturating_sub(before_end));
        // The last chance is not slept through.
        let again = if now < last { next.min(last) } else { next };
        self.again = (!refusal.is_final()).then_some(again);
        self.times += 1;
        self.why.clone_from(&refusal.log);
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.again.is_some_and(|again| again <= now)
    }

    pub(super) fn is_final(&self) -> bool {
        self.again.is_none()
    }

    /// What the ledger said last.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Tells whoever runs the gateway.
    pub(super) fn tell(&self, escrow: u64, owed: Amount, now: Time) {
        let (times, why) = (self.times, &self.why);
        match self.again {
            None => tracing::error!(escrow, %owed, why, "functions.billing.given_up"),
            Some(again) => {
                let again_s = again.nanos().saturating_sub(now.nanos()) / 1_000_000_000;
                tracing::warn!(escrow, %owed, times, again_s, why, "functions.billing.refused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    fn no_coins() -> Refusal {
        Refusal {
            codespace: "sdk".into(),
            code: 5,
            log: "no coins for the fee".into(),
        }
    }

    #[test]
    fn pauses_grow_and_the_last_chance_is_taken() {
        let (mut refused, mut now) = (RefusedCharge::default(), 0);
        let mut pauses = Vec::new();
        while now < 1_000 {
            refused.add(&no_coins(), at(now), at(1_000));
            let next = (now..).find(|second| refused.is_due(at(*second))).unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 70, 300]);
        assert!(!refused.is_final());
        assert_eq!(refused.why(), "no coins for the fee");
    }

    #[test]
    fn what_the_ledger_never_takes_is_not_sent_again() {
        for (code, name) in EscrowError::CODES {
            let refusal = Refusal {
                codespace: EscrowError::CODESPACE.into(),
                code: *code,
                log: String::new(),
            };
            let mut refused = RefusedCharge::default();
            refused.add(&refusal, at(0), at(1_000));
            assert_eq!(refused.is_final(), *name != "NotOpen", "{name}");
            assert_eq!(refused.is_due(at(999)), *name == "NotOpen", "{name}");
        }
    }
}
