//! Whether a child ended because its disk is full.

use std::path::Path;

/// Where less is free, in bytes, whatever ended did so for that: it may not even have been able to log it.
const NEEDED: u64 = 1 << 20;
/// What the operating system says of it, in lower case.
const SAID: [&str; 2] = ["no space left on device", "disk quota exceeded"];

/// Whether the disk that a folder is on is full, or a child said that some disk is.
pub(super) fn is_used_up(folder: &Path, said: &str) -> bool {
    let said = said.to_lowercase();
    SAID.iter().any(|words| said.contains(words)) || free(folder).is_some_and(|free| free < NEEDED)
}

/// Bytes that are free where a folder is; nothing where that cannot be told.
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_by_what_is_said_and_by_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free(folder.path()).is_some_and(|free| free > 0));
        for said in [
            "cannot write /x\n  because: No space left on device (os error 28)",
            "panic: write /x: no space left on device",
            "because: Disk quota exceeded (os error 122)",
        ] {
            assert!(is_used_up(folder.path(), said), "{said}");
        }
        assert!(!is_used_up(
            folder.path(),
            "Permission denied (os error 13)"
        ));
        assert!(
            is_used_up(Path::new("/proc"), ""),
            "nothing can be written there"
        );
        assert!(!is_used_up(Path::new("/nowhere"), ""), "it cannot be told");
    }
}
