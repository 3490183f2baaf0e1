//! Whom a caller wants to be told that an asynchronous call is over, and what has become of that.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Time before each further attempt: seven in all, within 32 minutes.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(600),
    Duration::from_secs(900),
];

/// What messages to a receiver are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WebhookKey(pub [u8; 32]);

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(..)")
    }
}

/// Where the end of a call is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// The receiver.
    pub url: String,
    /// What the message is signed with.
    pub key: WebhookKey,
    /// What has become of it.
    pub delivery: Delivery,
}

/// What has become of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// It has not arrived yet.
    Pending {
        /// Attempts so far.
        attempts: u32,
        /// Why the last one failed.
        error: Option<String>,
    },
    /// It has arrived.
    Delivered {
        /// Attempts, the last one included.
        attempts: u32,
    },
    /// Nobody tries any more.
    Abandoned {
        /// Attempts, the last one included.
        attempts: u32,
        /// Why the last one failed.
        error: String,
    },
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The receiver has taken the message.
    Delivered,
    /// It has not; it may later.
    Failed(String),
    /// It never will.
    Refused(String),
}

impl Webhook {
    /// One that was not tried yet.
    pub fn new(url: impl Into<String>, key: WebhookKey) -> Self {
        Self {
            url: url.into(),
            key,
            delivery: Delivery::Pending {
                attempts: 0,
                error: None,
            },
        }
    }

    /// Whether it is still to be delivered.
    pub fn is_pending(&self) -> bool {
        matches!(self.delivery, Delivery::Pending { .. })
    }

    /// Notes what a further attempt came to; the time before the next one, if there is to be one.
    pub fn note(&mut self, attempt: Attempt) -> Option<Duration> {
        let Delivery::Pending { attempts, .. } = self.delivery else {
            return None;
        };
        let pause = PAUSES.get(attempts as usize).copied();
        let attempts = attempts + 1;
        let (delivery, pause) = match (attempt, pause) {
            (Attempt::Delivered, _) => (Delivery::Delivered { attempts }, None),
            (Attempt::Failed(error), Some(pause)) => {
                let error = Some(error);
                (Delivery::Pending { attempts, error }, Some(pause))
            }
            (Attempt::Failed(error) | Attempt::Refused(error), _) => {
                (Delivery::Abandoned { attempts, error }, None)
            }
        };
        self.delivery = delivery;
        pause
    }
}

/// What each user may have under way at a time, so that nobody's receivers that do not answer keep others
/// from being told.
#[derive(Debug)]
pub struct Shares {
    places: usize,
    of_users: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A place of a user's share, until it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

impl Shares {
    /// So many places for each user.
    pub fn new(places: usize) -> Self {
        Self {
            places,
            of_users: Mutex::default(),
        }
    }

    /// Waits for a place of this user, in the order of those who ask.
    pub async fn place(&self, user: &str) -> Place {
        let permit = self.of_user(user).acquire_owned().await;
        Place(permit.expect("it is never closed"))
    }

    /// A place of this user, if one is free.
    pub fn free_place(&self, user: &str) -> Option<Place> {
        let permit = self.of_user(user).try_acquire_owned();
        permit.ok().map(Place)
    }

    fn of_user(&self, user: &str) -> Arc<Semaphore> {
        let mut of_users = self.of_users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = of_users.get(user).and_then(Weak::upgrade) {
            return known;
        }
        // Those of whom nothing is under way.
        of_users.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.places));
        of_users.insert(user.to_owned(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_user_without_a_free_place_waits_and_another_does_not() {
        let shares = Shares::new(2);
        let held = [(); 2].map(|()| shares.free_place("alice").unwrap());
        assert!(shares.free_place("alice").is_none());
        let mut waiting = Box::pin(shares.place("alice"));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(shares.place("bob").now_or_never().is_some());
        drop(held);
        assert!(waiting.now_or_never().is_some());
        assert!(shares.free_place("carol").is_some());
        assert_eq!(shares.of_users.lock().unwrap().len(), 1);
    }

    fn webhook() -> Webhook {
        Webhook::new("https://example.com/", WebhookKey([7; 32]))
    }

    #[test]
    fn attempts_are_bounded_and_come_further_and_further_apart() {
        let mut webhook = webhook();
        let failed = || Attempt::Failed("it answered 500".into());
        let pauses: Vec<_> = std::iter::from_fn(|| webhook.note(failed())).collect();
        assert!(pauses.is_sorted() && pauses.len() == PAUSES.len());
        let error = "it answered 500".to_owned();
        assert_eq!(webhook.delivery, Delivery::Abandoned { attempts: 7, error });
        assert_eq!(webhook.note(Attempt::Delivered), None);
        assert!(!webhook.is_pending());
    }

    #[test]
    fn what_was_delivered_or_refused_is_not_tried_again_and_the_key_is_not_shown() {
        let mut one = webhook();
        assert!(!format!("{one:?}").contains('7'));
        assert!(one.note(Attempt::Failed("late".into())).is_some());
        assert_eq!(one.note(Attempt::Delivered), None);
        assert_eq!(one.delivery, Delivery::Delivered { attempts: 2 });
        let mut other = webhook();
        assert_eq!(other.note(Attempt::Refused("gone".into())), None);
        assert!(matches!(other.delivery, Delivery::Abandoned { .. }));
    }
}
