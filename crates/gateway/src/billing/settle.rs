//! Reads a gateway's escrows from the ledger, and charges them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use r3mes_types::{
    Message, Time,
    escrow::{Escrow, QueryEscrows},
    query::PageRequest,
};
use tokio::time::{MissedTickBehavior, interval};

use super::Book;
use crate::rpc::{ClientError, TxClient};

/// Escrows that are charged at a time.
const CHARGES: usize = 16;
/// Pages of escrows that are read: 65,536 escrows.
const MAX_PAGES: usize = 256;
/// The least time between two looks at the ledger.
const PACE: Duration = Duration::from_secs(1);

/// Keeps a [`Book`] as the ledger has it, and settles what it has earned.
#[derive(Clone)]
pub struct Billing {
    sender: TxClient,
    book: Book,
    every: Duration,
}

impl Billing {
    /// Settles `book` through `sender`, whose key is the gateway's, as often as this.
    pub fn new(sender: TxClient, book: Book, every: Duration) -> Self {
        Self {
            sender,
            book,
            every,
        }
    }

    /// Follows the ledger and settles, for ever. What fails is told, and tried again.
    pub async fn follow(&self) {
        let mut due = interval(self.every);
        let mut pace = interval(PACE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut height = 0;
        loop {
            let block = async {
                pace.tick().await;
                self.sender.client().wait_height(height).await
            };
            let looked = tokio::select! {
                _ = due.tick() => {
                    self.settle().await;
                    Ok(())
                }
                seen = block => match seen {
                    Ok(seen) => {
                        height = seen;
                        self.look().await
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = looked {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "functions.billing.ledger"
                );
            }
        }
    }

    /// Reads the open escrows of this gateway.
    ///
    /// # Errors
    /// When the ledger does not answer; the book stays as it was.
    pub async fn look(&self) -> Result<(), ClientError> {
        let mut escrows: Vec<Escrow> = Vec::new();
        let mut page = PageRequest::default();
        for _ in 0..MAX_PAGES {
            let question = QueryEscrows {
                account: self.sender.address(),
                page: Some(page),
            };
            let answer = self.sender.client().query(&question).await?;
            escrows.extend(answer.escrows);
            if answer.next.is_empty() {
                break;
            }
            page = PageRequest {
                after: answer.next,
                limit: 0,
            };
        }
        self.book.follow(escrows, now());
        Ok(())
    }

    /// Charges every escrow for what has been earned and not been paid. What fails is told, and is in the
    /// next charge.
    pub async fn settle(&self) {
        if let Err(error) = self.look().await {
            return tracing::warn!(
                error = &error as &dyn std::error::Error,
                "functions.billing.ledger"
            );
        }
        // Where the disk fails, the ledger should know the more.
        if let Err(error) = self.book.flush() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "functions.billing.journal"
            );
        }
        let charges = self.book.charges();
        let sending = stream::iter(charges).for_each_concurrent(CHARGES, async |charge| {
            let escrow = charge.escrow;
            let message = Message::from(charge);
            match self.sender.send(vec![message]).await {
                Ok(outcome) => {
                    tracing::info!(escrow, height = outcome.height, "functions.billing.settled")
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(escrow, error, "functions.billing.refused");
                }
            }
        });
        sending.await;
    }
}

/// The time by this machine's clock.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
