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
    wire::Wire,
};

/// The folder of one round.
///
/// ```text
/// work/RUN-ROUND/task            BLAKE3 of the task, but its feedback, that the others are the work of
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

/// Removes the files of a run's rounds before `first`, with the error feedback that they left: what a
/// later round began with is among that round's own files.
///
/// # Errors
/// What the operating system says.
pub(super) fn remove_before(root: &Path, first: RoundKey) -> io::Result<()> {
    let folders = match fs::read_dir(root.join("work")) {
        Ok(folders) => folders,
        // Only miners have work files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for folder in folders {
        let folder = folder?;
        let Some(round) = folder.file_name().to_str().and_then(parse_folder) else {
            continue;
        };
        if round.run != first.run || round.round >= first.round {
            continue;
        }
        if let Ok(feedback) = fs::read(folder.path().join("feedback")) {
            let kept = root.join("feedback").join(Hash::of(&feedback).to_string());
            match fs::remove_file(kept) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::remove_dir_all(folder.path())?;
    }
    Ok(())
}

/// The name of a round's folder.
fn folder(round: RoundKey) -> String {
    format!("{}-{}", round.run, round.round)
}

/// The round of a folder.
fn parse_folder(name: &str) -> Option<RoundKey> {
    let (run, round) = name.split_once('-')?;
    let (run, round) = (run.parse().ok()?, round.parse().ok()?);
    Some(RoundKey { run, round })
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
    /// The files of a task's round under `root`. With `durable`, each file is flushed to the disk before
    /// it counts as written. Files of another task are removed: a chain that goes on from another opens
    /// a round anew that was open there, with other data.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn open(root: &Path, task: &Task, durable: bool) -> io::Result<Self> {
        let round = RoundKey {
            run: task.run,
            round: task.round,
        };
        let files = Self::of_round(root, round, durable);
        fs::create_dir_all(root.join("feedback"))?;
        // Feedback that was lost is not named any more; the work goes on.
        let same = Task {
            feedback: None,
            ..task.clone()
        };
        let (file, name) = (files.dir.join("task"), Hash::of(&same.encode()));
        if fs::read(&file).is_ok_and(|known| known == name.as_bytes()) {
            return Ok(files);
        }
        if files.dir.exists() {
            fs::remove_dir_all(&files.dir)?;
        }
        fs::create_dir_all(&files.dir)?;
        files.write_whole(&file, name.as_bytes())?;
        Ok(files)
    }

    /// The files of a round that was opened before.
    pub(super) fn of_round(root: &Path, round: RoundKey, durable: bool) -> Self {
        Self {
            root: root.to_owned(),
            dir: root.join("work").join(folder(round)),
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
        let own = self.dir.join("begun-with");
        let read = |path: &Path| fs::read(path).ok().filter(|bytes| Hash::of(bytes) == *hash);
        if let Some(bytes) = read(&own) {
            return Some(floats_from_bytes(&bytes));
        }
        let bytes = read(&self.feedback_file(hash))?;
        self.write_whole(&own, &bytes).ok()?;
        Some(floats_from_bytes(&bytes))
    }

    fn state_file(&self, step: u64) -> PathBuf {
        self.dir.join(format!("state-{step:04}"))
    }

    fn feedback_file(&self, hash: &Hash) -> PathBuf {
        self.root.join("feedback").join(hash.to_string())
    }

    /// Writes a file so that it is there whole or not at all.
    fn write_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_draft(path, bytes).map_err(|error| {
            // The operating system does not say which file, and so which disk, it was.
            let said = format!("cannot write {}: {error}", path.display());
            io::Error::new(error.kind(), said)
        })
    }

    fn write_draft(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use r3mes_types::{
        Address, Cid,
        task::{AdapterRef, ShardRef},
    };

    use super::*;

    fn write(root: &Path, round: u32, feedback: &[f32]) -> WorkFiles {
        let files = WorkFiles::of_round(root, RoundKey { run: 1, round }, false);
        fs::create_dir_all(&files.dir).unwrap();
        fs::create_dir_all(root.join("feedback")).unwrap();
        files.write_result(b"package", feedback).unwrap();
        files
    }

    #[test]
    fn old_rounds_go_with_their_feedback_and_what_a_kept_one_began_with_stays() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let left = [[1.0], [2.0], [3.0]];
        let rounds: Vec<WorkFiles> = (0..3)
            .map(|round| write(root, round, &left[round as usize]))
            .collect();
        assert!(rounds[1].old_feedback(&hash_floats(&left[0])).is_some());
        remove_before(root, RoundKey { run: 2, round: 9 }).unwrap();
        assert!(rounds[0].dir.exists(), "another run's rounds stay");
        remove_before(root, RoundKey { run: 1, round: 1 }).unwrap();
        assert!(!rounds[0].dir.exists() && rounds[1].dir.exists());
        assert!(!rounds[0].feedback_file(&hash_floats(&left[0])).exists());
        assert!(rounds[2].old_feedback(&hash_floats(&left[1])).is_some());
        assert_eq!(rounds[1].begun_with().unwrap(), left[0]);
        // Its feedback is gone from where all rounds keep it.
        assert_eq!(
            rounds[1].old_feedback(&hash_floats(&left[0])).unwrap(),
            left[0]
        );
        assert!(rounds[1].old_feedback(&hash_floats(&left[2])).is_some());
        assert!(rounds[1].old_feedback(&hash_floats(&[9.0])).is_none());
    }

    fn task(beacon: &[u8]) -> Task {
        let (hyper, _) = r3mes_training::presets::demonstration(1);
        Task {
            run: 1,
            round: 2,
            miner: Address::from([3; 20]),
            model: Hash::of(b"model"),
            exact_version: 1,
            adapter_seed: Hash::of(b"seed"),
            start: AdapterRef {
                cid: None,
                adapter: Hash::of(b"adapter"),
                state: Hash::of(b"state"),
            },
            shard: ShardRef {
                index: 0,
                cid: Cid::raw(b"shard"),
                tokens: 1,
            },
            steps: 0,
            hyper,
            beacon: Hash::of(beacon),
            feedback: None,
        }
    }

    #[test]
    fn the_work_of_another_task_of_the_same_round_is_not_taken_up() {
        let root = tempfile::tempdir().unwrap();
        let (ours, other) = (task(b"ours"), task(b"another chain's"));
        let state = StepState::start(vec![1.0]);
        let result = |task: &Task| {
            let files = WorkFiles::open(root.path(), task, false).unwrap();
            let result = files.read_result(&task.work(), 0, &[7; 32]);
            (files, result.map(|done| done.package))
        };
        let (files, none) = result(&ours);
        assert_eq!(none, None);
        files.write_state(&state).unwrap();
        files.write_result(b"package", &[1.0]).unwrap();
        assert_eq!(result(&ours).1, Some(b"package".to_vec()));
        let (files, stale) = result(&other);
        assert_eq!(stale, None);
        assert!(files.state_hashes().is_empty());
    }

    #[test]
    fn a_role_without_work_files_has_nothing_to_remove() {
        let root = tempfile::tempdir().unwrap();
        remove_before(root.path(), RoundKey { run: 1, round: 5 }).unwrap();
    }
}
