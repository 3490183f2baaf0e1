//! The side that shows a certificate.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    Error, InconsistentKeys, ServerConfig,
    pki_types::{PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{TlsError, client::certificates, provider};
use crate::wire::{
    Frame, Kind,
    messages::{Goodbye, Head},
};

/// First byte of what a client says that speaks TLS.
const HANDSHAKE: u8 = 22;
/// What HTTP is spoken inside, best first. Frames ask for nothing.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate and its key, as a broker shows them. Clones show the same.
#[derive(Clone)]
pub struct ServerTls(Arc<RwLock<TlsAcceptor>>);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// What comes to a port that speaks TLS.
#[derive(Debug)]
pub enum Accepted {
    /// A client that speaks it too.
    Tls(Box<TlsStream<TcpStream>>),
    /// One that does not; nothing was read yet.
    Plain(TcpStream),
}

impl ServerTls {
    /// Reads a certificate, with what lies between it and its authority, and its key (both PEM).
    ///
    /// # Errors
    /// When a file cannot be read, or they do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let chain = certificates(certificate).map_err(|reason| TlsError::File {
            what: "the certificate",
            path: certificate.to_owned(),
            reason,
        })?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
            what: "the private key",
            path: key.to_owned(),
            reason: error.to_string(),
        })?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Protocol)?;
        let mut config = builder
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::OtherKey {
                    key: key.to_owned(),
                    certificate: certificate.to_owned(),
                },
                other => TlsError::File {
                    what: "the certificate and its key",
                    path: certificate.to_owned(),
                    reason: other.to_string(),
                },
            })?;
        config.alpn_protocols = HTTP.map(<[u8]>::to_vec).to_vec();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self(Arc::new(RwLock::new(acceptor))))
    }

    /// Shows another certificate from now on, here and in all clones. Connections that are open stay.
    pub fn replace(&self, by: &Self) {
        let acceptor = by.acceptor();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Agrees on TLS with a client, if it speaks it.
    ///
    /// # Errors
    /// When the client goes away, or there is nothing to agree on.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            return Ok(Accepted::Plain(stream));
        }
        let stream = self.acceptor().accept(stream).await?;
        Ok(Accepted::Tls(Box::new(stream)))
    }
}

/// Tells a client that speaks frames, and no TLS, to a port of TLS what it should do.
///
/// # Errors
/// When it is gone.
pub async fn refuse(mut write: impl AsyncWrite + Unpin) -> io::Result<()> {
    let goodbye = Goodbye {
        reason: "only TLS is spoken there: name it as tls://HOST:PORT".into(),
        retry: false,
    };
    let frame = Frame {
        head: goodbye.encode().map_err(io::Error::other)?,
        ..Frame::bare(Kind::Goodbye, 0)
    };
    let mut bytes = bytes::BytesMut::new();
    frame.encode_head(&mut bytes);
    write.write_all(&bytes).await?;
    write.shutdown().await
}
