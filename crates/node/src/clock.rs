//! The machine's clock, for expiry dates and the genesis; never for anything that is computed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use r3mes_types::Time;

/// The time now.
pub fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A time from now.
pub fn after(duration: Duration) -> Time {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos(now().nanos().saturating_add(nanos))
}
