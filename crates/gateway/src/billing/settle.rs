//! Reads a gateway's escrows from the ledger, and charges them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, stream};
use r3mes_types::{
    Amount, Message, Time,
    escrow::{MsgCharge, QueryEscrows},
};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::{Book, refusal::Refusal};
use crate::rpc::{ClientError, SendError, TxClient, TxOutcome};

/// Transactions that are sent at a time.
const AT_ONCE: usize = 16;
/// Most usage records of one transaction, and most payees of them together: what its gas is enough for.
const MAX_RECORDS: usize = 8;
const MAX_PAYEES: usize = 16;
/// How many fees of a transaction an escrow must owe to be charged before its end: a user with many small
/// escrows would have the gateway pay more in fees than providers earn.
const WORTH_FEES: u64 = 10;
/// Escrows that are read.
const MAX_ESCROWS: usize = 65_536;
/// The least time between two looks at the ledger.
const PACE: Duration = Duration::from_secs(1);
/// Time between attempts to charge escrows that end soon, and between flushes of what was earned.
const AGAIN: Duration = Duration::from_secs(10);

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

    /// Settles all as soon as the ledger answers, then follows it, for ever: settles what is worth its fee,
    /// and whatever escrows owe that end soon. What fails is told, and tried again.
    pub async fn follow(&self) {
        let mut due = interval_at(Instant::now() + self.every, self.every);
        let (mut again, mut pace) = (interval(AGAIN.min(self.every)), interval(PACE));
        for ticks in [&mut due, &mut again, &mut pace] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let (mut height, mut begun) = (0, false);
        loop {
            let block = async {
                pace.tick().await;
                self.sender.client().wait_height(height).await
            };
            let looked = tokio::select! {
                _ = due.tick() => self.settle_worthy().await,
                _ = again.tick() => match begun {
                    true => self.settle_ending().await,
                    false => self.settle_all().await.inspect(|()| begun = true),
                },
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
        let question = QueryEscrows {
            account: self.sender.address(),
            page: None,
        };
        let client = self.sender.client();
        let escrows = client.list_up_to(question, MAX_ESCROWS).await?.entries;
        self.book.follow(escrows, now());
        Ok(())
    }

    /// Charges every escrow for what has been earned and not been paid. What fails is told, and is in the
    /// next charge.
    pub async fn settle(&self) {
        if let Err(error) = self.settle_all().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "functions.billing.ledger"
            );
        }
    }

    async fn settle_all(&self) -> Result<(), ClientError> {
        self.look().await?;
        self.charge(self.book.charges(Amount::ZERO, now())).await;
        Ok(())
    }

    /// Charges escrows that end soon, however little they owe: the last occasions to pay it.
    async fn settle_ending(&self) -> Result<(), ClientError> {
        if self.book.last_charges(now()).is_empty() {
            self.flush().await;
            return Ok(());
        }
        // Some may have been paid since.
        self.look().await?;
        self.charge(self.book.last_charges(now())).await;
        Ok(())
    }

    /// As [`Self::settle`], without escrows that owe less than ten fees and do not end soon.
    async fn settle_worthy(&self) -> Result<(), ClientError> {
        self.look().await?;
        let fee = self.sender.fee().await?;
        let least = fee.uremes().saturating_mul(WORTH_FEES);
        let charges = self.book.charges(Amount::new(least), now());
        self.charge(charges).await;
        Ok(())
    }

    /// Has what was earned outlast a loss of power.
    async fn flush(&self) {
        let book = self.book.clone();
        let flushing = tokio::task::spawn_blocking(move || book.flush());
        if let Ok(Err(error)) = flushing.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "functions.billing.journal"
            );
        }
    }

    async fn charge(&self, charges: Vec<MsgCharge>) {
        // Where the disk fails, the ledger should know the more.
        self.flush().await;
        let sending =
            stream::iter(together(charges)).for_each_concurrent(AT_ONCE, async |charges| {
                let several = charges.len() > 1;
                match self.send(&charges).await {
                    // One escrow that has ended must not keep the others from being charged.
                    Err(SendError::Refused { .. }) if several => {
                        for charge in charges {
                            let outcome = self.send(std::slice::from_ref(&charge)).await;
                            self.note(&[charge.escrow], outcome);
                        }
                    }
                    outcome => {
                        let escrows: Vec<u64> =
                            charges.iter().map(|charge| charge.escrow).collect();
                        self.note(&escrows, outcome);
                    }
                }
            });
        sending.await;
    }

    async fn send(&self, charges: &[MsgCharge]) -> Result<TxOutcome, SendError> {
        let messages = charges.iter().cloned().map(Message::from);
        self.sender.send(messages.collect()).await
    }

    /// Tells what became of a charge, and has the book know of a refusal.
    fn note(&self, escrows: &[u64], outcome: Result<TxOutcome, SendError>) {
        match outcome {
            Ok(outcome) => {
                let height = outcome.height;
                tracing::info!(?escrows, height, "functions.billing.settled");
                for escrow in escrows {
                    self.book.charged(*escrow);
                }
            }
            Err(SendError::Refused {
                codespace,
                code,
                log,
            }) => {
                let refusal = Refusal {
                    codespace,
                    code,
                    log,
                };
                for escrow in escrows {
                    self.book.refused(*escrow, &refusal, now());
                }
            }
            // Whether the charge arrived, the next look at the ledger says.
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(?escrows, error, "functions.billing.unanswered");
            }
        }
    }
}

/// Usage records as they go together into transactions.
fn together(charges: Vec<MsgCharge>) -> Vec<Vec<MsgCharge>> {
    let mut batches: Vec<Vec<MsgCharge>> = Vec::new();
    let mut payees = 0;
    for charge in charges {
        payees += charge.totals.len();
        match batches.last_mut() {
            Some(last) if last.len() < MAX_RECORDS && payees <= MAX_PAYEES => last.push(charge),
            _ => {
                payees = charge.totals.len();
                batches.push(vec![charge]);
            }
        }
    }
    batches
}

/// The time by this machine's clock.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map_or(0, |since| since.as_nanos());
    Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use r3mes_types::{Address, escrow::Total, wire::List};

    use super::*;

    fn charge(escrow: u64, payees: u8) -> MsgCharge {
        let total = |payee: u8| Total {
            payee: Address::from([payee; 20]),
            amount: Amount::new(1),
        };
        MsgCharge {
            gateway: Address::from([9; 20]),
            escrow,
            totals: List::new((0..payees).map(total).collect()).unwrap(),
            voucher: None,
        }
    }

    #[test]
    fn records_go_together_as_far_as_the_gas_of_a_transaction_goes() {
        let sizes = |charges: Vec<MsgCharge>| {
            let batches = together(charges);
            batches.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert!(sizes(Vec::new()).is_empty());
        assert_eq!(sizes((0..20).map(|id| charge(id, 1)).collect()), [8, 8, 4]);
        let mixed = [16, 1, 15, 1, 16].map(|payees| charge(1, payees));
        assert_eq!(sizes(mixed.to_vec()), [1, 2, 1, 1]);
    }
}
