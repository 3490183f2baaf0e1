//! The machines that homes are made for, as a file names them.

use r3mes_types::{Role, RoleError};

/// A machine and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name or address.
    pub name: String,
    /// Its roles; a validator has a ledger, and signs blocks.
    pub roles: Vec<Role>,
}

impl Host {
    /// Whether it has a ledger.
    #[must_use]
    pub fn validates(&self) -> bool {
        self.roles.contains(&Role::Validator)
    }
}

/// Why a file names no machines to make homes for.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A line begins with something else than a machine.
    #[error(
        "line {line}: {name:?} is no name or IPv4 address of a machine (write it without a port)"
    )]
    Name {
        /// Number of the line, from 1.
        line: usize,
        /// What it begins with.
        name: String,
    },
    /// A machine is named twice.
    #[error("line {line}: {name} stands there twice")]
    NameTwice {
        /// Number of the line, from 1.
        line: usize,
        /// The machine.
        name: String,
    },
    /// A machine is to play a role that there is not.
    #[error("line {line} names a role that there is not")]
    UnknownRole {
        /// Number of the line, from 1.
        line: usize,
        /// What is there instead.
        #[source]
        source: RoleError,
    },
    /// A machine is given a role twice.
    #[error("line {line}: {role} stands there twice")]
    RoleTwice {
        /// Number of the line, from 1.
        line: usize,
        /// The role.
        role: Role,
    },
    /// No line names a machine.
    #[error("there is no host in it: write one a line")]
    Empty,
    /// Nobody plays a role without which the network stands still.
    #[error("{lacks}: write {role} behind a host")]
    Lacks {
        /// The role.
        role: Role,
        /// What would not be done.
        lacks: &'static str,
    },
}

/// The machines in a file, one a line without ports, each with its roles behind its name; `#` begins a
/// remark. One without roles mines and validates. Where none is named to aggregate, or to answer
/// prompts, the first validator does.
///
/// # Errors
/// Names the line that is no machine with roles; and nobody may be missing without whom no block is
/// made or nothing is trained.
pub fn parse_hosts(text: &str) -> Result<Vec<Host>, HostsError> {
    let mut hosts: Vec<Host> = Vec::new();
    for (line, written) in (1..).zip(text.lines()) {
        let written = written.split('#').next().unwrap_or_default();
        let mut words = written.split_whitespace();
        let Some(name) = words.next() else {
            continue;
        };
        let name = name.to_owned();
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !name.chars().all(known) {
            return Err(HostsError::Name { line, name });
        }
        if hosts.iter().any(|other| other.name == name) {
            return Err(HostsError::NameTwice { line, name });
        }
        let mut roles = Vec::new();
        for word in words {
            let role = word.parse::<Role>();
            let role = role.map_err(|source| HostsError::UnknownRole { line, source })?;
            if roles.contains(&role) {
                return Err(HostsError::RoleTwice { line, role });
            }
            roles.push(role);
        }
        if roles.is_empty() {
            roles = vec![Role::Miner, Role::Validator];
        }
        hosts.push(Host { name, roles });
    }
    if hosts.is_empty() {
        return Err(HostsError::Empty);
    }
    for (role, lacks) in [
        (Role::Validator, "nobody would sign blocks"),
        (Role::Miner, "nobody would train"),
    ] {
        if !hosts.iter().any(|host| host.roles.contains(&role)) {
            return Err(HostsError::Lacks { role, lacks });
        }
    }
    for role in [Role::Serving, Role::Proposer] {
        let plays = hosts.iter().any(|host| host.roles.contains(&role));
        let first = hosts.iter_mut().find(|host| host.validates());
        if let (false, Some(first)) = (plays, first) {
            first.roles.push(role);
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, roles: &[Role]) -> Host {
        Host {
            name: name.to_owned(),
            roles: roles.to_vec(),
        }
    }

    #[test]
    fn hosts_are_one_a_line_and_the_first_also_aggregates_and_answers() {
        let hosts = parse_hosts("10.0.0.1\n# a remark\n\nb.example # another\n").unwrap();
        let usual = [Role::Miner, Role::Validator];
        let all = [&usual[..], &[Role::Serving, Role::Proposer]].concat();
        assert_eq!(hosts, [host("10.0.0.1", &all), host("b.example", &usual)]);
    }

    #[test]
    fn roles_stand_behind_a_host_and_what_nobody_is_named_for_the_first_validator_does() {
        let hosts = parse_hosts("a miner\nb validator\nc validator\nd serving miner\n").unwrap();
        let expected = [
            host("a", &[Role::Miner]),
            host("b", &[Role::Validator, Role::Proposer]),
            host("c", &[Role::Validator]),
            host("d", &[Role::Serving, Role::Miner]),
        ];
        assert_eq!(hosts, expected);
    }

    #[test]
    fn what_is_no_host_or_role_is_named_with_its_line() {
        for (text, said) in [
            ("a\nb:1\n", "line 2"),
            ("a\n../b\n", "line 2"),
            ("a\na\n", "line 2: a stands there twice"),
            ("a\nb minor\n", "line 2"),
            ("a miner miner\n", "line 1: miner stands there twice"),
            ("a miner\n", "nobody would sign blocks: write validator"),
            ("a validator\n", "nobody would train: write miner"),
            ("# nobody\n", "no host"),
        ] {
            let refusal = parse_hosts(text).unwrap_err().to_string();
            assert!(refusal.contains(said), "{text}: {refusal}");
        }
    }
}
