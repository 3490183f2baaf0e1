//! Which cryptography TLS is built on.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

/// The cryptography of this process: Graviola where the processor has the instructions that it needs,
/// RustCrypto elsewhere.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(
        PROVIDER.get_or_init(|| Arc::new(fast().unwrap_or_else(rustls_rustcrypto::provider))),
    )
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn fast() -> Option<CryptoProvider> {
    graviola::util::is_cpu_supported().then(rustls_graviola::default_provider)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn fast() -> Option<CryptoProvider> {
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        version::TLS13,
    };

    use super::*;
    use crate::tls::Authority;

    /// A handshake in memory, and a few words.
    fn talk(client: CryptoProvider, server: CryptoProvider) {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let hosts = ["localhost".to_owned()];
        let life = Duration::from_secs(3600);
        let issued = authority.issue("server", &hosts, life).unwrap();
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(authority.certificate()).unwrap();
        roots.add(ca).unwrap();
        let config = ClientConfig::builder_with_provider(client.into())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(config.into(), name).unwrap();
        let chain = vec![CertificateDer::from_pem_file(&issued.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&issued.key).unwrap();
        let config = ServerConfig::builder_with_provider(server.into())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut server = ServerConnection::new(config.into()).unwrap();
        std::io::Write::write_all(&mut client.writer(), b"words").unwrap();
        let mut words = Vec::new();
        while words != b"words" {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut read = [0; 16];
            if let Ok(bytes) = std::io::Read::read(&mut server.reader(), &mut read) {
                words.extend_from_slice(&read[..bytes]);
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            assert!(words == b"words" || !wire.is_empty(), "both are silent");
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
    }

    #[test]
    fn old_and_new_processors_understand_each_other() {
        let slow = rustls_rustcrypto::provider;
        let fast = || fast().unwrap_or_else(slow);
        talk(slow(), fast());
        talk(fast(), slow());
        talk(slow(), slow());
    }
}
