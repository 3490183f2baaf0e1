//! Why TLS is not spoken.

use std::{io, path::PathBuf};

use rustls::{CertificateError, Error, InvalidMessage};

/// Why TLS is not spoken with a broker, or by one.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file does not hold what it should.
    #[error("cannot read {what} in {}: {reason}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// A key and a certificate that do not belong together.
    #[error("the key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// Nobody is trusted.
    #[error(
        "this machine trusts no certificate authority ({0}): name the file of one (--ca FILE, ca= in \
         Python, or R3MES_FUNCTIONS_CA)"
    )]
    NoAuthorities(String),
    /// No authority that is trusted has signed the certificate.
    #[error(
        "its certificate is signed by no authority that is trusted here: name the file of the one that \
         signed it (--ca FILE, ca= in Python, or R3MES_FUNCTIONS_CA)"
    )]
    Untrusted,
    /// The certificate is somebody else's.
    #[error(
        "its certificate is for {names}, and not for {wanted}: reach it by a name that it has, or issue \
         it a certificate with this one"
    )]
    OtherName {
        /// By which name it was reached.
        wanted: String,
        /// Which names it has.
        names: String,
    },
    /// The certificate has expired.
    #[error("its certificate has expired: it needs a new one")]
    Expired,
    /// The certificate is not valid yet.
    #[error("its certificate is not valid yet: look at the clocks of both machines")]
    NotYetValid,
    /// No TLS is spoken there.
    #[error(
        "no TLS is spoken there: name it as HOST:PORT, without tls://, or give it a certificate"
    )]
    PlainText,
    /// The connection ended during the handshake.
    #[error(
        "the connection ended before TLS was agreed on ({0}); where no TLS is spoken, name it as \
         HOST:PORT, without tls://"
    )]
    Ended(io::Error),
    /// Anything else that the protocol knows.
    #[error("{0}")]
    Protocol(Error),
}

impl TlsError {
    /// What a handshake with `wanted` came to.
    pub(super) fn of_handshake(error: io::Error, wanted: &str) -> Self {
        match error.downcast::<Error>() {
            Ok(error) => Self::of_protocol(error, wanted),
            Err(error) => Self::Ended(error),
        }
    }

    fn of_protocol(error: Error, wanted: &str) -> Self {
        let names = |presented: &[String]| match presented {
            [] => "no name".to_owned(),
            names => names.join(", "),
        };
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::PlainText,
            Error::InvalidCertificate(refused) => match refused {
                CertificateError::UnknownIssuer => Self::Untrusted,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::NotValidForNameContext { presented, .. } => Self::OtherName {
                    wanted: wanted.to_owned(),
                    names: names(&presented),
                },
                CertificateError::NotValidForName => Self::OtherName {
                    wanted: wanted.to_owned(),
                    names: "other names".into(),
                },
                other => Self::Protocol(Error::InvalidCertificate(other)),
            },
            other => Self::Protocol(other),
        }
    }
}
