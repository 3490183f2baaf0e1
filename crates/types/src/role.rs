//! What a node does on the network.

use std::fmt;

use crate::Resources;
use crate::wire::{DecodeError, Field, List, Reader};

crate::wire_enum! {
    /// A role that stands on the ledger, keyed and staked.
    pub enum Role {
        /// Trains: computes steps, commits to them and uploads packages.
        Miner = 1 => "miner",
        /// Answers inference requests.
        Serving = 2 => "serving",
        /// Recomputes what others claim, and votes.
        Validator = 3 => "validator",
        /// Aggregates the accepted packages of a round.
        Proposer = 4 => "proposer",
    }
}

impl Role {
    /// What a machine should have for this role. Less is worth a warning, never a refusal: the ledger
    /// pays for results.
    pub const fn needs(self) -> Resources {
        let (cpu_cores, memory_gb, gpu_count, storage_gb, network_bandwidth_mbps) = match self {
            Self::Miner => (2, 4, 1, 20, 10),
            Self::Serving => (2, 4, 0, 20, 10),
            Self::Validator => (1, 2, 0, 10, 5),
            Self::Proposer => (2, 4, 0, 50, 50),
        };
        Resources {
            cpu_cores,
            memory_gb,
            gpu_count,
            gpu_memory_gb: 0,
            storage_gb,
            network_bandwidth_mbps,
        }
    }
}

impl std::str::FromStr for Role {
    type Err = RoleError;
    fn from_str(text: &str) -> Result<Self, RoleError> {
        Self::ALL
            .iter()
            .copied()
            .find(|role| role.name() == text || role.number().to_string() == text)
            .ok_or_else(|| RoleError {
                text: text.chars().take(64).collect(),
            })
    }
}

/// Text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a role: use miner (1), serving (2), validator (3) or proposer (4)")]
pub struct RoleError {
    /// The text.
    pub text: String,
}

/// A set of roles; carried as their numbers, ascending.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleSet(u8);

impl RoleSet {
    /// No role.
    pub const EMPTY: Self = Self(0);

    /// The set of these roles.
    pub fn of(roles: &[Role]) -> Self {
        roles.iter().fold(Self::EMPTY, |set, role| set.with(*role))
    }

    /// The set with `role` added.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role.number())
    }

    /// Whether `role` is in the set.
    pub const fn contains(self, role: Role) -> bool {
        self.0 & 1 << role.number() != 0
    }

    /// Whether no role is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles, ascending by number.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL
            .iter()
            .copied()
            .filter(move |role| self.contains(*role))
    }
}

impl fmt::Debug for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl Field for RoleSet {
    fn described() -> (crate::wire::Label, crate::wire::Kind) {
        (
            crate::wire::Label::Repeated,
            <Role as crate::wire::Value>::kind(),
        )
    }

    fn shown(&self) -> crate::wire::Shown {
        crate::wire::Shown::List(
            self.iter()
                .map(|role| crate::wire::Value::shown(&role))
                .collect(),
        )
    }

    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        let mut list = List::<Role, 4>::default();
        for role in self.iter() {
            list.push(role).expect("there are four roles");
        }
        list.write(tag, out);
    }

    fn read(tag: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let list = List::<Role, 4>::read(tag, reader)?;
        if !list.is_sorted_by(|a, b| a < b) {
            return Err(DecodeError::invalid(
                "roles are listed once each, ascending",
            ));
        }
        Ok(list.iter().copied().collect())
    }
}
