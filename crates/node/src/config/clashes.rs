//! Two services at one address: only one of them could start.

use std::net::SocketAddr;

use super::Config;
use crate::yaml;

/// Refuses a configuration in which two services listen on one address.
///
/// # Errors
/// Every pair, with the lines of the file where their addresses stand.
pub(super) fn refuse(config: &Config, text: &str) -> Result<(), String> {
    let listeners = listeners(config);
    let mut clashes = Vec::new();
    for (index, second) in listeners.iter().enumerate() {
        let earlier = listeners[..index].iter();
        let clashing = earlier.filter(|first| clash(first.1, second.1));
        clashes.extend(clashing.map(|first| told(first, second, text)));
    }
    match clashes.is_empty() {
        true => Ok(()),
        false => Err(clashes.join("\n")),
    }
}

/// Whether the operating system would give only one of them to listen on.
fn clash(first: SocketAddr, second: SocketAddr) -> bool {
    let (one, other) = (first.ip(), second.ip());
    let any = one.is_unspecified() || other.is_unspecified();
    first.port() == second.port()
        && first.port() != 0
        && (one == other || any && one.is_ipv4() == other.is_ipv4())
}

fn told(first: &(String, SocketAddr), second: &(String, SocketAddr), text: &str) -> String {
    let mut shown = Vec::new();
    let mut place = |(key, address): &(String, SocketAddr)| match yaml::line_of(text, key) {
        Some(line) => {
            let content = text.lines().nth(line - 1).unwrap_or_default();
            shown.push(format!("\n  line {line}: {}", content.trim()));
            format!("{key} (line {line}) on {address}")
        }
        None => format!("{key}, which the file does not say, on {address}"),
    };
    let (one, other) = (place(first), place(second));
    let shown = shown.concat();
    format!(
        "two services cannot listen at one address: {one} and {other}; give one of them another port{shown}"
    )
}

/// Everything that listens, by its key in the file.
fn listeners(config: &Config) -> Vec<(String, SocketAddr)> {
    let mut found = Vec::new();
    if let Some(ledger) = &config.services.ledger {
        found.push(("services.ledger.rpc_listen".to_owned(), ledger.rpc_listen));
        let optional = [
            ("services.ledger.blobs_listen", ledger.blobs_listen),
            ("services.ledger.flight_listen", ledger.flight_listen),
            ("services.ledger.grpc_listen", ledger.grpc_listen),
            ("services.ledger.rest_listen", ledger.rest_listen),
        ];
        found.extend(
            optional
                .into_iter()
                .filter_map(|(key, address)| address.map(|address| (key.to_owned(), address))),
        );
    }
    let ledger = config.services.ledger.as_ref();
    if let Some(ledger) = ledger.filter(|ledger| ledger.starts_cometbft()) {
        found.push((
            "services.ledger.cometbft.p2p_listen".to_owned(),
            ledger.cometbft().p2p_listen,
        ));
    }
    if let Some(gateway) = &config.services.gateway {
        found.push(("services.gateway.listen".to_owned(), gateway.listen));
    }
    if let Some(functions) = &config.services.functions {
        found.push(("services.functions.listen".to_owned(), functions.listen));
    }
    for (role, settings) in config.enabled_roles() {
        let optional = [
            ("blobs_listen", settings.blobs_listen),
            ("flight_listen", settings.flight_listen),
            ("api_listen", settings.api_listen),
        ];
        found.extend(
            optional
                .into_iter()
                .filter_map(|(key, address)| Some((format!("roles.{role}.{key}"), address?))),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let parsed = Config::parse(text, "config.yaml".into());
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn two_services_on_one_port_are_named_both_with_their_lines() {
        let told = refusal(
            "services:\n  gateway:\n    listen: 127.0.0.1:8091\nroles:\n  miner:\n    blobs_listen: 127.0.0.1:8091\n",
        );
        for part in [
            "services.gateway.listen (line 3) on 127.0.0.1:8091",
            "roles.miner.blobs_listen (line 6) on 127.0.0.1:8091",
            "  line 3: listen: 127.0.0.1:8091",
            "  line 6: blobs_listen: 127.0.0.1:8091",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn every_clash_is_told_at_once_and_a_default_is_called_one() {
        let told = refusal(
            "services: {gateway: {listen: '127.0.0.1:8080'}, functions: {}}\nroles:\n  miner: {blobs_listen: '127.0.0.1:9', flight_listen: '127.0.0.1:9'}\n",
        );
        assert!(
            told.contains("services.gateway.listen (line 1)")
                && told.contains("services.functions.listen, which the file does not say"),
            "{told}"
        );
        let both = "roles.miner.blobs_listen (line 3)";
        assert!(told.contains(both), "{told}");
        assert_eq!(told.matches("one address").count(), 2, "{told}");
    }

    #[test]
    fn an_address_of_all_interfaces_clashes_with_each_of_them() {
        let text = |one, other| {
            format!(
                "services:\n  gateway:\n    listen: '{one}'\n  functions:\n    listen: '{other}'\n"
            )
        };
        assert!(refusal(&text("0.0.0.0:80", "10.0.0.1:80")).contains("line 5"));
        for (one, other) in [
            ("10.0.0.2:80", "10.0.0.1:80"),
            ("0.0.0.0:81", "10.0.0.1:80"),
            ("0.0.0.0:0", "10.0.0.1:0"),
            ("0.0.0.0:80", "[::1]:80"),
        ] {
            Config::parse(&text(one, other), "config.yaml".into()).unwrap();
        }
    }
}
