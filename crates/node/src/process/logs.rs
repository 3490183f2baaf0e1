//! The log of a child: what it said last, and how large it may become.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::ERROR;

/// How much of a failed child's log a message quotes, in bytes.
const QUOTED: u64 = 2000;

/// When a log is set aside, and how many of those are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes from which on it is.
    pub bytes: u64,
    /// How many: LOG.1 is the newest, LOG.2 the one before it.
    pub kept: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            kept: 4,
        }
    }
}

/// A log that a child appends to.
#[derive(Debug)]
pub(super) struct ChildLog {
    path: PathBuf,
    /// Bytes that it had when this life of the child began.
    from: u64,
}

impl ChildLog {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, from: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is there already is of earlier lives.
    pub(super) fn begin_life(&mut self) {
        self.from = fs::metadata(&self.path).map_or(0, |log| log.len());
    }

    /// Sets the log aside if it is large. The file stays the one that the child has open: what was said is
    /// copied, and the child goes on at the beginning, since it appends.
    ///
    /// # Errors
    /// What the operating system says; the log is as it was then.
    pub(super) fn rotate(&mut self, rotation: Rotation) -> io::Result<()> {
        if fs::metadata(&self.path)?.len() < rotation.bytes {
            return Ok(());
        }
        // Only as far as the first gap: a copy that failed has left one, and is not paid for twice.
        let gap = (1..rotation.kept).find(|&number| !self.aside(number).exists());
        for number in (1..gap.unwrap_or(rotation.kept)).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if rotation.kept > 0 {
            let newest = self.aside(1);
            let copied = File::create(&newest)
                .and_then(|mut copy| io::copy(&mut File::open(&self.path)?, &mut copy));
            if let Err(error) = copied {
                // Half a copy is of no use, and the disk may be full.
                let _ = fs::remove_file(&newest);
                return Err(error);
            }
        }
        OpenOptions::new()
            .write(true)
            .open(&self.path)?
            .set_len(0)?;
        self.from = 0;
        Ok(())
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    /// The error that this life of the child ends with, if it does.
    pub(super) fn last_words(&self) -> Option<String> {
        let tail = self.tail();
        let at = tail
            .match_indices(ERROR)
            .map(|(at, _)| at)
            .filter(|&at| at == 0 || tail[..at].ends_with('\n'))
            .last()?;
        Some(tail[at + ERROR.len()..].trim_end().to_owned())
    }

    /// What the child logged last in this life, as far as a message quotes it.
    pub(super) fn tail(&self) -> String {
        let mut tail = Vec::new();
        // A log that cannot be read has no end to show.
        let _ = File::open(&self.path).and_then(|mut log| {
            let length = log.metadata()?.len();
            let from = self.from.max(length.saturating_sub(QUOTED));
            log.seek(SeekFrom::Start(from))?;
            log.take(QUOTED).read_to_end(&mut tail)
        });
        String::from_utf8_lossy(&tail).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const ROTATION: Rotation = Rotation { bytes: 8, kept: 2 };

    #[test]
    fn a_large_log_is_set_aside_and_its_writer_goes_on_at_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miner.log");
        let open = || OpenOptions::new().create(true).append(true).open(&path);
        let mut child = open().unwrap();
        let mut log = ChildLog::new(path.clone());
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        for (said, now, newest, older) in [
            ("first\n", "first\n", "", ""),
            ("second\n", "", "first\nsecond\n", ""),
            ("the third\n", "", "the third\n", "first\nsecond\n"),
            ("the fourth\n", "", "the fourth\n", "the third\n"),
            ("last\n", "last\n", "the fourth\n", "the third\n"),
        ] {
            child.write_all(said.as_bytes()).unwrap();
            log.rotate(ROTATION).unwrap();
            let names = ["miner.log", "miner.log.1", "miner.log.2", "miner.log.3"];
            assert_eq!(names.map(read), [now, newest, older, ""], "{said}");
        }
        assert_eq!(log.tail(), "last\n");
    }

    #[test]
    fn none_is_kept_where_none_is_wanted_and_what_was_not_copied_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("miner.log");
        let mut log = ChildLog::new(path.clone());
        fs::write(&path, "error: long enough\n").unwrap();
        fs::create_dir(folder.path().join("miner.log.1")).unwrap();
        let kept = Rotation {
            kept: 1,
            ..ROTATION
        };
        assert!(log.rotate(kept).is_err(), "a folder is in the way");
        assert_eq!(log.last_words().as_deref(), Some("long enough"));
        log.rotate(Rotation { kept: 0, ..kept }).unwrap();
        assert_eq!(log.tail(), "");
    }
}
