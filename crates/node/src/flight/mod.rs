//! Arrow Flight as a node runs it: the token, the peers, and a service over a process's blobs that knows
//! from the ledger what they are.

mod catalogue;

use std::{env, ffi::OsString, net::SocketAddr, sync::Arc};

use anyhow::Context;
use r3mes_blobs::BlobStore;
use r3mes_gateway::{
    flight::{FlightLimits, Token, router},
    ipfs::Source,
};
use r3mes_http::server::{Limits, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use catalogue::LedgerCatalogue;

use crate::{
    agents,
    config::Config,
    home::{Home, read_secret},
};

/// The variable that holds the token, and goes before the configuration's file.
const VARIABLE: &str = "R3MES_FLIGHT_TOKEN";

/// The Flight services that share this node's token: the peers of the configuration, and the bootstrap
/// stores that are reached over Flight.
///
/// # Errors
/// When an address is not one.
pub fn peer_sources(config: &Config) -> anyhow::Result<Vec<Source>> {
    let bootstrap = config.network.bootstrap_blobs.iter();
    let mut sources = Vec::new();
    for url in config.flight.peers.iter().chain(bootstrap) {
        let source: Source = url.parse()?;
        if source.is_flight() && !sources.contains(&source) {
            sources.push(source);
        }
    }
    Ok(sources)
}

/// The token of this node; `wanted_by` is the key of the configuration that needs one.
///
/// # Errors
/// When there is none, others can read its file, or what is there is no token. No error shows it.
pub fn require_token(home: &Home, config: &Config, wanted_by: &str) -> anyhow::Result<Token> {
    find_token(home, config, env::var_os(VARIABLE))?.with_context(|| {
        format!(
            "{wanted_by} needs the token that the nodes share: name its file in flight.token_file, or set {VARIABLE}"
        )
    })
}

fn find_token(
    home: &Home,
    config: &Config,
    variable: Option<OsString>,
) -> anyhow::Result<Option<Token>> {
    if let Some(text) = variable {
        let text = Zeroizing::new(text.into_encoded_bytes());
        return token(&text).context(VARIABLE).map(Some);
    }
    let Some(file) = &config.flight.token_file else {
        return Ok(None);
    };
    let path = home.root().join(file);
    let text = Zeroizing::new(read_secret(&path)?);
    let read = token(&text).with_context(|| format!("flight.token_file {}", path.display()));
    read.map(Some)
}

fn token(text: &[u8]) -> anyhow::Result<Token> {
    // What is not text is no token either, and is refused in the same words.
    Ok(Token::new(str::from_utf8(text).unwrap_or_default())?)
}

/// A service that can run.
pub struct Service {
    listener: TcpListener,
    store: Arc<dyn BlobStore>,
    catalogue: LedgerCatalogue,
    token: Token,
    limits: Limits,
}

impl Service {
    /// Answers until `shutdown`.
    pub async fn serve(self, shutdown: CancellationToken) {
        let catalogue = Arc::new(self.catalogue);
        let router = router(self.store, catalogue, self.token, FlightLimits::default());
        serve(self.listener, router, self.limits, shutdown).await;
    }
}

/// Opens the service over the blobs of `store`; `key` names the address in the configuration.
///
/// # Errors
/// When there is no token, the address is taken, or the ledger's is not one.
pub async fn open(
    home: &Home,
    config: &Config,
    (address, key): (SocketAddr, &str),
    store: Arc<dyn BlobStore>,
) -> anyhow::Result<Service> {
    let token = require_token(home, config, key)?;
    let chain = agents::chain::connect(home, config)?;
    Ok(Service {
        listener: agents::listen(address, key).await?,
        catalogue: LedgerCatalogue::new(chain, Arc::clone(&store)),
        store,
        token,
        limits: config.http.limits(),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::home::write_secret;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn the_token_is_in_the_environment_or_in_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let mut config = Config::default();
        assert!(find_token(&home, &config, None).unwrap().is_none());

        let file = folder.path().join("flight.token");
        write_secret(&file, format!("{SECRET}\n").as_bytes()).unwrap();
        config.flight.token_file = Some("flight.token".into());
        assert!(find_token(&home, &config, None).unwrap().is_some());

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refusal = find_token(&home, &config, None).unwrap_err();
        assert!(format!("{refusal:#}").contains("chmod 600"), "{refusal:#}");
        // The variable goes before the file.
        assert!(
            find_token(&home, &config, Some(SECRET.into()))
                .unwrap()
                .is_some()
        );
        let short = SECRET[1..].to_owned();
        let refusal = find_token(&home, &config, Some(short.clone().into())).unwrap_err();
        let refusal = format!("{refusal:#}");
        assert!(
            refusal.contains(VARIABLE) && !refusal.contains(&short),
            "{refusal}"
        );
    }

    #[test]
    fn peers_are_those_of_the_configuration_and_the_bootstrap_stores_over_flight() {
        let mut config = Config::default();
        assert!(peer_sources(&config).unwrap().is_empty());
        let [first, second] = ["flight://10.0.0.7:8815", "flight://10.0.0.8:8815"];
        config.flight.peers = vec![first.to_owned()];
        let bootstrap = &mut config.network.bootstrap_blobs;
        bootstrap.extend([first.to_owned(), second.to_owned()]);
        let found = peer_sources(&config).unwrap();
        let found: Vec<String> = found.iter().map(Source::to_string).collect();
        assert_eq!(found, [first, second]);
    }
}
