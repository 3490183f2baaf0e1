//! What this machine has, as a node's registration says it.

use std::path::Path;

use anyhow::Context;
use r3mes_types::Resources;

use crate::home::Home;

/// Where Linux says how much main memory there is.
const MEMORY_FILE: &str = "/proc/meminfo";

/// Processor cores that this process may use, main memory, and the size of the disk that holds the
/// home, in whole GiB, the fraction dropped. GPUs and the network are not measured and stay 0: the
/// kernels run on processors only.
///
/// # Errors
/// When the operating system does not say.
pub(super) fn resources(home: &Home) -> anyhow::Result<Resources> {
    let memory = std::fs::read_to_string(MEMORY_FILE)
        .with_context(|| format!("cannot read {MEMORY_FILE}"))?;
    let memory_kib = memory_kib(&memory)
        .with_context(|| format!("{MEMORY_FILE} does not say how much memory there is"))?;
    let cores = std::thread::available_parallelism().context("cannot count processor cores")?;
    Ok(Resources {
        cpu_cores: u32::try_from(cores.get())?,
        memory_gb: u32::try_from(memory_kib >> 20)?,
        storage_gb: u32::try_from(disk_bytes(home.root())? >> 30)?,
        ..Resources::default()
    })
}

/// The line `MemTotal:  24608424 kB`, in KiB.
fn memory_kib(text: &str) -> Option<u64> {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(dir)
        .with_context(|| format!("cannot tell how large the disk of {} is", dir.display()))?;
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_says_what_the_machine_has() {
        let folder = tempfile::tempdir().unwrap();
        let found = resources(&Home::new(folder.path())).unwrap();
        assert!(found.cpu_cores > 0);
        let disk = rustix::fs::statvfs(folder.path()).unwrap();
        assert_eq!(
            u64::from(found.storage_gb),
            disk.f_blocks * disk.f_frsize / (1 << 30)
        );
        assert_eq!(
            memory_kib("MemTotal:       24608424 kB\nMemFree:  1 kB\n"),
            Some(24_608_424)
        );
        assert_eq!(memory_kib("MemFree: 1 kB\n"), None);
    }
}
