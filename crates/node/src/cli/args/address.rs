//! Addresses of nodes as people type them.

use std::net::{IpAddr, SocketAddr};

use crate::config::is_http_url;

/// The port of a node's RPC where none is typed.
const RPC_PORT: u16 = 26657;

/// The base URL of a node's RPC: `HOST`, `HOST:PORT`, or a URL, of which CometBFT's own `tcp://` is one.
///
/// # Errors
/// Says what to write instead.
pub(super) fn node_url(typed: &str) -> Result<String, String> {
    let form = "write HOST:PORT or http://HOST:PORT, such as localhost:26657";
    let typed = typed.trim();
    let (scheme, rest) = typed.split_once("://").unwrap_or(("", typed));
    let rest = rest.trim_end_matches('/');
    let (scheme, default_port) = match scheme {
        "" => ("http", true),
        "tcp" => ("http", false),
        "http" | "https" => (scheme, false),
        other => return Err(format!("a node is not asked over {other}: {form}")),
    };
    let host = rest.split('/').next().unwrap_or_default();
    let after_brackets = host.rsplit(']').next().unwrap_or_default();
    if after_brackets.matches(':').count() > 1 {
        return Err(format!(
            "put an address of IPv6 in brackets, such as [::1]:{RPC_PORT}"
        ));
    }
    let port = match default_port && !after_brackets.contains(':') {
        true => format!(":{RPC_PORT}"),
        false => String::new(),
    };
    let path = &rest[host.len()..];
    let url = format!("{scheme}://{host}{port}{path}");
    let known = !host.is_empty() && !host.starts_with(':') && !url.contains(char::is_whitespace);
    match known && is_http_url(&url, &()).is_ok() {
        true => Ok(url),
        false => Err(form.to_owned()),
    }
}

/// An address of this machine to listen on.
///
/// # Errors
/// Says what to write instead.
pub(super) fn listen(typed: &str) -> Result<SocketAddr, String> {
    typed.trim().parse().map_err(|_| {
        "write an address of this machine in numbers and a port, such as 127.0.0.1:8080 for this machine alone, [::1]:8080, or 0.0.0.0:8080 to let others in".to_owned()
    })
}

/// The name or the address of a machine, without a port.
///
/// # Errors
/// Says what to write instead.
pub(super) fn host(typed: &str) -> Result<String, String> {
    let typed = typed.trim();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(known);
    match typed.parse::<IpAddr>().is_ok() || typed.split('.').all(label) {
        true => Ok(typed.to_owned()),
        false => Err("write the name or the address of a machine alone, without a scheme, a port or spaces, such as gw.example.com or 10.0.0.7".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_scheme_and_no_port() {
        for (typed, url) in [
            ("localhost:9090", "http://localhost:9090"),
            ("10.0.0.1", "http://10.0.0.1:26657"),
            ("[::1]", "http://[::1]:26657"),
            ("[::1]:7", "http://[::1]:7"),
            ("tcp://127.0.0.1:26657", "http://127.0.0.1:26657"),
            ("http://node.example/", "http://node.example"),
            ("https://node.example/rpc/", "https://node.example/rpc"),
            ("node.example/rpc", "http://node.example:26657/rpc"),
        ] {
            assert_eq!(node_url(typed).as_deref(), Ok(url), "{typed}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is() {
        for typed in [
            "",
            "http://",
            ":9090",
            "a b:1",
            "grpc://localhost:9090",
            "::1",
        ] {
            let refusal = node_url(typed).unwrap_err();
            assert!(refusal.contains("26657"), "{typed}: {refusal}");
        }
    }

    #[test]
    fn an_address_to_listen_on_is_in_numbers() {
        for typed in ["127.0.0.1:1", " 0.0.0.0:8080", "[::1]:8080"] {
            listen(typed).unwrap();
        }
        for typed in [
            "localhost:1",
            "8080",
            "127.0.0.1",
            ":8080",
            "http://127.0.0.1:1",
        ] {
            let refusal = listen(typed).unwrap_err();
            assert!(refusal.contains("127.0.0.1:8080"), "{typed}: {refusal}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_alone() {
        for typed in ["gw.example.com", "10.0.0.7", "::1", "raspberry_pi"] {
            assert_eq!(host(typed).unwrap(), typed);
        }
        for typed in [
            "https://gw",
            "gw:8080",
            "a b",
            "",
            "a..b",
            "*.example.com",
            "10.0.0.7/8",
        ] {
            let refusal = host(typed).unwrap_err();
            assert!(refusal.contains("gw.example.com"), "{typed}: {refusal}");
        }
    }
}
