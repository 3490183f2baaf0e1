//! What single values of a configuration must look like; each complaint says how.

use std::net::SocketAddr;

use r3mes_exact::Isa;
use r3mes_gateway::ipfs;

pub(crate) fn is_http_url(value: &str, _: &()) -> garde::Result {
    let rest = value
        .strip_prefix("http://")
        .or_else(|| value.strip_prefix("https://"));
    match rest {
        Some(host) if !host.is_empty() && !host.starts_with('/') => Ok(()),
        _ => Err(garde::Error::new(
            "must be a base URL such as http://127.0.0.1:26657",
        )),
    }
}

/// Where this node fetches blobs from.
pub(super) fn is_source(value: &str, _: &()) -> garde::Result {
    let source = value.parse::<ipfs::Source>();
    source
        .map(|_| ())
        .map_err(|error| garde::Error::new(error.to_string()))
}

/// Where others are told that blobs are had: a trustless gateway, or a Flight service.
pub(super) fn is_blob_source(value: &str, _: &()) -> garde::Result {
    is_http_url(value, &())
        .or_else(|_| is_flight_url(value, &()))
        .map_err(|_| {
            garde::Error::new(
                "must be a base URL such as http://127.0.0.1:8090, or flight://HOST:PORT",
            )
        })
}

pub(super) fn is_flight_url(value: &str, _: &()) -> garde::Result {
    let source = value.parse::<ipfs::Source>();
    match source.is_ok_and(|source| source.is_flight()) {
        true => Ok(()),
        false => Err(garde::Error::new("must be flight://HOST:PORT")),
    }
}

pub(crate) fn is_host_and_port(value: &str, _: &()) -> garde::Result {
    let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(()),
        None => Err(garde::Error::new("must be HOST:PORT")),
    }
}

pub(super) fn is_peer(value: &str, _: &()) -> garde::Result {
    let parts = value.split_once('@');
    let known = |(id, address): &(&str, &str)| {
        id.len() == 40
            && id.bytes().all(|digit| digit.is_ascii_hexdigit())
            && is_host_and_port(address, &()).is_ok()
    };
    match parts.filter(known) {
        Some(_) => Ok(()),
        None => Err(garde::Error::new(
            "must be ID@HOST:PORT, with the 40 digits that `r3mes keys show` prints on that machine",
        )),
    }
}

pub(crate) fn is_hash(value: &str, _: &()) -> garde::Result {
    match hex::decode(value).map(|bytes| bytes.len()) {
        Ok(32) => Ok(()),
        _ => Err(garde::Error::new("must be 64 hexadecimal digits")),
    }
}

pub(super) fn is_abci(value: &str, _: &()) -> garde::Result {
    let tcp = value.strip_prefix("tcp://");
    let known =
        value.starts_with("unix:///") || tcp.is_some_and(|at| at.parse::<SocketAddr>().is_ok());
    match known {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be unix:///path or tcp://ADDRESS:PORT with an IP address",
        )),
    }
}

pub(super) fn is_comet_rpc(value: &str, _: &()) -> garde::Result {
    match value.starts_with("unix:///") || value.starts_with("http://") {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be unix:///path or http://HOST:PORT",
        )),
    }
}

pub(crate) fn is_amount(value: &str, _: &()) -> garde::Result {
    let parsed = value.parse::<r3mes_types::Amount>();
    parsed
        .map(|_| ())
        .map_err(|error| garde::Error::new(error.to_string()))
}

/// A back end that this machine has.
pub(super) fn is_kernels(value: &str, _: &()) -> garde::Result {
    if value == "auto" {
        return Ok(());
    }
    let Ok(isa) = value.parse::<Isa>() else {
        return Err(garde::Error::new(
            "must be auto, scalar, avx2, avx512, amx or neon",
        ));
    };
    let chosen = Isa::choose(Some(isa));
    chosen
        .map(|_| ())
        .map_err(|error| garde::Error::new(error.to_string()))
}

pub(super) fn is_log_filter(value: &str, _: &()) -> garde::Result {
    let parsed = tracing_subscriber::EnvFilter::try_new(value);
    parsed.map(|_| ()).map_err(|error| {
        garde::Error::new(format!(
            "{error}; give a level such as info, or a filter such as info,r3mes_node=debug"
        ))
    })
}
