//! One simulated node: the real plan, simulated work, and its own way of lying.

use std::collections::BTreeMap;

use r3mes_training::agent::{Action, AuditKey, Facts, RoundKey, Trained};
use r3mes_training::commitment::Commitment;
use r3mes_types::commitment::package_state;
use r3mes_types::task::Task;
use r3mes_types::training::{
    Backend, MinerPackage, Obligation, Package, StepVerdict, TrainingMessage, Verdict,
};
use r3mes_types::wire::List;
use r3mes_types::{Address, Cid, Hash, Role, Time};

use crate::behaviour::Behaviour;
use crate::compute::{ADAPTER, Compute, adapter_ref};
use crate::rng::Rng;

/// What nodes can reach of each other's bytes, and what liars have agreed on.
pub struct Site {
    /// What nodes compute with.
    pub compute: Box<dyn Compute>,
    /// All published bytes.
    pub blobs: BTreeMap<Cid, Vec<u8>>,
    /// The adapter that the run starts from, which everybody can compute.
    pub initial: Vec<u8>,
    /// States that lying miners claim, for their accomplices.
    pub claims: BTreeMap<(RoundKey, Address), Vec<Hash>>,
}

impl Site {
    fn put(&mut self, bytes: Vec<u8>) -> Cid {
        let cid = Cid::raw(&bytes);
        self.blobs.insert(cid, bytes);
        cid
    }

    /// The bytes behind a CID, if they have the hash that was promised.
    fn get(&self, cid: &Cid, hash: &Hash) -> Option<&Vec<u8>> {
        self.blobs.get(cid).filter(|bytes| Hash::of(bytes) == *hash)
    }

    fn start(&self, task: &Task) -> Option<Vec<u8>> {
        let adapter = match &task.start.cid {
            None => &self.initial,
            Some(cid) => self.get(cid, &task.start.adapter)?,
        };
        Some(self.compute.start(adapter))
    }
}

/// What a miner keeps of a round on disk.
#[derive(Default)]
struct Files {
    /// The states so far: first the one before the first step, then that after each.
    states: Vec<Vec<u8>>,
    /// The error feedback that the round began with.
    old_feedback: Option<Vec<u8>>,
    /// The package and the error feedback that it leaves, once the round is trained.
    result: Option<(Vec<u8>, Vec<u8>)>,
}

/// A simulated node.
pub struct Node {
    /// Its account.
    pub address: Address,
    /// Its only role.
    pub role: Role,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// The back end it computes with.
    pub backend: Backend,
    /// What it has ready.
    pub facts: Facts,
    /// It is down or cut off until then.
    pub away_until: Time,
    /// It has asked for its stake.
    pub leaves: bool,
    /// When it looks at the ledger next.
    pub wakes_at: Option<Time>,
    secret: [u8; 32],
    /// The newest round in which it has sent a commitment.
    committed: Option<u32>,
    /// On disk, as the error feedback is.
    files: BTreeMap<RoundKey, Files>,
    feedback: BTreeMap<Hash, Vec<u8>>,
    /// What it sent in the round before.
    last_package: Option<Vec<u8>>,
}

impl Node {
    /// A node that has nothing yet.
    #[must_use]
    pub fn new(address: Address, role: Role, behaviour: Behaviour, secret: [u8; 32]) -> Self {
        let backends = [Backend::Avx2, Backend::Avx512, Backend::Neon];
        Self {
            address,
            role,
            behaviour,
            backend: backends[usize::from(secret[0]) % backends.len()],
            facts: Facts::new(address, secret),
            away_until: Time::default(),
            leaves: false,
            wakes_at: None,
            secret,
            committed: None,
            files: BTreeMap::new(),
            feedback: BTreeMap::new(),
            last_package: None,
        }
    }

    /// Loses everything that was not on disk.
    pub fn crash(&mut self) {
        self.facts = Facts::new(self.address, self.secret);
    }

    /// Loses its disk too.
    pub fn lose_disk(&mut self) {
        self.crash();
        self.files.clear();
        self.feedback.clear();
    }

    /// Whether it has committed work that it may still be asked about, and that a lost disk would make
    /// unrepeatable: in the open round, or in any that is kept if it means to take its stake back.
    #[must_use]
    pub fn is_bound(&self, open: u32) -> bool {
        let quits = matches!(self.behaviour, Behaviour::Quitter(_));
        quits || self.committed.is_some_and(|round| round >= open)
    }

    /// Does one action; gives the messages to send.
    pub fn act(&mut self, site: &mut Site, action: Action) -> Vec<TrainingMessage> {
        match action {
            Action::Send(message) => {
                if let TrainingMessage::CommitStates(said) = message.as_ref() {
                    self.committed = Some(said.round);
                }
                return self.send(*message);
            }
            Action::Train(task) => self.train(site, &task, None),
            Action::GiveUp { round } => {
                self.facts.given_up.insert(round);
            }
            Action::Publish { round, steps, .. } => self.publish(site, round, &steps),
            Action::Fetch { round, packages } => self.fetch(site, round, &packages),
            Action::Audit(owed) => {
                let verdict = self.verdict(site, &owed, true);
                if let Some((key, verdict)) = verdict {
                    self.facts.verdicts.insert(key, verdict);
                }
            }
            Action::Replay(owed) => {
                let verdict = self.verdict(site, &owed, false);
                if let Some((key, verdict)) = verdict {
                    self.facts.replays.insert(key, verdict);
                }
            }
            Action::Aggregate(owed) => self.aggregate(site, &owed),
        }
        Vec::new()
    }

    /// Closed rounds are of no more use, but for second audits of those from `oldest_kept` on.
    pub fn forget_before(&mut self, run: u64, round: u32, oldest_kept: u32) {
        self.facts.forget_before(run, round, oldest_kept);
        self.files
            .retain(|key, _| key.run != run || key.round >= oldest_kept);
    }

    fn send(&self, message: TrainingMessage) -> Vec<TrainingMessage> {
        use TrainingMessage as Message;
        let withheld = matches!(
            (self.behaviour, &message),
            (Behaviour::Silent, _)
                | (
                    Behaviour::LazyVerdict,
                    Message::CommitVerdict(_) | Message::RevealVerdict(_) | Message::VoteCourt(_),
                )
                | (
                    Behaviour::WithheldStates,
                    Message::ServeStates(_) | Message::OpenLeaves(_)
                )
        );
        if withheld { Vec::new() } else { vec![message] }
    }

    /// Randomness of this node in one round: the same when it does the same again.
    fn dice(&self, round: RoundKey) -> Rng {
        let seed = Hash::of(&[&self.secret[..], &round.round.to_le_bytes()].concat());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&seed.as_ref()[..8]);
        Rng::new(u64::from_le_bytes(bytes))
    }

    /// Trains a round from where its files end; with `until`, only as far as the state before that
    /// step: there the process dies.
    pub fn train(&mut self, site: &mut Site, task: &Task, until: Option<u32>) {
        let round = RoundKey {
            run: task.run,
            round: task.round,
        };
        let Some(start) = site.start(task) else {
            return;
        };
        let forged = self.forged(task, round);
        let mut files = self.files.remove(&round).unwrap_or_default();
        files.old_feedback = task.feedback.and_then(|hash| {
            let own = files.old_feedback.filter(|bytes| Hash::of(bytes) == hash);
            own.or_else(|| self.feedback.get(&hash).cloned())
        });
        if files.states.is_empty() {
            files.states.push(start);
        }
        for index in files.states.len() as u32 - 1..task.steps {
            if until == Some(index) {
                self.files.insert(round, files);
                return;
            }
            let mut state = site
                .compute
                .step(task, index, &files.states[index as usize]);
            if let Some(bytes) = forged.get(&index) {
                let from = if self.behaviour == Behaviour::ForgedMoments {
                    ADAPTER
                } else {
                    0
                };
                state[from..from + 32].copy_from_slice(bytes);
            }
            files.states.push(state);
        }
        let old_feedback = files.old_feedback.as_deref();
        let (package, feedback) = match files.result.take() {
            Some(result) => result,
            None => self.pack(site, task, &files.states, old_feedback),
        };
        let lied = !forged.is_empty()
            || package != self.honest_package(site, task, &files.states, old_feedback);
        let record = self.offer(site, package.clone(), &feedback);
        let mut hashes: Vec<Hash> = files.states.iter().map(|state| Hash::of(state)).collect();
        hashes.push(package_state(&record.hash, &record.feedback));
        if lied {
            site.claims.insert((round, self.address), hashes.clone());
        }
        let trained = Trained {
            commitment: Commitment::new(&task.work(), &self.secret, hashes),
            package: record,
            feedback_lost: task.feedback.is_some() && files.old_feedback.is_none(),
            served: BTreeMap::new(),
            feedback_cid: None,
        };
        self.feedback.insert(Hash::of(&feedback), feedback.clone());
        files.result = Some((package, feedback));
        self.files.insert(round, files);
        self.facts.trained.insert(round, trained);
    }

    /// The steps that this miner falsifies, and what it writes into the state after each.
    fn forged(&self, task: &Task, round: RoundKey) -> BTreeMap<u32, [u8; 32]> {
        let mut dice = self.dice(round);
        let steps = match self.behaviour {
            Behaviour::FalsifiedSteps(count) | Behaviour::Quitter(count) => {
                dice.choose(task.steps, count)
            }
            Behaviour::WithheldStates | Behaviour::Leaver => (0..task.steps).collect(),
            Behaviour::ForgedMoments => dice.choose(task.steps, 1),
            _ => Vec::new(),
        };
        let forged = steps.into_iter().map(|step| (step, dice.bytes()));
        forged.collect()
    }

    fn honest_package(
        &self,
        site: &Site,
        task: &Task,
        states: &[Vec<u8>],
        feedback: Option<&[u8]>,
    ) -> Vec<u8> {
        let last = states.last().map_or(&[][..], Vec::as_slice);
        site.compute.package(task, last, feedback).0
    }

    /// The package and the new error feedback, true or not.
    fn pack(
        &self,
        site: &Site,
        task: &Task,
        states: &[Vec<u8>],
        old_feedback: Option<&[u8]>,
    ) -> (Vec<u8>, Vec<u8>) {
        let last = states.last().map_or(&[][..], Vec::as_slice);
        let (honest, feedback) = site.compute.package(task, last, old_feedback);
        let package = match self.behaviour {
            Behaviour::WrongFeedback => site.compute.package(task, last, Some(&[77; ADAPTER])).0,
            Behaviour::StalePackage | Behaviour::CopiedPackage => {
                self.last_package.clone().unwrap_or_else(|| honest.clone())
            }
            _ => honest.clone(),
        };
        (package, feedback)
    }

    /// Puts the package where others find it, or not.
    fn offer(&mut self, site: &mut Site, package: Vec<u8>, feedback: &[u8]) -> Package {
        let (hash, bytes) = (Hash::of(&package), package.len() as u64);
        let cid = match self.behaviour {
            Behaviour::WithheldPackage => Cid::raw(&package),
            Behaviour::SwappedCid => site.put([b"other bytes".as_slice(), &package].concat()),
            _ => site.put(package),
        };
        Package {
            cid,
            hash,
            bytes,
            feedback: Hash::of(feedback),
        }
    }

    /// Keeps a package to send it again in the next round.
    pub fn remember(&mut self, package: Vec<u8>) {
        self.last_package = Some(package);
    }

    fn publish(&mut self, site: &mut Site, round: RoundKey, steps: &[u32]) {
        let (Some(files), Some(trained)) =
            (self.files.get(&round), self.facts.trained.get_mut(&round))
        else {
            return;
        };
        for &step in steps {
            if let Some(state) = files.states.get(step as usize) {
                trained.served.insert(step, site.put(state.clone()));
            }
        }
        trained.feedback_cid = files
            .old_feedback
            .clone()
            .map(|feedback| site.put(feedback));
    }

    fn fetch(&mut self, site: &Site, round: RoundKey, packages: &[MinerPackage]) {
        let fetched = self.facts.fetched.entry(round).or_default();
        for MinerPackage { miner, package } in packages {
            let wants = self.behaviour != Behaviour::HoldsNothing;
            if wants && site.get(&package.cid, &package.hash).is_some() {
                fetched.held.insert(*miner);
            } else {
                fetched.given_up.insert(*miner);
            }
        }
    }

    fn verdict(&self, site: &Site, owed: &Obligation, served: bool) -> Option<(AuditKey, Verdict)> {
        let key = AuditKey::of(owed)?;
        let (round, claims) = (key.round, site.claims.get(&(key.round, key.miner)));
        if let (Behaviour::Accomplice, Some(claims)) = (self.behaviour, claims) {
            return Some((key, self.confirm(claims, &owed.steps)?));
        }
        let mut verdict = self.compute_verdict(site, owed, served)?;
        let mut dice = self.dice(round);
        match self.behaviour {
            Behaviour::FalseAccuser => {
                verdict.steps.last_mut()?.after = Hash::from(dice.bytes());
                verdict.feedback_withheld = false;
            }
            Behaviour::GuessedVerdict => {
                let mut before: Option<StepVerdict> = None;
                for step in verdict.steps.iter_mut() {
                    step.after = Hash::from(dice.bytes());
                    if let Some(last) = before.filter(|last| last.step + 1 == step.step) {
                        step.before = last.after;
                    }
                    before = Some(step.clone());
                }
                verdict.feedback_withheld = false;
            }
            _ => {}
        }
        Some((key, verdict))
    }

    /// A verdict that says what the miner says.
    fn confirm(&self, claims: &[Hash], steps: &[u32]) -> Option<Verdict> {
        let steps: Option<Vec<StepVerdict>> = steps
            .iter()
            .map(|&step| {
                Some(StepVerdict {
                    step,
                    before: *claims.get(step as usize)?,
                    after: *claims.get(step as usize + 1)?,
                })
            })
            .collect();
        Some(Verdict {
            backend: self.backend,
            steps: List::new(steps?).ok()?,
            feedback_withheld: false,
        })
    }

    /// Re-runs the audited steps: from what the miner served, or else from the public start.
    fn compute_verdict(&self, site: &Site, owed: &Obligation, served: bool) -> Option<Verdict> {
        let task = owed.task.as_ref()?;
        let mut withheld = false;
        let mut steps: Vec<StepVerdict> = Vec::new();
        let mut after: Option<(u32, Vec<u8>)> = None;
        for &step in &owed.steps {
            let known = after
                .take()
                .filter(|(next, _)| *next == step)
                .map(|(_, state)| state);
            let shown = || {
                owed.served.as_ref().filter(|_| served).and_then(|all| {
                    let state = all.states.iter().find(|state| state.step == step)?;
                    site.get(&state.cid, &state.state).cloned()
                })
            };
            let before = match known.or_else(shown) {
                Some(state) => state,
                None => replay(site, task, step)?,
            };
            let before_hash = Hash::of(&before);
            let after_hash = if step < task.steps {
                let mut state = site.compute.step(task, step, &before);
                if self.behaviour == Behaviour::KernelBug {
                    state[0] ^= 1;
                }
                let hash = Hash::of(&state);
                after = Some((step + 1, state));
                hash
            } else {
                match old_feedback(site, owed, task) {
                    Ok(feedback) => {
                        let (package, new) = site.compute.package(task, &before, feedback);
                        package_state(&Hash::of(&package), &Hash::of(&new))
                    }
                    Err(Withheld) => {
                        withheld = true;
                        Hash::ZERO
                    }
                }
            };
            steps.push(StepVerdict {
                step,
                before: before_hash,
                after: after_hash,
            });
        }
        Some(Verdict {
            backend: self.backend,
            steps: List::new(steps).ok()?,
            feedback_withheld: withheld,
        })
    }

    fn aggregate(&mut self, site: &mut Site, owed: &Obligation) {
        let Some(rules) = &owed.aggregation else {
            return;
        };
        let start = match &rules.start.cid {
            None => site.initial.clone(),
            Some(cid) => match site.get(cid, &rules.start.adapter) {
                Some(adapter) => adapter.clone(),
                None => return,
            },
        };
        let packages: Option<Vec<Vec<u8>>> = owed
            .packages
            .iter()
            .map(|entry| site.get(&entry.package.cid, &entry.package.hash).cloned())
            .collect();
        let Some(packages) = packages else { return };
        let mut adapter = site.compute.aggregate(&start, &packages);
        if self.behaviour == Behaviour::WrongAggregate {
            adapter[0] ^= 1;
        }
        let aggregate = adapter_ref(site.compute.as_ref(), &adapter);
        site.put(adapter);
        self.facts.aggregates.insert(RoundKey::of(owed), aggregate);
    }
}

/// The error feedback could not be had.
struct Withheld;

fn old_feedback<'s>(
    site: &'s Site,
    owed: &Obligation,
    task: &Task,
) -> Result<Option<&'s [u8]>, Withheld> {
    let Some(hash) = task.feedback else {
        return Ok(None);
    };
    let cid = owed
        .served
        .as_ref()
        .and_then(|served| served.feedback)
        .ok_or(Withheld)?;
    site.get(&cid, &hash)
        .map(|bytes| Some(bytes.as_slice()))
        .ok_or(Withheld)
}

/// The state before a step, computed from the public start.
fn replay(site: &Site, task: &Task, step: u32) -> Option<Vec<u8>> {
    let start = site.start(task)?;
    Some((0..step).fold(start, |state, index| site.compute.step(task, index, &state)))
}
