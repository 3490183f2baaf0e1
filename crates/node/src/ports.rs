//! Ports for networks on one machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context;

/// Ports that are free now on the loopback address. The public API's own port, when one was asked
/// for, is checked too.
///
/// # Errors
/// When that port is taken.
pub fn free_ports(count: usize, wanted: u16) -> anyhow::Result<Vec<u16>> {
    let wanted = TcpListener::bind(loopback(wanted)).with_context(|| {
        format!("port {wanted} for the public API is taken; stop the program that uses it, or give --port 0 for a free one")
    })?;
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(loopback(0)))
        .collect::<Result<_, _>>()?;
    let ports = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect();
    drop(wanted);
    ports
}

/// A port of the loopback address.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_before_anything_is_made() {
        let taken = TcpListener::bind(loopback(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let refusal = format!("{:#}", free_ports(3, port).unwrap_err());
        assert!(
            refusal.contains(&port.to_string()) && refusal.contains("--port 0"),
            "{refusal}"
        );
    }
}
