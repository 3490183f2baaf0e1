//! The loop of every agent, and how what it does stands in the log.

use std::time::Duration;

use r3mes_types::Role;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// First pause after something failed; doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after something failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A turn failed, of which [`tell`] told.
#[derive(Debug)]
pub(super) struct Failed;

/// Tells of what failed, once and with all its causes. Whoever knows the span that it failed in calls
/// this there.
pub(super) fn tell(error: &anyhow::Error) -> Failed {
    tracing::warn!("will try again: {error:#}");
    Failed
}

/// The span of one action of a role, in a round of a run if it is about one.
pub(super) fn action(
    role: Role,
    action: &'static str,
    run: Option<u64>,
    round: Option<u64>,
) -> Span {
    tracing::info_span!("node.role.act", %role, action, run, round)
}

/// Takes turns until shutdown, which also breaks one off. One that failed is planned again after a
/// pause.
pub(super) async fn repeat(
    shutdown: &CancellationToken,
    mut turn: impl AsyncFnMut() -> Result<(), Failed>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let outcome = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            outcome = turn() => outcome,
        };
        let Err(Failed) = outcome else {
            pause = FIRST_PAUSE;
            continue;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_after_growing_pauses_that_a_success_ends() {
        let shutdown = CancellationToken::new();
        let began = tokio::time::Instant::now();
        let mut at = Vec::new();
        repeat(&shutdown, async || {
            at.push(began.elapsed().as_millis());
            match at.len() {
                3 => Ok(()),
                11.. => {
                    shutdown.cancel();
                    std::future::pending().await
                }
                _ => Err(Failed),
            }
        })
        .await;
        let pauses: Vec<u128> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(
            pauses,
            [200, 400, 0, 200, 400, 800, 1600, 3200, 6400, 10_000]
        );
    }
}
