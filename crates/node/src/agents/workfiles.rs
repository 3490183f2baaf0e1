//! What a miner keeps of a round on disk, so that a killed miner goes on where it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use r3mes_training::{
    agent::RoundKey,
    commitment::Commitment,
    state::{StepState, encode_floats, floats_from_bytes, hash_floats},
};
use r3mes_types::{
    Hash,
    commitment::{Work, package_state},
    task::Task,
};

/// Rounds of a run that are kept: the open one and the one before.
const KEPT_ROUNDS: u32 = 2;

/// The folder of one round.
///
/// ```text
/// work/RUN-ROUND/state-0000 ...  the state before each step; its BLAKE3 is the state's hash
/// work/RUN-ROUND/begun-with      the error feedback that the round began with
/// work/RUN-ROUND/package         what is uploaded
/// work/RUN-ROUND/feedback        the error feedback that it leaves
/// feedback/HASH                  the error feedback that later rounds may start from
/// ```
pub(super) struct WorkFiles {
    root: PathBuf,
    dir: PathBuf,
    durable: bool,
}

/// A round's finished files, and the commitment over them.
pub(super) struct FinishedFiles {
    /// The package's bytes.
    pub(super) package: Vec<u8>,
    /// BLAKE3 of the new error feedback.
    pub(super) feedback_hash: Hash,
    /// The commitment over all states.
    pub(super) commitment: Commitment,
}

impl WorkFiles {
    /// The files of a task's round under `root`; older rounds' files are removed. With `durable`, each
    /// file is flushed to the disk before it counts as written.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(root: &Path, task: &Task, durable: bool) -> io::Result<Self> {
        let dir = root
            .join("work")
            .join(format!("{}-{}", task.run, task.round));
        fs::create_dir_all(&dir)?;
        fs::create_dir_all(root.join("feedback"))?;
        if let Some(old) = task.round.checked_sub(KEPT_ROUNDS) {
            let old = root.join("work").join(format!("{}-{old}", task.run));
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
            dir,
            durable,
        })
    }

    /// The files of a round that was opened before.
    pub(super) fn of_round(root: &Path, round: RoundKey, durable: bool) -> Self {
        Self {
            root: root.to_owned(),
            dir: root
                .join("work")
                .join(format!("{}-{}", round.run, round.round)),
            durable,
        }
    }

    /// The error feedback that the round began with.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn begun_with(&self) -> io::Result<Vec<f32>> {
        Ok(floats_from_bytes(&fs::read(self.dir.join("begun-with"))?))
    }

    /// Stores the state before a step.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn write_state(&self, state: &StepState) -> io::Result<()> {
        self.write_whole(&self.state_file(state.step), &state.encode())
    }

    /// The bytes of the state before a step.
    ///
    /// # Errors
    /// What the operating system says, `NotFound` when the round is not that far.
    pub(super) fn read_state(&self, step: u64) -> io::Result<Vec<u8>> {
        fs::read(self.state_file(step))
    }

    /// Hashes of the states stored so far, from the first without a gap.
    pub(super) fn state_hashes(&self) -> Vec<Hash> {
        (0..)
            .map_while(|step| self.read_state(step).ok())
            .map(|bytes| Hash::of(&bytes))
            .collect()
    }

    /// Stores what the round ends with; the feedback also for the next round.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn write_result(&self, package: &[u8], feedback: &[f32]) -> io::Result<()> {
        let bytes = encode_floats(feedback);
        self.write_whole(&self.feedback_file(&hash_floats(feedback)), &bytes)?;
        self.write_whole(&self.dir.join("feedback"), &bytes)?;
        self.write_whole(&self.dir.join("package"), package)
    }

    /// What the round ended with, if it has.
    pub(super) fn read_result(
        &self,
        work: &Work,
        steps: u32,
        secret: &[u8; 32],
    ) -> Option<FinishedFiles> {
        let package = fs::read(self.dir.join("package")).ok()?;
        let feedback_hash = Hash::of(&fs::read(self.dir.join("feedback")).ok()?);
        let mut states = self.state_hashes();
        if states.len() != steps as usize + 1 {
            return None;
        }
        states.push(package_state(&Hash::of(&package), &feedback_hash));
        Some(FinishedFiles {
            commitment: Commitment::new(work, secret, states),
            package,
            feedback_hash,
        })
    }

    /// Error feedback of an earlier round, by its hash; remembered as what this round began with.
    pub(super) fn old_feedback(&self, hash: &Hash) -> Option<Vec<f32>> {
        let bytes = fs::read(self.feedback_file(hash)).ok()?;
        let right = Hash::of(&bytes) == *hash
            && self
                .write_whole(&self.dir.join("begun-with"), &bytes)
                .is_ok();
        right.then(|| floats_from_bytes(&bytes))
    }

    fn state_file(&self, step: u64) -> PathBuf {
        self.dir.join(format!("state-{step:04}"))
    }

    fn feedback_file(&self, hash: &Hash) -> PathBuf {
        self.root.join("feedback").join(hash.to_string())
    }

    /// Writes a file so that it is there whole or not at all.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use io::Write;
        let draft = path.with_extension("tmp");
        let mut file = fs::File::create(&draft)?;
        file.write_all(bytes)?;
        if self.durable {
            file.sync_data()?;
        }
        fs::rename(&draft, path)
    }
}
