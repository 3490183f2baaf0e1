//! How many calls a caller may begin.

use std::{net::IpAddr, num::NonZeroU32};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};
use r3mes_functions::{Failure, Reason};

/// Who is limited: a token's user, or an address without one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    User(String),
    Address(IpAddr),
}

/// A limit for each caller.
#[derive(Debug)]
pub(super) struct RateLimit {
    limiter: DefaultKeyedRateLimiter<Who>,
    per_minute: NonZeroU32,
}

impl RateLimit {
    /// Callers that are remembered before those are forgotten that have been quiet.
    const MOST: usize = 100_000;

    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        Self {
            limiter: RateLimiter::keyed(Quota::per_minute(per_minute)),
            per_minute,
        }
    }

    /// Counts a call.
    ///
    /// # Errors
    /// When there were too many, with the time after which there may be another.
    pub(super) fn admit(&self, user: &str, address: IpAddr) -> Result<(), Failure> {
        let who = match user {
            "" => Who::Address(address),
            user => Who::User(user.to_owned()),
        };
        if self.limiter.len() > Self::MOST {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&who).map_err(|over| {
            let wait = over.wait_time_from(self.limiter.clock().now());
            let words = format!("more than {} calls in a minute", self.per_minute);
            let mut failure = Failure::new(Reason::QuotaExceeded, words);
            failure.retry_after_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1);
            failure
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_limit_of_its_own() {
        let limit = RateLimit::new(NonZeroU32::new(2).unwrap());
        let here = IpAddr::from([127, 0, 0, 1]);
        limit.admit("", here).unwrap();
        limit.admit("", here).unwrap();
        let refused = limit.admit("", here).unwrap_err();
        assert_eq!(refused.reason, Reason::QuotaExceeded);
        assert!(
            refused
                .retry_after_ms
                .is_some_and(|ms| ms > 0 && ms <= 30_001)
        );
        limit.admit("alice", here).unwrap();
        limit.admit("", IpAddr::from([127, 0, 0, 2])).unwrap();
    }
}
