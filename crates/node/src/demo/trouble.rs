//! What can go wrong beside the rounds, and would otherwise only be seen as a round that takes long.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::progress::Progress;
use crate::process::Board;

const MIB: u64 = 1 << 20;
/// How often the disk is looked at.
const DISK_POLL: Duration = Duration::from_secs(1);
/// With less space than this, in MiB, the next state or package does not fit.
const LEAST_SPACE_MIB: u64 = 8;

/// Space left on the disk that holds `dir`, in MiB.
///
/// # Errors
/// When the operating system does not say.
pub(super) fn free_mib(dir: &Path) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(dir)
        .with_context(|| format!("cannot tell how much space {} has", dir.display()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) / MIB)
}

/// Tells of every process that ended unasked; returns with the reason only when the network cannot go on.
pub(super) async fn watch(
    dir: &Path,
    mut board: watch::Receiver<Board>,
    progress: &Progress,
) -> anyhow::Error {
    let mut told = restarts(&board.borrow_and_update());
    let mut disk = interval(DISK_POLL);
    disk.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = board.changed() => {
                if changed.is_err() {
                    return anyhow::anyhow!("the processes are not looked after any more");
                }
                let board = board.borrow_and_update();
                for (label, status) in board.iter() {
                    if status.restarts > told.get(label).copied().unwrap_or(0) {
                        progress.say(&format!(
                            "{label} ended unasked and was started again; its log: {}",
                            status.log.display()
                        ));
                    }
                }
                told = restarts(&board);
            }
            _ = disk.tick() => if let Err(error) = require_space(dir) {
                return error;
            },
        }
    }
}

fn require_space(dir: &Path) -> anyhow::Result<()> {
    let free = free_mib(dir)?;
    anyhow::ensure!(
        free >= LEAST_SPACE_MIB,
        "the disk that holds {} is full ({free} MiB left); make room, or name a folder on another disk with --dir",
        dir.display()
    );
    Ok(())
}

fn restarts(board: &Board) -> BTreeMap<String, u32> {
    let count = board
        .iter()
        .map(|(label, status)| (label.clone(), status.restarts));
    count.collect()
}
