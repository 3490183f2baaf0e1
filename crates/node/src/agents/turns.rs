//! The loop of every agent.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// First pause after something failed; doubles with each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause after something failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Takes turns until shutdown, which also breaks one off. What fails is told, and planned again after a
/// pause.
pub(super) async fn repeat(
    shutdown: &CancellationToken,
    mut turn: impl AsyncFnMut() -> anyhow::Result<()>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let outcome = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            outcome = turn() => outcome,
        };
        let Err(error) = outcome else {
            pause = FIRST_PAUSE;
            continue;
        };
        tracing::warn!("will try again: {error:#}");
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
                _ => anyhow::bail!("no answer"),
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
