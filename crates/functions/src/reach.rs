//! The way to a broker.

use std::{io, path::Path, str::FromStr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    tls::{self, TlsError},
    wire::PREFACE,
};

/// How long a broker may take to answer, and to agree on TLS.
const REACHING: Duration = Duration::from_secs(10);

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    /// HOST:PORT.
    at: String,
    host: String,
}

impl FromStr for Address {
    type Err = Unreached;

    fn from_str(text: &str) -> Result<Self, Unreached> {
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("tls" | "https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(Unreached::Address),
        };
        let at = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = at.rsplit_once(':').ok_or(Unreached::Address)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        match port.parse::<u16>() {
            Ok(_) if !bare.is_empty() => Ok(Self {
                tls,
                at: at.to_owned(),
                host: bare.to_owned(),
            }),
            _ => Err(Unreached::Address),
        }
    }
}

/// Why there is no way to a broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    /// What was given is no address.
    #[error("this names no broker: write HOST:PORT, or tls://HOST:PORT where it speaks TLS")]
    Address,
    /// Nobody answers.
    #[error(transparent)]
    Silent(#[from] io::Error),
    /// There is no agreement on TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An open way to a broker.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Where others can read along.
    Plain(TcpStream),
    /// Where they cannot.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// What is read from, and what is written to.
    pub(crate) fn into_split(
        self,
    ) -> (
        Box<dyn AsyncRead + Send + Unpin>,
        Box<dyn AsyncWrite + Send + Unpin>,
    ) {
        match self {
            Self::Plain(stream) => {
                let (read, write) = stream.into_split();
                (Box::new(read), Box::new(write))
            }
            Self::Tls(stream) => {
                let (read, write) = tokio::io::split(stream);
                (Box::new(read), Box::new(write))
            }
        }
    }
}

/// Connects to a broker and says which protocol is spoken. Authorities are trusted as
/// [`tls::client_config`] says.
///
/// # Errors
/// When nobody answers there in time, or nobody who is trusted.
pub(crate) async fn reach(broker: &str, ca: Option<&Path>) -> Result<Stream, Unreached> {
    let reached = tokio::time::timeout(REACHING, connect(broker, ca)).await;
    reached.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

async fn connect(broker: &str, ca: Option<&Path>) -> Result<Stream, Unreached> {
    let address: Address = broker.parse()?;
    let mut stream = TcpStream::connect(&address.at).await?;
    // Only delays small frames when it cannot be set.
    let _ = stream.set_nodelay(true);
    if !address.tls {
        stream.write_all(&PREFACE).await?;
        return Ok(Stream::Plain(stream));
    }
    let settings = Arc::new(tls::client_config(ca)?);
    let mut stream = tls::connect(stream, &address.host, settings).await?;
    stream.write_all(&PREFACE).await?;
    stream.flush().await?;
    Ok(Stream::Tls(Box::new(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_whether_tls_is_spoken() {
        let read = |text: &str| text.parse::<Address>().unwrap();
        assert_eq!(read("gateway:8080"), read("http://gateway:8080/"));
        let secure = read("tls://[::1]:8080");
        assert_eq!(
            (secure.at.as_str(), secure.host.as_str()),
            ("[::1]:8080", "::1")
        );
        assert!(secure.tls && !read("[::1]:8080").tls);
        assert_eq!(read("https://gateway:443/"), read("tls://gateway:443"));
        for wrong in [
            "",
            "gateway",
            "tls://gateway",
            ":8080",
            "gateway:http",
            "ftp://gateway:21",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
