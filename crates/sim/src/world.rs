//! The event loop: block after block, with everything that goes wrong between them.

mod outages;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use r3mes_training::agent::plan;
use r3mes_types::bank::QueryBalance;
use r3mes_types::nodes::{MsgLeave, MsgUnjail, NodeStatus, QueryNode};
use r3mes_types::rewards::QueryVesting;
use r3mes_types::training::{
    Outcome, QueryObligations, QueryRound, QueryRun, RoundRecord, RunStatus, TrainingMessage,
};
use r3mes_types::{Address, Amount, Event, Message, Millis, Role, Time};

use crate::behaviour::Behaviour;
use crate::chain::{Chain, Made};
use crate::compute::HashChain;
use crate::network::{Built, KEPT_ROUNDS, Network};
use crate::node::{Node, Site};
use crate::partition::Schedule;
use crate::report::{Report, Standing};
use crate::rng::Rng;
use crate::watch::Watch;
use crate::weather::Weather;

/// The only run of a simulation.
pub const RUN: u64 = 1;
/// The event loop gives up after so many blocks per round.
const MAX_BLOCKS_PER_ROUND: u64 = 2_000;
/// A node looks again at what it owes after this long, in case its answer was lost.
const RETRY: Millis = Millis::seconds(10);
/// What training, re-running or aggregating takes at most, in milliseconds.
const MAX_WORK: u64 = 3_000;

/// A whole network in one process.
pub struct World {
    /// The ledger.
    pub chain: Chain,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// What they share.
    pub site: Site,
    /// What must hold.
    pub watch: Watch,
    mail: BTreeMap<(Time, u64), Message>,
    posted: u64,
    weather: Weather,
    partitions: Schedule,
    rng: Rng,
    /// When and where processes die: a stream of its own, so that it moves nothing else.
    deaths: Rng,
    crashes: u32,
    jailed: BTreeSet<Address>,
    seed: u64,
    rounds: u32,
    steps: u32,
    messages: u64,
    /// The round that is open, or opens next.
    open: u32,
    last_kinds: BTreeSet<&'static str>,
}

impl World {
    /// Begins a network.
    ///
    /// # Errors
    /// When the ledger refuses its genesis.
    pub fn new(network: &Network) -> Result<Self> {
        let compute = Box::new(HashChain);
        let Built {
            nodes,
            keys,
            genesis,
            initial,
            secret,
            rng,
        } = network.build(compute.as_ref())?;
        let honest = nodes.iter().filter(|node| node.behaviour.is_honest());
        let mut watch = Watch::new(honest.map(|node| node.address).collect(), network);
        for node in &nodes {
            watch.know(node.address, node.behaviour);
        }
        let chain = Chain::start(genesis, &secret, keys)?;
        let mut world = Self {
            partitions: Schedule::new(network.seed, network.partitions, chain.time()),
            chain,
            nodes,
            site: Site {
                compute,
                blobs: BTreeMap::new(),
                initial,
                claims: BTreeMap::new(),
            },
            watch,
            mail: BTreeMap::new(),
            posted: 0,
            weather: Weather::of(network),
            rng,
            deaths: Rng::new(network.seed ^ outages::DEATHS),
            crashes: 0,
            jailed: BTreeSet::new(),
            seed: network.seed,
            rounds: network.rounds,
            steps: network.steps,
            messages: 0,
            open: 0,
            last_kinds: BTreeSet::new(),
        };
        world.block(Vec::new())?;
        Ok(world)
    }

    /// Runs until the run is finished or paused.
    ///
    /// # Errors
    /// An invariant that does not hold, or a ledger that stands still; the seed is named.
    pub fn run(&mut self) -> Result<Report> {
        let seed = self.seed;
        self.run_to_its_end()
            .with_context(|| format!("the run with seed {seed} failed"))
    }

    fn run_to_its_end(&mut self) -> Result<Report> {
        let limit = MAX_BLOCKS_PER_ROUND * u64::from(self.rounds);
        while self.is_running()? {
            anyhow::ensure!(
                self.chain.height() < limit,
                "the run is not finished after {limit} blocks"
            );
            self.turn()?;
        }
        self.report()
    }

    /// Goes on until nothing is due any more: second audits are over, stake is paid back.
    ///
    /// # Errors
    /// An invariant that does not hold; the seed is named.
    pub fn run_out(&mut self) -> Result<()> {
        while self.chain.next_deadline().is_some() {
            self.step()?;
        }
        Ok(())
    }

    /// Goes on until every partition is healed and a round that opened after the last one has closed.
    ///
    /// # Errors
    /// An invariant that does not hold, or a run that ends before; the seed is named.
    pub fn run_until_healed(&mut self) -> Result<Report> {
        let seed = self.seed;
        let mut healed = None;
        while healed.is_none_or(|round| self.open <= round) {
            if healed.is_none() && self.partitions.is_over() {
                // The round that is open may have suffered; the one after it must not.
                healed = Some(self.open + 1);
            }
            let going = self.is_running()?;
            anyhow::ensure!(
                going,
                "the run with seed {seed} ended before the last partition"
            );
            self.step()?;
        }
        self.report()
    }

    /// One turn: the next thing that happens, and the block after it.
    ///
    /// # Errors
    /// An invariant that does not hold; the seed is named.
    pub fn step(&mut self) -> Result<()> {
        let seed = self.seed;
        self.turn()
            .with_context(|| format!("the run with seed {seed} failed"))
    }

    fn turn(&mut self) -> Result<()> {
        let now = self.next_time()?;
        self.part(now)?;
        self.wake_nodes(now)?;
        let due: Vec<(Time, u64)> = self
            .mail
            .range(..=(now, u64::MAX))
            .map(|(key, _)| *key)
            .collect();
        let messages: Vec<Message> = due.iter().filter_map(|key| self.mail.remove(key)).collect();
        let deadline = self
            .chain
            .next_deadline()
            .is_some_and(|deadline| deadline <= now);
        if messages.is_empty() && !deadline {
            return Ok(());
        }
        self.block_at(now, messages)
    }

    /// A closed or open round in full.
    ///
    /// # Errors
    /// When the ledger does not keep it.
    pub fn round(&self, round: u32) -> Result<RoundRecord> {
        self.chain.ask(&QueryRound { run: RUN, round })
    }

    /// Sends a message at once, as a user would.
    ///
    /// # Errors
    /// When the block cannot be made.
    pub fn block(&mut self, messages: Vec<Message>) -> Result<()> {
        self.block_at(self.chain.time().after(Millis::new(1)), messages)
    }

    /// What a node has: free, vesting, at stake, and on its way back.
    ///
    /// # Errors
    /// When the ledger refuses the question.
    pub fn wealth(&self, address: Address) -> Result<Amount> {
        let free = self.chain.ask(&QueryBalance { address })?.amount;
        let vesting = self.chain.ask(&QueryVesting { address })?.total;
        let earned = free.saturating_add(vesting);
        let node = self
            .chain
            .ask(&QueryNode { address })?
            .node
            .context("it is registered")?;
        let unbonding = node.unbonding.iter().map(|part| part.amount);
        Ok(unbonding.fold(earned.saturating_add(node.bonded), Amount::saturating_add))
    }

    /// Kinds of events in the last block.
    pub fn last_kinds(&self) -> impl Iterator<Item = &'static str> {
        self.last_kinds
            .iter()
            .copied()
            .filter(|kind| kind.starts_with("training."))
    }

    /// Whether a round is open, or another will open.
    fn is_running(&self) -> Result<bool> {
        let run = self.chain.ask(&QueryRun { run: RUN })?;
        Ok(run.open || run.status == RunStatus::Active)
    }

    fn next_time(&self) -> Result<Time> {
        let wakes = self.nodes.iter().filter_map(|node| node.wakes_at);
        let mail = self.mail.keys().next().map(|(time, _)| *time);
        let parts = self.partitions.next_time();
        let next = wakes
            .chain(mail)
            .chain(self.chain.next_deadline())
            .chain(parts)
            .min();
        let next = next.context("nothing will ever happen again: the round stands still")?;
        Ok(next.max(self.chain.time().after(Millis::new(1))))
    }

    fn block_at(&mut self, now: Time, messages: Vec<Message>) -> Result<()> {
        self.messages += messages.len() as u64;
        let Made { events, results } = self.chain.block(now, &messages)?;
        self.watch.results(&messages, &results)?;
        self.watch.block(&self.chain, &events)?;
        let news = events.iter().any(|event| {
            matches!(
                event.kind,
                "training.phase"
                    | "training.open_round"
                    | "training.propose"
                    | "training.backup"
                    | "training.reaudit"
            )
        });
        self.last_kinds = events.iter().map(|event| event.kind).collect();
        for event in &events {
            self.hear(event)?;
        }
        if news {
            for index in 0..self.nodes.len() {
                let delay = self.rng.between(1, self.weather.delay);
                if self.partitions.view(index).is_none() {
                    self.wake_at(index, now.after(Millis::new(delay)));
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, event: &Event) -> Result<()> {
        match event.kind {
            "training.phase" => self.strike(),
            "training.slashed" => {
                let address = event.get("address").context("a slash names a node")?;
                self.jailed.insert(address.parse()?);
            }
            "training.close_round" => {
                let round = event
                    .get("round")
                    .context("a round has a number")?
                    .parse()?;
                self.closed(round)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Partitions heal and begin.
    fn part(&mut self, now: Time) -> Result<()> {
        for index in self.partitions.heal(now) {
            self.wake_at(index, now);
        }
        let roles: Vec<Role> = self.nodes.iter().map(|node| node.role).collect();
        for (index, until) in self.partitions.begin(now, &roles) {
            let address = self.nodes[index].address;
            let view = self.chain.ask(&QueryObligations { address })?.obligations;
            self.partitions.cut(index, until, view.to_vec());
            self.hold_back(address, until);
        }
        self.watch.cut(self.partitions.is_cut());
        Ok(())
    }

    /// What a node has sent and has not arrived yet comes after `until`.
    fn hold_back(&mut self, address: Address, until: Time) {
        let sent = self
            .mail
            .extract_if(.., |_, message| message.actor() == address);
        let late: Vec<((Time, u64), Message)> = sent.collect();
        for ((time, number), message) in late {
            self.mail.insert((time.max(until), number), message);
        }
    }

    fn closed(&mut self, number: u32) -> Result<()> {
        let record = self.round(number)?;
        let claims = &self.site.claims;
        self.watch.closed(&record, number, |round, miner| {
            claims.contains_key(&(round, miner))
        })?;
        self.hand_down(&record);
        self.open = number + 1;
        let oldest_kept = self.open.saturating_sub(KEPT_ROUNDS);
        self.site
            .claims
            .retain(|(key, _), _| key.round >= oldest_kept);
        for node in &mut self.nodes {
            node.forget_before(RUN, self.open, oldest_kept);
        }
        self.quit(&record);
        Ok(())
    }

    /// Quitters whose package was accepted ask for their stake.
    fn quit(&mut self, record: &RoundRecord) {
        let accepted = |address: &Address| {
            let mut entries = record.entries.iter();
            let entry = entries.find(|entry| entry.miner == *address);
            entry.is_some_and(|entry| entry.outcome == Some(Outcome::Accepted))
        };
        let mut quitting = Vec::new();
        for node in &mut self.nodes {
            let quits = matches!(node.behaviour, Behaviour::Quitter(_)) && !node.leaves;
            if quits && accepted(&node.address) {
                node.leaves = true;
                quitting.push(node.address);
            }
        }
        for address in quitting {
            self.mail(self.chain.time(), MsgLeave { address }.into());
        }
    }

    /// Copiers keep what others sent in the round that closed, and sluggards what they sent themselves.
    fn hand_down(&mut self, record: &RoundRecord) {
        let sent: Vec<(Address, Vec<u8>)> = record
            .entries
            .iter()
            .filter(|entry| entry.outcome == Some(Outcome::Accepted))
            .filter_map(|entry| {
                let package = entry.package.as_ref()?;
                Some((entry.miner, self.site.blobs.get(&package.cid)?.clone()))
            })
            .collect();
        for node in &mut self.nodes {
            let mine = |sent: &&(Address, Vec<u8>)| sent.0 == node.address;
            let found = match node.behaviour {
                Behaviour::StalePackage => sent.iter().find(mine),
                Behaviour::CopiedPackage => sent.iter().find(|sent| !mine(sent)),
                _ => None,
            };
            if let Some((_, package)) = found {
                node.remember(package.clone());
            }
        }
    }

    fn wake_at(&mut self, index: usize, time: Time) {
        let node = &mut self.nodes[index];
        let time = time.max(node.away_until);
        node.wakes_at = Some(node.wakes_at.map_or(time, |planned| planned.min(time)));
    }

    fn wake_nodes(&mut self, now: Time) -> Result<()> {
        for index in 0..self.nodes.len() {
            let due = self.nodes[index].wakes_at.is_some_and(|time| time <= now);
            if !due {
                continue;
            }
            self.nodes[index].wakes_at = None;
            if self.nodes[index].away_until > now {
                let back = self.nodes[index].away_until;
                self.wake_at(index, back);
                continue;
            }
            self.work(index, now)?;
        }
        Ok(())
    }

    /// A node looks at what it owes and goes on with it.
    fn work(&mut self, index: usize, now: Time) -> Result<()> {
        let address = self.nodes[index].address;
        let actions = match self.partitions.view(index) {
            Some(owed) => plan(&self.nodes[index].facts, owed),
            None => {
                self.unjail(address, now)?;
                let owed = self.chain.ask(&QueryObligations { address })?.obligations;
                plan(&self.nodes[index].facts, &owed)
            }
        };
        let busy = !actions.is_empty();
        let mut worked = false;
        for action in actions {
            if self.deaths.percent(self.weather.deadly) {
                self.die_in(index, now, action);
                return Ok(());
            }
            let is_work = !matches!(action, r3mes_training::agent::Action::Send(_));
            worked |= is_work;
            for message in self.nodes[index].act(&mut self.site, action) {
                self.post(index, now, message);
            }
        }
        if worked {
            let time = Millis::new(self.rng.between(1, MAX_WORK));
            self.wake_at(index, now.after(time));
        } else if busy {
            self.wake_at(index, now.after(RETRY));
        }
        Ok(())
    }

    fn post(&mut self, index: usize, now: Time, message: TrainingMessage) {
        let node = &self.nodes[index];
        let leaves = node.behaviour == Behaviour::Leaver
            && matches!(message, TrainingMessage::RevealPackage(_));
        let address = node.address;
        let Some(time) = self.partitions.departure(index, now) else {
            return;
        };
        self.mail(time, message.into());
        if leaves {
            self.mail(time, MsgLeave { address }.into());
        }
    }

    fn mail(&mut self, now: Time, message: Message) {
        if self.rng.percent(self.weather.lost) {
            return;
        }
        let copies = 1 + u64::from(self.rng.percent(self.weather.doubled));
        for _ in 0..copies {
            let delay = Millis::new(self.rng.between(1, self.weather.delay));
            self.posted += 1;
            let arrives = self.weather.arrival(now.after(delay));
            self.mail.insert((arrives, self.posted), message.clone());
        }
    }

    /// Nodes that were jailed ask back in as soon as they may.
    fn unjail(&mut self, address: Address, now: Time) -> Result<()> {
        if !self.jailed.contains(&address) {
            return Ok(());
        }
        let node = self
            .chain
            .ask(&QueryNode { address })?
            .node
            .context("it is registered")?;
        match node.status {
            NodeStatus::Jailed if node.jailed_until <= now => {
                self.mail(now, MsgUnjail { address }.into());
            }
            NodeStatus::Jailed => {}
            NodeStatus::Active | NodeStatus::Left => {
                self.jailed.remove(&address);
            }
        }
        Ok(())
    }

    /// What became of everybody.
    ///
    /// # Errors
    /// When the ledger refuses a question.
    pub fn report(&self) -> Result<Report> {
        let mut nodes = Vec::new();
        for node in &self.nodes {
            nodes.push(Standing {
                address: node.address,
                role: node.role,
                behaviour: node.behaviour,
                wealth: self.wealth(node.address)?,
                tally: self.watch.tally(&node.address),
            });
        }
        Ok(Report {
            rounds: self.watch.rounds(),
            blocks: self.chain.height(),
            partitions: self.partitions.begun(),
            crashes: self.crashes,
            messages: self.messages,
            refused: self.watch.refused(),
            steps: self.steps,
            nodes,
        })
    }
}
