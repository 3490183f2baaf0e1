//! Each service and role in a process of its own, watched, restarted and stopped as a group.
//!
//! A child is this same binary, run as `r3mes --home HOME run SERVICE`. It writes one line, `ready`,
//! to its standard output when it can do its work; everything else it says goes to its log file.
//! `run cometbft` becomes the program CometBFT, which is ready when its RPC takes connections.

mod backoff;
mod child;
mod lock;
mod logs;
mod space;
mod supervisor;

pub use lock::{HomeLock, LockError, last_board, read_board};
pub use logs::Rotation;
pub use supervisor::{Board, Phase, ServiceStatus, SuperviseError, Supervisor, publish_board};

use std::path::PathBuf;

use r3mes_types::Role;

use crate::home::Home;

/// What one process of a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Ledger, RPC and the bootstrap blob store; under engine `local` consensus too.
    Ledger,
    /// The program CometBFT.
    CometBft,
    /// The public API.
    Gateway,
    /// The gateway of remote functions.
    Functions,
    /// An agent that plays one role.
    Role(Role),
}

/// The line a child writes when it is ready.
pub const READY_LINE: &str = "ready";

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ledger => f.write_str("ledger"),
            Self::CometBft => f.write_str("cometbft"),
            Self::Gateway => f.write_str("gateway"),
            Self::Functions => f.write_str("functions"),
            Self::Role(role) => write!(f, "{role}"),
        }
    }
}

impl std::str::FromStr for Service {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "ledger" => Ok(Self::Ledger),
            "cometbft" => Ok(Self::CometBft),
            "gateway" => Ok(Self::Gateway),
            "functions" => Ok(Self::Functions),
            role => role.parse().map(Self::Role).map_err(|_| {
                format!("unknown service {role:?}: ledger, cometbft, gateway, functions, miner, serving, validator or proposer")
            }),
        }
    }
}

/// What the last words of a process begin with that ends with an error.
pub const ERROR: &str = "error: ";

/// Exit status of a process whose machine cannot do its work: started again, it would end likewise.
pub const UNFIT: u8 = 69;

/// One child to keep running.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name on the status board and in messages; unique under one supervisor.
    pub label: String,
    /// Whose configuration, keys and data it uses.
    pub home: Home,
    /// What it does.
    pub service: Service,
    /// Further arguments after `run SERVICE`.
    pub extra_args: Vec<String>,
    /// How it tells that it can do its work.
    pub readiness: Readiness,
}

/// How a child tells that it can do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It writes [`READY_LINE`].
    Line,
    /// A Unix socket takes connections.
    Socket(PathBuf),
}

impl Spec {
    /// A service of a node's own home, labelled by its name.
    pub fn of(home: &Home, service: Service) -> Self {
        Self {
            label: service.to_string(),
            home: home.clone(),
            service,
            extra_args: Vec::new(),
            readiness: match service {
                Service::CometBft => Readiness::Socket(home.cometbft_rpc()),
                _ => Readiness::Line,
            },
        }
    }

    /// The same under a name that is unique among those of several homes.
    #[must_use]
    pub fn labelled(self, label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            ..self
        }
    }

    /// The same with these arguments after `run SERVICE`.
    #[must_use]
    pub fn with_args(self, extra_args: Vec<String>) -> Self {
        Self { extra_args, ..self }
    }
}

/// Tells the supervisor that this process can do its work. Call once, after everything listens.
pub fn announce_ready() {
    use std::io::Write;
    let mut out = std::io::stdout();
    // A closed pipe means that nobody supervises us; the work goes on all the same.
    let _ = writeln!(out, "{READY_LINE}").and_then(|()| out.flush());
}

/// Makes the kernel end this process when its supervisor dies, however it dies. `supervisor` is the
/// process id of who started it, where somebody did.
///
/// # Errors
/// When the supervisor has died already.
pub fn end_with_parent(supervisor: Option<u32>) -> std::io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // From here on its death is told; after one before, somebody else is the parent.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    let supervisor = supervisor.and_then(|pid| i32::try_from(pid).ok());
    match supervisor.is_none() || supervisor == parent {
        true => Ok(()),
        false => Err(std::io::Error::other(
            "the process that started this one has ended",
        )),
    }
}

/// Whether this process was started so that it outlives its terminal, as `nohup` does.
pub fn ignores_hangup() -> bool {
    const HANGUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & HANGUP != 0)
}

/// Ends this process at once, for a second Ctrl-C; children end with it.
pub fn abandon() -> ! {
    #[expect(
        clippy::exit,
        reason = "the person asked twice; children get the parent-death signal"
    )]
    std::process::exit(130)
}
