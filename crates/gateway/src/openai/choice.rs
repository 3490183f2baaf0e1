use std::sync::Arc;

use futures::{Stream, stream};
use r3mes_blobs::Cid;
use r3mes_inference::{Completion, Event, FinishReason, Generation, Piece};
use tokio::task;

use super::{error::ApiError, receipts::Receipts};

/// What happens to one answer of a request.
#[derive(Debug)]
pub(super) enum ChoiceEvent {
    /// More of it.
    Piece(Piece),
    /// It is complete.
    Finished(Finished),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    pub(super) reason: FinishReason,
    pub(super) completion_tokens: usize,
    pub(super) receipt: Option<Cid>,
}

/// An answer being generated, and how to keep its receipt. Dropping it stops the generation.
pub(super) struct Choice {
    pub(super) index: usize,
    /// Name under which the receipt can be had.
    pub(super) receipt_id: String,
    pub(super) generation: Generation,
    pub(super) receipts: Arc<Receipts>,
}

impl Choice {
    /// The events of this answer, each with its index; ends after `Finished` or an error.
    pub(super) fn events(
        self,
    ) -> impl Stream<Item = Result<(usize, ChoiceEvent), ApiError>> + Send {
        stream::try_unfold(Some(self), |choice| async move {
            let Some(mut choice) = choice else {
                return Ok(None);
            };
            let index = choice.index;
            match choice.generation.next().await {
                Some(Event::Piece(piece)) => {
                    Ok(Some(((index, ChoiceEvent::Piece(piece)), Some(choice))))
                }
                Some(Event::Finished(completion)) => {
                    let finished = choice.finish(*completion).await;
                    Ok(Some(((index, ChoiceEvent::Finished(finished)), None)))
                }
                Some(Event::Failed(error)) => Err(error.into()),
                None => Err(r3mes_inference::GenerationError::Stopped.into()),
            }
        })
    }

    async fn finish(self, completion: Completion) -> Finished {
        let Completion {
            finish,
            completion_tokens,
            receipt,
            ..
        } = completion;
        let receipt = match receipt {
            Some(receipt) => {
                let (receipts, id) = (self.receipts, self.receipt_id);
                task::spawn_blocking(move || receipts.keep(&id, &receipt))
                    .await
                    .ok()
            }
            None => None,
        };
        let receipt = receipt.and_then(|kept| {
            // The answer is right without it; the client sees that it has none.
            kept.inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::error!(error, "a receipt could not be kept");
            })
            .ok()
        });
        Finished {
            reason: finish,
            completion_tokens,
            receipt,
        }
    }
}
