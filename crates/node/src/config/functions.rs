//! Remote functions: where their gateway listens, and what it allows.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

use garde::Validate;
use r3mes_functions_http::Origins;
use serde::{Deserialize, Serialize};

use super::loopback;

/// The gateway of remote functions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Functions {
    /// Address that nodes, clients and HTTP come to.
    #[garde(skip)]
    pub listen: SocketAddr,
    /// Whether nobody may come without a token; `r3mes functions token create` makes them.
    #[garde(skip)]
    pub token_required: bool,
    /// Calls over HTTP that one token, or one address without one, may begin in a minute.
    #[garde(skip)]
    pub calls_per_minute: NonZeroU32,
    /// Bytes of a request's body over HTTP. Frames have no such limit.
    #[garde(range(min = 1024, max = 1 << 40))]
    pub max_body_bytes: usize,
    /// Hosts, each HOST or HOST:PORT, that may be told that an asynchronous call is over; nobody is told
    /// if there are none. When absent, all may be that are on the public Internet, over https.
    #[garde(inner(inner(length(min = 1, max = 260))))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_hosts: Option<Vec<String>>,
    /// Origins, each https://HOST or http://HOST:PORT, whose pages may call from a browser; `*` alone for all.
    /// When absent or empty, only the gateway's own may.
    #[garde(custom(are_origins))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cors_origins: Vec<String>,
    /// How calls of functions with a price are paid for: out of escrows on the network's ledger. There are
    /// no such functions when absent.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// The certificate with which the port speaks TLS; without one it speaks none.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The NATS cluster where this gateway meets others.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<Nats>,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            listen: loopback(8080),
            token_required: false,
            calls_per_minute: NonZeroU32::new(60_000).expect("it is not zero"),
            max_body_bytes: 64 << 20,
            webhook_hosts: None,
            cors_origins: Vec::new(),
            billing: None,
            tls: None,
            nats: None,
        }
    }
}

/// How calls are paid for. Escrows are charged by this home's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Billing {
    /// Seconds between settlements of what is worth its fee.
    #[garde(range(min = 1, max = 24 * 3600))]
    pub settle_every_s: u64,
    /// Seconds that an escrow must outlast a call to pay for it. In them it is charged for all that it owes,
    /// again and again until the ledger has done it: so long may gateway or ledger be away at its end.
    #[garde(range(min = 10, max = 30 * 24 * 3600))]
    pub margin_s: u64,
}

impl Default for Billing {
    fn default() -> Self {
        Self {
            settle_every_s: 60,
            margin_s: 900,
        }
    }
}

/// A certificate and its key, both PEM; `r3mes functions ca create` makes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate's file, with what lies between it and its authority.
    #[garde(skip)]
    pub certificate: PathBuf,
    /// The private key's file.
    #[garde(skip)]
    pub key: PathBuf,
}

/// Where gateways meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Nats {
    /// Servers, each nats://HOST:PORT or tls://HOST:PORT; with one of the latter, nothing but TLS is
    /// spoken with any of them.
    #[garde(length(min = 1, max = 64), inner(custom(is_nats_url)))]
    pub servers: Vec<String>,
    /// The file of the certificate authority that is trusted where TLS is spoken; those that this
    /// machine trusts if there is none.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The credentials file that the cluster's owner gave out.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// What this network's subjects begin with; gateways with another prefix are not met.
    #[garde(custom(is_prefix))]
    pub prefix: String,
    /// Servers that keep each record: 1, 3 or 5.
    #[garde(custom(is_replicas))]
    pub replicas: usize,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            ca_file: None,
            credentials_file: None,
            prefix: "r3mes".into(),
            replicas: 1,
        }
    }
}

fn are_origins(texts: &[String], _: &()) -> garde::Result {
    Origins::listed(texts)
        .map(|_| ())
        .map_err(garde::Error::new)
}

fn is_prefix(prefix: &str, _: &()) -> garde::Result {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !prefix.is_empty() && prefix.len() <= 32 && prefix.bytes().all(word) {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be 1 to 32 letters, digits, '-' and '_'",
        )),
    }
}

fn is_replicas(count: &usize, _: &()) -> garde::Result {
    match count {
        1 | 3 | 5 => Ok(()),
        _ => Err(garde::Error::new("must be 1, 3 or 5")),
    }
}

/// A password belongs into a credentials file, not into a URL that is logged.
pub(crate) fn is_nats_url(value: &str, _: &()) -> garde::Result {
    let host = value
        .strip_prefix("nats://")
        .or_else(|| value.strip_prefix("tls://"));
    match host {
        Some(host) if host.contains('@') => Err(garde::Error::new(
            "must not hold a password: use credentials_file",
        )),
        Some(host) if super::is_host_and_port(host, &()).is_ok() => Ok(()),
        _ => Err(garde::Error::new(
            "must be nats://HOST:PORT, or tls://HOST:PORT",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_refused_without_being_shown() {
        is_nats_url("nats://10.0.0.1:4222", &()).unwrap();
        let refusal = is_nats_url("nats://me:secret@10.0.0.1:4222", &())
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("credentials_file") && !refusal.contains("secret"));
        assert!(is_nats_url("http://10.0.0.1:4222", &()).is_err());
        assert!(is_nats_url("nats://10.0.0.1", &()).is_err());
        is_nats_url("tls://10.0.0.1:4222", &()).unwrap();
    }
}
