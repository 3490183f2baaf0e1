//! Keeps a set of children running.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    HomeLock, READY_LINE, Readiness, Rotation, Spec, UNFIT,
    backoff::{Backoff, MAX_FAILED_STARTS},
    child,
    logs::ChildLog,
    space,
};

/// How often a socket is tried that a child is to listen on.
const SOCKET_POLL: Duration = Duration::from_millis(50);
/// When the status file is tried again that could not be written.
const REPUBLISH: Duration = Duration::from_secs(5);
/// How often it is looked how large a log is.
const LOOK_AT_LOGS: Duration = Duration::from_secs(10);

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Started, not yet able to work.
    Starting,
    /// At work.
    Ready,
    /// Ended unasked; waiting to be started again.
    BackingOff,
    /// Ended as asked, or given up.
    Stopped,
}

/// What the status board says of one child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Its log file.
    pub log: PathBuf,
    /// What it said when it last ended unasked; nothing once it is ready again.
    #[serde(default)]
    pub failure: Option<String>,
}

/// All children's status by label.
pub type Board = BTreeMap<String, ServiceStatus>;

/// Why supervision ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// A child could not even be started.
    #[error("cannot start {label}")]
    Spawn {
        /// The child.
        label: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A child ended because this machine cannot do its work.
    #[error("{label} does not work on this machine: {failure}")]
    Unfit {
        /// The child.
        label: String,
        /// What it said.
        failure: String,
    },
    /// A child ended again and again before it was ready.
    #[error(
        "{label} ended {MAX_FAILED_STARTS} times before it was ready. What it said last, from {log}:\n{tail}"
    )]
    NeverReady {
        /// The child.
        label: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

/// How children are started and stopped.
#[derive(Clone, Copy, Debug)]
struct Conduct {
    command: fn(&Spec) -> io::Result<Command>,
    backoff: Backoff,
    /// How long a child has to end after it was asked to, before it is killed.
    grace: Duration,
    /// When logs are set aside.
    rotation: Rotation,
    /// How often that is looked at.
    look: Duration,
}

impl Default for Conduct {
    fn default() -> Self {
        Self {
            command: child::command,
            backoff: Backoff::default(),
            grace: Duration::from_secs(10),
            rotation: Rotation::default(),
            look: LOOK_AT_LOGS,
        }
    }
}

/// Keeps children running until it is told to stop.
pub struct Supervisor {
    conduct: Conduct,
    board: watch::Sender<Board>,
    held: watch::Sender<BTreeSet<String>>,
    children: JoinSet<Result<(), SuperviseError>>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// A supervisor with no children. When `shutdown` is cancelled, every child is stopped.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            conduct: Conduct::default(),
            board: watch::Sender::new(Board::new()),
            held: watch::Sender::default(),
            children: JoinSet::new(),
            shutdown,
        }
    }

    /// The same, in which logs are set aside like this.
    #[must_use]
    pub const fn rotating(mut self, rotation: Rotation) -> Self {
        self.conduct.rotation = rotation;
        self
    }

    /// A view of the board that can be waited on.
    pub fn board(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    /// Starts a child and keeps it running.
    pub fn add(&mut self, spec: Spec) {
        let status = ServiceStatus {
            phase: Phase::Starting,
            pid: None,
            restarts: 0,
            log: spec.home.log(&spec.service.to_string()),
            failure: None,
        };
        self.board.send_modify(|board| {
            board.insert(spec.label.clone(), status);
        });
        let keeper = Keeper {
            conduct: self.conduct,
            log: ChildLog::new(spec.home.log(&spec.service.to_string())),
            spec,
            board: self.board.clone(),
            held: self.held.subscribe(),
        };
        self.children.spawn(keeper.run(self.shutdown.clone()));
    }

    /// Does not start a child again that ends, until it is [released](Supervisor::release).
    pub fn hold(&self, label: &str) {
        self.held.send_modify(|held| {
            held.insert(label.to_owned());
        });
    }

    /// Starts a child again that was [held](Supervisor::hold).
    pub fn release(&self, label: &str) {
        self.held.send_modify(|held| {
            held.remove(label);
        });
    }

    /// Waits until every child so far is ready.
    ///
    /// # Errors
    /// The first child's error that was given up.
    pub async fn all_ready(&mut self) -> Result<(), SuperviseError> {
        let mut board = self.board.subscribe();
        let ready = |board: &Board| board.values().all(|status| status.phase == Phase::Ready);
        tokio::select! {
            _ = board.wait_for(ready) => Ok(()),
            result = next(&mut self.children) => result,
        }
    }

    /// Runs until `shutdown`, or until a child is given up; then stops all.
    ///
    /// # Errors
    /// The error of the child that was given up.
    pub async fn run(mut self) -> Result<(), SuperviseError> {
        let mut outcome = Ok(());
        while let Some(result) = self.children.join_next().await {
            let result = result.unwrap_or(Ok(()));
            if result.is_err() {
                self.shutdown.cancel();
            }
            outcome = outcome.and(result);
        }
        outcome
    }
}

/// Keeps the home's status file up to date for as long as the supervisor lives: with the services whose
/// labels begin with `prefix`, without it. The task ends, and the home is free, once the supervisor has
/// ended and the last of it is written.
pub fn publish_board(supervisor: &Supervisor, lock: HomeLock, prefix: &str) -> JoinHandle<()> {
    let mut board = supervisor.board();
    let prefix = prefix.to_owned();
    tokio::spawn(async move {
        loop {
            let current = board
                .borrow_and_update()
                .iter()
                .filter_map(|(label, status)| {
                    Some((label.strip_prefix(&prefix)?.to_owned(), status.clone()))
                })
                .collect();
            let published = lock.publish(&current);
            if let Err(error) = &published {
                tracing::warn!(%error, "cannot write the status file");
            }
            // One that could not be written is out of date until it is.
            let again = async {
                match published {
                    Ok(()) => std::future::pending().await,
                    Err(_) => tokio::time::sleep(REPUBLISH).await,
                }
            };
            tokio::select! {
                changed = board.changed() => if changed.is_err() {
                    return;
                },
                () = again => {}
            }
        }
    })
}

async fn next(children: &mut JoinSet<Result<(), SuperviseError>>) -> Result<(), SuperviseError> {
    match children.join_next().await {
        Some(Ok(result)) => result,
        _ => Ok(()),
    }
}

/// Looks after one child.
struct Keeper {
    conduct: Conduct,
    spec: Spec,
    board: watch::Sender<Board>,
    held: watch::Receiver<BTreeSet<String>>,
    log: ChildLog,
}

/// How one life of a child ended.
enum Ended {
    Asked,
    Unasked {
        was_ready: bool,
        lived: Duration,
    },
    /// Its disk is full: nothing is wrong with it.
    NoSpace,
    /// It would end likewise if it were started again.
    Unfit,
}

impl Keeper {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), SuperviseError> {
        let mut backoff = self.conduct.backoff;
        loop {
            self.log.begin_life();
            let child = (self.conduct.command)(&self.spec)
                .and_then(|command| child::spawn(&self.spec, command));
            let ended = match child {
                Ok(child) => self.live(child, &shutdown).await,
                Err(error) if space::is_used_up(self.spec.home.root(), &error.to_string()) => {
                    self.no_space(&error.to_string())
                }
                Err(source) => {
                    let label = self.spec.label.clone();
                    return Err(SuperviseError::Spawn { label, source });
                }
            };
            let pause_for = match ended {
                Ended::Asked => return Ok(()),
                Ended::Unasked { was_ready, lived } => backoff.after(was_ready.then_some(lived)),
                Ended::NoSpace => Some(backoff.longer()),
                Ended::Unfit => {
                    self.set(|status| status.phase = Phase::Stopped);
                    return Err(SuperviseError::Unfit {
                        label: self.spec.label.clone(),
                        failure: self.log.last_words().unwrap_or_default(),
                    });
                }
            };
            let Some(pause_for) = pause_for else {
                self.set(|status| status.phase = Phase::Stopped);
                return Err(self.never_ready());
            };
            self.set(|status| {
                status.phase = Phase::BackingOff;
                status.pid = None;
            });
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.set(|status| status.phase = Phase::Stopped);
                    return Ok(());
                }
                () = pause(pause_for, &mut self.held, &self.spec.label) => {}
            }
            self.set(|status| {
                status.restarts += 1;
                status.phase = Phase::Starting;
            });
        }
    }

    async fn live(&mut self, mut child: Child, shutdown: &CancellationToken) -> Ended {
        let born = Instant::now();
        self.set(|status| status.pid = child.id());
        let mut lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        let mut was_ready = false;
        let readiness = self.spec.readiness.clone();
        let answers = answers(&readiness);
        tokio::pin!(answers);
        let mut look = tokio::time::interval(self.conduct.look);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    if let Err(error) = child::stop(&mut child, self.conduct.grace).await {
                        tracing::warn!(label = self.spec.label, %error, "could not stop a child cleanly");
                    }
                    self.set(|status| { status.phase = Phase::Stopped; status.pid = None; });
                    return Ended::Asked;
                }
                () = &mut answers, if !was_ready => {
                    was_ready = true;
                    self.set_ready();
                }
                line = next_line(&mut lines) => match line {
                    Some(line) if line == READY_LINE => {
                        was_ready = true;
                        self.set_ready();
                    }
                    Some(_) => {}
                    None => lines = None,
                },
                _ = look.tick() => {
                    if let Err(error) = self.log.rotate(self.conduct.rotation) {
                        tracing::warn!(label = self.spec.label, %error, "a log is large and cannot be set aside");
                    }
                }
                exit = child.wait() => {
                    return self.unasked(exit, was_ready, born.elapsed());
                }
            }
        }
    }

    fn unasked(&self, exit: io::Result<ExitStatus>, was_ready: bool, lived: Duration) -> Ended {
        let unfit = exit
            .as_ref()
            .is_ok_and(|status| status.code() == Some(i32::from(UNFIT)));
        let exit = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
        if !unfit && space::is_used_up(self.spec.home.root(), &self.log.tail()) {
            return self.no_space(&self.log.last_words().unwrap_or(exit));
        }
        let failure = self.log.last_words().unwrap_or_else(|| exit.clone());
        let log = self.log.path().display().to_string();
        tracing::warn!(
            label = self.spec.label,
            exit,
            failure,
            log,
            "a child ended unasked"
        );
        self.set(|status| {
            status.pid = None;
            status.failure = Some(failure);
        });
        match unfit {
            true => Ended::Unfit,
            false => Ended::Unasked { was_ready, lived },
        }
    }

    /// Says that the disk is full, and what the child said.
    fn no_space(&self, said: &str) -> Ended {
        let home = self.spec.home.root().display();
        let failure = format!(
            "the disk of {home} is full, and it is started again until there is room: remove what is not needed. It said: {said}"
        );
        tracing::warn!(label = self.spec.label, failure, "a child needs space");
        self.set(|status| {
            status.pid = None;
            status.failure = Some(failure);
        });
        Ended::NoSpace
    }

    fn set_ready(&self) {
        self.set(|status| {
            status.phase = Phase::Ready;
            status.failure = None;
        });
    }

    fn set(&self, change: impl FnOnce(&mut ServiceStatus)) {
        self.board.send_modify(|board| {
            if let Some(status) = board.get_mut(&self.spec.label) {
                change(status);
            }
        });
    }

    fn never_ready(&self) -> SuperviseError {
        SuperviseError::NeverReady {
            label: self.spec.label.clone(),
            tail: self.log.tail(),
            log: self.log.path().to_owned(),
        }
    }
}

/// Pauses before a child is started again, and longer while it is held.
async fn pause(backoff: Duration, held: &mut watch::Receiver<BTreeSet<String>>, label: &str) {
    tokio::time::sleep(backoff).await;
    // An error says that the supervisor has gone, and shutdown with it.
    let _ = held.wait_for(|held| !held.contains(label)).await;
}

/// Waits until a child's socket takes connections; for ever when it tells by a line.
async fn answers(readiness: &Readiness) {
    let Readiness::Socket(path) = readiness else {
        return std::future::pending().await;
    };
    let path: &Path = path;
    while UnixStream::connect(path).await.is_err() {
        tokio::time::sleep(SOCKET_POLL).await;
    }
}

/// The next line; never returns once the output is closed.
async fn next_line(
    lines: &mut Option<tokio::io::Lines<BufReader<tokio::process::ChildStdout>>>,
) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
