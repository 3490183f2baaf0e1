//! Each service and role in a process of its own, watched, restarted and stopped as a group.
//!
//! A child is this same binary, run as `r3mes --home HOME run SERVICE`. It writes one line, `ready`,
//! to its standard output when it can do its work; everything else it says goes to its log file.

mod child;
mod lock;
mod supervisor;

pub use lock::{HomeLock, LockError, read_board};
pub use supervisor::{Board, Phase, ServiceStatus, SuperviseError, Supervisor, publish_board};

use r3mes_types::Role;

use crate::home::Home;

/// What one process of a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Consensus, ledger, RPC and the bootstrap blob store.
    Ledger,
    /// The public API.
    Gateway,
    /// An agent that plays one role.
    Role(Role),
}

/// The line a child writes when it is ready.
pub const READY_LINE: &str = "ready";

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ledger => f.write_str("ledger"),
            Self::Gateway => f.write_str("gateway"),
            Self::Role(role) => write!(f, "{role}"),
        }
    }
}

impl std::str::FromStr for Service {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "ledger" => Ok(Self::Ledger),
            "gateway" => Ok(Self::Gateway),
            role => role.parse().map(Self::Role).map_err(|_| {
                format!("unknown service {role:?}: ledger, gateway, miner, serving, validator or proposer")
            }),
        }
    }
}

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
}

impl Spec {
    /// A service of a node's own home, labelled by its name.
    pub fn of(home: &Home, service: Service) -> Self {
        Self {
            label: service.to_string(),
            home: home.clone(),
            service,
            extra_args: Vec::new(),
        }
    }
}

/// Tells the supervisor that this process can do its work. Call once, after everything listens.
pub fn announce_ready() {
    use std::io::Write;
    let mut out = std::io::stdout();
    // A closed pipe means that nobody supervises us; the work goes on all the same.
    let _ = writeln!(out, "{READY_LINE}").and_then(|()| out.flush());
}

/// Makes the kernel end this process when its supervisor dies, however it dies.
///
/// # Errors
/// What the operating system says; on Linux this does not fail.
pub fn end_with_parent() -> std::io::Result<()> {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(Into::into)
}

/// Ends this process at once, for a second Ctrl-C; children end with it.
pub fn abandon() -> ! {
    #[expect(
        clippy::exit,
        reason = "the person asked twice; children get the parent-death signal"
    )]
    std::process::exit(130)
}
