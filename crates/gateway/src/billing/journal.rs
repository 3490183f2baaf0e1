//! What providers have earned, as lines of a file: the newest total of each counts.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use r3mes_types::{Address, Amount, Time};
use serde::{Deserialize, Serialize};

/// Lines that are added before the file is written anew with the totals alone.
const MAX_ADDED: usize = 100_000;

/// An escrow: its number, and its end, which tells it from one of the same number on another chain.
pub type EscrowKey = (u64, Time);
/// What each payee has earned out of each escrow since it was opened.
pub type Earnings = BTreeMap<EscrowKey, BTreeMap<Address, Amount>>;

/// A line: what a payee has earned out of an escrow since it was opened.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    escrow: u64,
    expires_at_ns: u64,
    payee: String,
    uremes: u64,
}

/// The file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines in it.
    len: u64,
    /// Whether part of a line may stand behind them.
    torn: bool,
    /// Lines since it was written anew.
    added: usize,
    /// Whether a line was added that a loss of power would lose.
    unflushed: bool,
    /// Locked for as long as it is open.
    _lock: File,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the record of what was earned cannot be kept in {}", path.display())]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("another gateway writes {} already: one at a time bills by an account, so end the other one, or give this one a home and an account of its own", path.display())]
    Taken {
        /// Where it is.
        path: PathBuf,
    },
    /// A line of it is something else.
    #[error("line {line} of {} is no total that was earned: mend it, or move the file away and lose what was not settled", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl Journal {
    /// Opens the file, or makes it; with what stands in it. A last line that was cut short is left out.
    /// Nobody else opens it meanwhile: a file beside it is locked.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<(Self, Earnings), JournalError> {
        let failed = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let lock = lock(&path.with_extension("lock")).map_err(failed)?;
        let Some(lock) = lock else {
            let path = path.to_owned();
            return Err(JournalError::Taken { path });
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(error)),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut earnings = Earnings::new();
        for (index, line) in text[..whole].lines().enumerate() {
            let damaged = || JournalError::Damaged {
                path: path.to_owned(),
                line: index + 1,
            };
            let line: Line = serde_json::from_str(line).map_err(|_| damaged())?;
            let payee: Address = line.payee.parse().map_err(|_| damaged())?;
            let key = (line.escrow, Time::from_nanos(line.expires_at_ns));
            let earned = earnings.entry(key).or_default();
            let total = earned.entry(payee).or_default();
            *total = (*total).max(Amount::new(line.uremes));
        }
        let (file, len) = rewrite(path, &earnings).map_err(failed)?;
        let journal = Self {
            path: path.to_owned(),
            file,
            len,
            torn: false,
            added: 0,
            unflushed: false,
            _lock: lock,
        };
        Ok((journal, earnings))
    }

    /// Adds a total. It outlasts this process from here on, and a loss of power once what
    /// [`Journal::unflushed`] gives is flushed.
    ///
    /// # Errors
    /// When the file cannot be written. What part of the line it took is cut off, now or before the
    /// next one.
    pub fn add(
        &mut self,
        escrow: EscrowKey,
        payee: &Address,
        total: Amount,
    ) -> Result<(), JournalError> {
        let line = line(escrow, payee, total);
        let written = self
            .mend()
            .and_then(|()| self.file.write_all(&line))
            .inspect_err(|_| self.torn = true);
        if let Err(source) = written {
            // What fails here is tried again before the next line.
            let _ = self.mend();
            return Err(self.failed(source));
        }
        self.len += line.len() as u64;
        self.added += 1;
        self.unflushed = true;
        Ok(())
    }

    /// Cuts off what stands behind the last whole line.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.len)?;
            self.torn = false;
        }
        Ok(())
    }

    /// The file, to be flushed to the disk while the journal goes on; nothing if that was done since the
    /// last line.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn unflushed(&mut self) -> Result<Option<File>, JournalError> {
        if !self.unflushed {
            return Ok(None);
        }
        let file = self.file.try_clone();
        let file = file.map_err(|source| self.failed(source))?;
        self.unflushed = false;
        Ok(Some(file))
    }

    /// The error that flushing it gave, which is to be done again.
    pub fn not_flushed(&mut self, source: io::Error) -> JournalError {
        self.unflushed = true;
        self.failed(source)
    }

    /// Whether the file has so many lines that it should be written anew.
    pub fn is_long(&self) -> bool {
        self.added > MAX_ADDED
    }

    /// Writes the file anew with these totals alone.
    ///
    /// # Errors
    /// When it cannot be written; it stays as it was then.
    pub fn shorten(&mut self, earnings: &Earnings) -> Result<(), JournalError> {
        let rewritten = rewrite(&self.path, earnings);
        (self.file, self.len) = rewritten.map_err(|source| self.failed(source))?;
        self.torn = false;
        self.added = 0;
        // It was written as a whole, and flushed.
        self.unflushed = false;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> JournalError {
        JournalError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn line((escrow, expires_at): EscrowKey, payee: &Address, total: Amount) -> Vec<u8> {
    let line = Line {
        escrow,
        expires_at_ns: expires_at.nanos(),
        payee: payee.to_string(),
        uremes: total.uremes(),
    };
    // Numbers and text are always JSON.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The file at `path`, locked; nothing if another process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Writes the file as a whole or not at all; gives it to go on with, and its bytes.
fn rewrite(path: &Path, earnings: &Earnings) -> io::Result<(File, u64)> {
    let mut text = Vec::new();
    for (escrow, earned) in earnings {
        for (payee, total) in earned {
            text.extend(line(*escrow, payee, *total));
        }
    }
    let draft = path.with_extension("draft");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    // A name is in its folder, which outlasts a loss of power when it is flushed itself.
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    let file = OpenOptions::new().append(true).open(path)?;
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_total_of_each_escrow_and_payee_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        let (alice, bob) = (Address::from([1; 20]), Address::from([2; 20]));
        let end = Time::from_nanos(5);
        let (mut journal, none) = Journal::open(&path).unwrap();
        assert!(none.is_empty());
        for (number, payee, total) in [(1, alice, 3), (1, bob, 4), (1, alice, 9), (2, bob, 1)] {
            journal
                .add((number, end), &payee, Amount::new(total))
                .unwrap();
        }
        let amount = |of: &Earnings, number, payee| of[&(number, end)][payee].uremes();
        // As after a kill in the midst of a line.
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"escrow\":1,")).unwrap();
        drop(journal);
        let (mut journal, read) = Journal::open(&path).unwrap();
        let found = [(1, &alice), (1, &bob), (2, &bob)].map(|(n, who)| amount(&read, n, who));
        assert_eq!(found, [9, 4, 1]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        journal.add((2, end), &bob, Amount::new(7)).unwrap();
        drop(journal);
        let (_, read) = Journal::open(&path).unwrap();
        assert_eq!(amount(&read, 2, &bob), 7);
    }

    #[test]
    fn a_line_that_is_something_else_is_named_and_nothing_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        std::fs::write(&path, "nonsense\n").unwrap();
        let refusal = Journal::open(&path).unwrap_err().to_string();
        assert!(refusal.contains("line 1"), "{refusal}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense\n");
    }

    #[test]
    fn a_line_that_was_written_in_part_is_cut_off_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        let (alice, end) = (Address::from([1; 20]), Time::from_nanos(5));
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.add((1, end), &alice, Amount::new(3)).unwrap();
        let append = || OpenOptions::new().append(true).open(&path).unwrap();
        // As a disk that is full: neither the line can be written nor what it took of it be cut off.
        journal.file = File::open(&path).unwrap();
        let failed = journal.add((1, end), &alice, Amount::new(4)).unwrap_err();
        assert!(failed.to_string().contains("cannot be kept"), "{failed}");
        append().write_all(b"{\"escrow\":1,").unwrap();
        journal.file = append();
        journal.add((1, end), &alice, Amount::new(5)).unwrap();
        drop(journal);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let (_, read) = Journal::open(&path).unwrap();
        assert_eq!(read[&(1, end)][&alice], Amount::new(5));
    }

    #[test]
    fn one_at_a_time_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.jsonl");
        let first = Journal::open(&path).unwrap();
        let refusal = Journal::open(&path).unwrap_err();
        assert!(matches!(refusal, JournalError::Taken { .. }), "{refusal}");
        assert!(
            refusal.to_string().contains("end the other one"),
            "{refusal}"
        );
        drop(first);
        Journal::open(&path).unwrap();
    }
}
