//! `r3mes demo`

use tokio_util::sync::CancellationToken;

use super::{
    args::{Demo, Overrides},
    output::Output,
};
use crate::{
    config::{Engine, Log},
    demo::{
        self,
        figures::{Check, Figures},
    },
    telemetry,
};

/// Runs the demonstration. With `--check`, fails unless everything checked holds.
pub(super) fn run(typed: &Demo, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
    overrides.check_of_any_home()?;
    let log = Log {
        level: overrides
            .log_level
            .clone()
            .unwrap_or_else(|| "error".to_owned()),
        json: out.json,
        ..Log::default()
    };
    telemetry::start(&log)?;
    let options = demo::Options {
        rounds: typed.rounds,
        liar: typed.liar,
        check: typed.check,
        keep: typed.keep,
        dir: typed.dir.clone(),
        port: typed.port,
        engine: overrides.engine.unwrap_or(Engine::Local),
        beacon: typed.beacon,
        child_args: overrides.to_args_of_any_home(),
        silent: out.json,
    };
    let figures = super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        demo::run(&options, shutdown, |figures| {
            out.show(figures, || text(figures, typed.check))
        })
        .await
    })?;
    all_hold(&figures.checks)
}

/// Whether everything that was checked holds; what does not is named.
fn all_hold(checks: &[Check]) -> anyhow::Result<()> {
    let failed: Vec<String> = checks
        .iter()
        .filter(|check| !check.holds)
        .map(|check| format!("{} ({})", check.name, one_line(&check.found)))
        .collect();
    anyhow::ensure!(failed.is_empty(), "does not hold: {}", failed.join("; "));
    Ok(())
}

fn text(figures: &Figures, check: bool) -> String {
    let mut lines = vec![
        String::new(),
        format!(
            "Held-out loss {:.3} -> {:.3} ({:+.1}%) in {} rounds and {:.0} s.",
            figures.base_loss,
            figures.loss,
            -100.0 * figures.fall(),
            figures.rounds.len(),
            figures.seconds
        ),
        String::new(),
        format!("Asked to go on from \"{}\":", figures.prompt),
        format!("  base:    {}", one_line(&figures.base_answer)),
        format!("  trained: {}", one_line(&figures.trained_answer)),
    ];
    if check {
        lines.push(String::new());
        lines.extend(figures.checks.iter().map(|check| {
            format!(
                "{} {}: {}",
                if check.holds { "ok    " } else { "FAILED" },
                check.name,
                one_line(&check.found)
            )
        }));
    } else {
        lines.extend([
            String::new(),
            format!("The API stays up at {} until Ctrl-C. Try:", figures.api),
            format!(
                "  curl {}/v1/completions -H 'Content-Type: application/json' \\\n    -d '{{\"model\":\"{}\",\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"seed\":1}}'",
                figures.api,
                crate::assets::BASE_MODEL_NAME
            ),
        ]);
    }
    lines.join("\n")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_does_not_hold_fails_the_command_and_is_named() {
        let check = |name, holds| Check {
            name,
            holds,
            found: "found\nthis".to_owned(),
        };
        all_hold(&[check("first", true)]).unwrap();
        let checks = [check("first", true), check("second", false)];
        let failure = all_hold(&checks).unwrap_err().to_string();
        assert_eq!(failure, "does not hold: second (found this)");
    }
}
