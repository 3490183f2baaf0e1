//! The side that asks who the other one is.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{TlsError, provider};

/// Settings of a client that trusts the authorities in the file `ca`, or without one those that this
/// machine trusts.
///
/// # Errors
/// When the file, or the machine, names no authority.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let roots = match ca {
        Some(path) => roots_of(path)?,
        None => roots_of_machine()?,
    };
    trusting(roots)
}

/// Settings of a client that refuses everybody.
pub(crate) fn trusting_nobody() -> Result<ClientConfig, TlsError> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Protocol)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The authorities of a file.
pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |reason: String| TlsError::File {
        what: "the certificate authority",
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).map_err(wrong)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    Ok(roots)
}

fn roots_of_machine() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    match (taken, found.errors.first()) {
        (0, Some(error)) => Err(TlsError::NoAuthorities(error.to_string())),
        (0, None) => Err(TlsError::NoAuthorities("it has no file of them".into())),
        _ => Ok(roots),
    }
}

/// The certificates in a PEM file, at least one; what is wrong with it otherwise.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let found: Vec<_> = read
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    match found.is_empty() {
        true => Err("there is no certificate in it (PEM)".into()),
        false => Ok(found),
    }
}

/// Agrees on TLS with `host`, at the other end of `stream`; settings are those of [`client_config`].
///
/// # Errors
/// When it is not who it should be, or speaks no TLS.
pub async fn connect(
    stream: TcpStream,
    host: &str,
    settings: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let connector = TlsConnector::from(settings);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| TlsError::OtherName {
        wanted: host.to_owned(),
        names: error.to_string(),
    })?;
    connector
        .connect(name, stream)
        .await
        .map_err(|error| TlsError::of_handshake(error, host))
}
