//! Ports for networks on one machine.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Why there are no ports to be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The one that was asked for is not free.
    #[error(
        "port {port} for the public API is taken; stop the program that uses it, or give --port 0 for a free one"
    )]
    Taken {
        /// The port.
        port: u16,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There are not as many as are needed.
    #[error("this machine has no {count} free ports")]
    TooFew {
        /// How many are needed.
        count: usize,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Ports that are free now on the loopback address. The public API's own port, when one was asked
/// for, is checked too.
///
/// # Errors
/// When that port is taken, or there are not as many.
pub fn free_ports(count: usize, wanted: u16) -> Result<Vec<u16>, PortError> {
    let wanted = TcpListener::bind(loopback(wanted)).map_err(|source| PortError::Taken {
        port: wanted,
        source,
    })?;
    let too_few = |source| PortError::TooFew { count, source };
    let listeners: Result<Vec<TcpListener>, _> =
        (0..count).map(|_| TcpListener::bind(loopback(0))).collect();
    let listeners = listeners.map_err(too_few)?;
    let ports = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()));
    let ports = ports.collect::<io::Result<_>>().map_err(too_few);
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
        let refusal = free_ports(3, port).unwrap_err().to_string();
        assert!(
            refusal.contains(&port.to_string()) && refusal.contains("--port 0"),
            "{refusal}"
        );
    }
}
