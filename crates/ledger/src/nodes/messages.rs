//! What can be said of a message about nodes without looking anything up.

use r3mes_types::nodes::{NodeSpec, NodesMessage};
use r3mes_types::{Ppm, Role};

use super::handle::NodesError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &NodesMessage) -> Result<(), LedgerError> {
    match message {
        NodesMessage::Register(message) => Ok(check_spec(&message.spec)?),
        NodesMessage::Update(message) => Ok(check_spec(&message.spec)?),
        NodesMessage::Leave(_) | NodesMessage::Unjail(_) | NodesMessage::Appeal(_) => Ok(()),
    }
}

pub(super) fn check_spec(spec: &NodeSpec) -> Result<(), NodesError> {
    let refuse = |field, why: &str| {
        Err(NodesError::Spec {
            field,
            why: why.to_owned(),
        })
    };
    if spec.roles.is_empty() {
        return refuse("roles", "a node needs at least one role");
    }
    if spec
        .primary_role
        .is_some_and(|role| !spec.roles.contains(role))
    {
        return refuse("primary_role", "it must be one of the node's roles");
    }
    if spec.consensus_key.is_some() && !spec.roles.contains(Role::Validator) {
        return refuse(
            "consensus_key",
            "only a node with the role validator signs blocks",
        );
    }
    check_allocations(spec)?;
    check_endpoints(spec)
}

fn check_allocations(spec: &NodeSpec) -> Result<(), NodesError> {
    let refuse = |why: &str| {
        Err(NodesError::Spec {
            field: "allocations",
            why: why.to_owned(),
        })
    };
    let parts = &spec.allocations;
    if !parts.is_sorted_by(|a, b| a.role < b.role) {
        return refuse("roles are listed once each, ascending");
    }
    if parts.iter().any(|part| !spec.roles.contains(part.role)) {
        return refuse("only roles of the node can be given resources");
    }
    let sum = |part: fn(&r3mes_types::Allocation) -> u32| -> u64 {
        parts.iter().map(|entry| u64::from(part(entry))).sum()
    };
    let whole = u64::from(Ppm::ONE.millionths());
    let over = [
        (
            "cpu_cores",
            sum(|part| part.cpu_cores),
            u64::from(spec.resources.cpu_cores),
        ),
        (
            "memory_gb",
            sum(|part| part.memory_gb),
            u64::from(spec.resources.memory_gb),
        ),
        ("gpu_usage", sum(|part| part.gpu_usage.millionths()), whole),
        (
            "network_usage",
            sum(|part| part.network_usage.millionths()),
            whole,
        ),
    ];
    match over.iter().find(|(_, given, has)| given > has) {
        Some((name, given, has)) => refuse(&format!(
            "{name} adds up to {given}, but the node declares {has}"
        )),
        None => Ok(()),
    }
}

fn check_endpoints(spec: &NodeSpec) -> Result<(), NodesError> {
    let refuse = |why: &str| {
        Err(NodesError::Spec {
            field: "endpoints",
            why: why.to_owned(),
        })
    };
    if !spec.endpoints.is_sorted_by(|a, b| a.role < b.role) {
        return refuse("roles are listed once each, ascending");
    }
    for endpoint in &spec.endpoints {
        if !spec.roles.contains(endpoint.role) {
            return refuse("only roles of the node have an endpoint");
        }
        if !(is_base_url(&endpoint.blobs) || is_flight_url(&endpoint.blobs))
            || !(endpoint.api.is_empty() || is_base_url(&endpoint.api))
        {
            return refuse(
                "a base URL looks like http://host:port, without spaces or a slash at the end; blobs may also be at flight://host:port",
            );
        }
    }
    Ok(())
}

/// A Flight service has a host and a port, and no path.
fn is_flight_url(url: &str) -> bool {
    let authority = url.strip_prefix("flight://");
    let parts = authority.and_then(|authority| authority.rsplit_once(':'));
    parts.is_some_and(|(host, port)| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        !host.is_empty() && host.bytes().all(known) && digits && port.parse::<u16>().is_ok()
    })
}

fn is_base_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with('/')
            && !rest.ends_with('/')
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"?#@\"<>\\".contains(&byte))
    })
}
