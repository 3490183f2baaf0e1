//! What providers have earned, as lines of a file: the newest total of each counts.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use r3mes_types::{Address, Amount, Time};
use serde::{Deserialize, Serialize};

/// Lines after which the file is written anew with the totals alone.
const MAX_LINES: usize = 100_000;

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
    lines: usize,
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
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<(Self, Earnings), JournalError> {
        let failed = |source| JournalError::Io {
            path: path.to_owned(),
            source,
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
        let file = rewrite(path, &earnings).map_err(failed)?;
        let lines = earnings.values().map(BTreeMap::len).sum();
        let journal = Self {
            path: path.to_owned(),
            file,
            lines,
        };
        Ok((journal, earnings))
    }

    /// Adds a total. It outlasts this process from here on, and a loss of power once
    /// [`Journal::handle`] is flushed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(
        &mut self,
        escrow: EscrowKey,
        payee: &Address,
        total: Amount,
    ) -> Result<(), JournalError> {
        self.lines += 1;
        let written = self.file.write_all(&line(escrow, payee, total));
        written.map_err(|source| self.failed(source))
    }

    /// The file, to be flushed to the disk while the journal goes on.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn handle(&self) -> Result<File, JournalError> {
        self.file.try_clone().map_err(|source| self.failed(source))
    }

    /// Whether the file has so many lines that it should be written anew.
    pub fn is_long(&self) -> bool {
        self.lines > MAX_LINES
    }

    /// Writes the file anew with these totals alone.
    ///
    /// # Errors
    /// When it cannot be written; it stays as it was then.
    pub fn shorten(&mut self, earnings: &Earnings) -> Result<(), JournalError> {
        let rewritten = rewrite(&self.path, earnings);
        self.file = rewritten.map_err(|source| self.failed(source))?;
        self.lines = earnings.values().map(BTreeMap::len).sum();
        Ok(())
    }

    /// The error that the file gave this.
    pub fn failed(&self, source: io::Error) -> JournalError {
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

/// Writes the file as a whole or not at all; gives it to go on with.
fn rewrite(path: &Path, earnings: &Earnings) -> io::Result<File> {
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
    OpenOptions::new().append(true).open(path)
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
        let (mut journal, read) = Journal::open(&path).unwrap();
        let found = [(1, &alice), (1, &bob), (2, &bob)].map(|(n, who)| amount(&read, n, who));
        assert_eq!(found, [9, 4, 1]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        journal.add((2, end), &bob, Amount::new(7)).unwrap();
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
}
