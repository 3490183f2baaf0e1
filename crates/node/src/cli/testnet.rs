//! `r3mes testnet`

use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{
    args::{Overrides, Testnet as Typed},
    output::Output,
};
use crate::{
    config::Log,
    demo::figures::Check,
    telemetry,
    testnet::{self, Options, Running, Testnet, parse_hosts},
};

/// Validators of whom one may be away.
const FEWEST_CHECKED: usize = 4;

/// Makes a network, and runs it unless it is for other machines. With `--check`, fails unless
/// everything checked holds.
pub(super) fn run(typed: &Typed, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
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
    let options = options(typed, overrides)?;
    // Before any home is made.
    if !Testnet::is_in(&options.dir) {
        ensure_enough(typed, options.validators)?;
    }
    let (testnet, made) = Testnet::open_or_make(&options)?;
    ensure_enough(typed, testnet.nodes.len())?;
    if !options.hosts.is_empty() {
        anyhow::ensure!(
            made,
            "{} holds a network already; name a new folder with --dir",
            options.dir.display()
        );
        let homes: Vec<String> = testnet
            .nodes
            .iter()
            .map(|node| node.home.root().display().to_string())
            .collect();
        return out.show(&homes, || written(&testnet));
    }
    let checks = super::runtime()?.block_on(async {
        let shutdown = CancellationToken::new();
        super::cancel_on_signal(shutdown.clone())?;
        let say = |running: &Running| match out.json || typed.check {
            true => Ok(()),
            false => out.show(running, || runs(&options, running)),
        };
        testnet::run(&testnet, &options, typed.check, shutdown, say).await
    })?;
    match typed.check {
        true => judge(&checks, out),
        false => Ok(()),
    }
}

/// Whether one of so many validators may be killed.
fn ensure_enough(typed: &Typed, validators: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        !typed.check || validators >= FEWEST_CHECKED,
        "--check kills a validator, and without one of fewer than {FEWEST_CHECKED} the others cannot go on; give --validators {FEWEST_CHECKED} or more, and a new folder with --dir where {} holds a network of {validators}",
        typed.dir.display()
    );
    Ok(())
}

/// The network that was asked for.
fn options(typed: &Typed, overrides: &Overrides) -> anyhow::Result<Options> {
    let hosts = match &typed.hosts {
        None => Vec::new(),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            parse_hosts(&text).with_context(|| format!("{} is no list of hosts", file.display()))?
        }
    };
    Ok(Options {
        validators: match hosts.len() {
            0 => typed.validators.into(),
            _ => hosts.iter().filter(|host| host.validates()).count(),
        },
        hosts,
        dir: typed.dir.clone(),
        port: typed.port,
        block_interval: Duration::from_millis(typed.block_interval_ms),
        rounds: typed.rounds,
        authority: !typed.no_authority,
        within: Duration::from_secs(typed.within),
        child_args: overrides.to_args_of_any_home(),
    })
}

/// Shows what was checked; an error unless all of it holds.
fn judge(checks: &[Check], out: &Output) -> anyhow::Result<()> {
    let lines = || {
        let lines = checks.iter().map(|check| {
            let verdict = if check.holds { "ok    " } else { "FAILED" };
            format!("{verdict} {}: {}", check.name, check.found)
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    out.show(&checks, lines)?;
    let failed: Vec<&str> = checks.iter().filter(|c| !c.holds).map(|c| c.name).collect();
    anyhow::ensure!(!checks.is_empty(), "stopped before everything was checked");
    anyhow::ensure!(failed.is_empty(), "does not hold: {}", failed.join("; "));
    Ok(())
}

fn written(testnet: &Testnet) -> String {
    let mut lines = vec!["A home for each machine. Copy each to its machine as ~/.r3mes, and run `r3mes start` there:".to_owned()];
    lines.extend(
        testnet
            .nodes
            .iter()
            .map(|node| format!("  {}  {}", node.name, node.home.root().display())),
    );
    lines.push("Each holds keys: copy it to its own machine only. Ports 26656 and 8090 to 8100 must be open between them, and 26657 where a machine has no ledger.".to_owned());
    lines.join("\n")
}

fn runs(options: &Options, running: &Running) -> String {
    let mut lines = vec![format!(
        "{} validators run; files and logs are in {}. Ctrl-C stops all; the same command goes on.",
        running.rpc.len(),
        options.dir.display()
    )];
    lines.extend(running.rpc.iter().map(|rpc| format!("  RPC {rpc}")));
    lines.extend(running.api.map(|api| format!("  API http://{api}")));
    lines.join("\n")
}
