//! A certificate authority of one's own.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use p256::{
    ecdsa::{DerSignature, SigningKey, signature::Signer},
    elliptic_curve::rand_core::OsRng,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SignatureAlgorithm,
};
use rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{TlsError, client::roots_of, provider};

/// How long an authority is valid.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far the clocks of two machines may differ.
const CLOCK_ERROR: Duration = Duration::from_secs(3600);
/// Bytes of a serial number.
const SERIAL_BYTES: usize = 16;
/// Bytes of a hash by which a key is known.
const KEY_ID_BYTES: usize = 20;

/// An authority, of which two files lie in one folder: `ca.pem`, its certificate, for all who shall
/// trust it, and `ca.key`, its private key, which goes nowhere.
pub struct Authority {
    folder: PathBuf,
    key: Key,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// The files of a certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM, which only the owner can read.
    pub key: PathBuf,
}

/// Why an authority cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing is written over.
    #[error("{} is there already, and is not written over: choose another place, or remove it", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: io::Error,
    },
    /// The authority's key cannot be read.
    #[error("cannot read the key of an authority in {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// What was given names no host.
    #[error("{0:?} is neither the name nor the address of a machine")]
    Host(String),
    /// No host was named.
    #[error("a certificate needs a name or an address of the machine that it is for")]
    NoHost,
    /// The authority's certificate cannot be read.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// Its two files do not belong together.
    #[error("what the key in {0} signs is not trusted by {1}: they do not belong together")]
    OtherKey(String, String),
    /// A certificate cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Making(String),
}

impl Authority {
    /// Makes an authority in a folder, which is made too.
    ///
    /// # Errors
    /// When there is one already, or a file cannot be written.
    pub fn create(folder: &Path) -> Result<Self, AuthorityError> {
        fs::create_dir_all(folder).map_err(|reason| AuthorityError::Write {
            path: folder.to_owned(),
            reason,
        })?;
        let authority = Self {
            folder: folder.to_owned(),
            key: Key::new(),
        };
        let now = SystemTime::now();
        let mut params = params(now - CLOCK_ERROR, now + AUTHORITY_LIFE)?;
        params.distinguished_name = authority.key.name();
        params.key_identifier_method = authority.key.id();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&authority.key).map_err(making)?;
        for path in [authority.key_path(), authority.certificate()] {
            must_be_free(&path)?;
        }
        write_new(&authority.key_path(), &authority.key.pem()?, 0o600)?;
        write_new(&authority.certificate(), &certificate.pem(), 0o644)?;
        Ok(authority)
    }

    /// Opens the authority of a folder.
    ///
    /// # Errors
    /// When its files are not there, or cannot be read.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let path = folder.join("ca.key");
        let wrong = |reason: String| AuthorityError::Key {
            path: path.clone(),
            reason,
        };
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|error| wrong(error.to_string()))?;
        let authority = Self {
            folder: folder.to_owned(),
            key: Key::from(key),
        };
        roots_of(&authority.certificate())?;
        Ok(authority)
    }

    /// The certificate, for those who shall trust the authority.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn key_path(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    /// Issues a certificate for a broker that is reached by `hosts` (names or addresses), valid for
    /// `life` from now on: the files `NAME.pem` and `NAME.key` in the authority's folder.
    ///
    /// # Errors
    /// When a host is none, a file is there already or cannot be written, or the two files of the
    /// authority do not belong together.
    pub fn issue(
        &self,
        name: &str,
        hosts: &[String],
        life: Duration,
    ) -> Result<Issued, AuthorityError> {
        let now = SystemTime::now();
        self.issue_between(name, hosts, (now - CLOCK_ERROR, now + life))
    }

    /// [`Authority::issue`], valid between two moments.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_between(
        &self,
        name: &str,
        hosts: &[String],
        (from, until): (SystemTime, SystemTime),
    ) -> Result<Issued, AuthorityError> {
        let files = Issued {
            certificate: self.folder.join(format!("{name}.pem")),
            key: self.folder.join(format!("{name}.key")),
        };
        for path in [&files.key, &files.certificate] {
            must_be_free(path)?;
        }
        let mut params = params(from, until)?;
        for host in hosts {
            let no_host = || AuthorityError::Host(host.clone());
            ServerName::try_from(host.as_str()).map_err(|_| no_host())?;
            let alone = CertificateParams::new([host.clone()]).map_err(|_| no_host())?;
            params.subject_alt_names.extend(alone.subject_alt_names);
        }
        let key = Key::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_identifier_method = key.id();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut own = CertificateParams::default();
        own.distinguished_name = self.key.name();
        own.key_identifier_method = self.key.id();
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params
            .signed_by(&key, &Issuer::from_params(&own, &self.key))
            .map_err(making)?;
        let host = hosts.first().ok_or(AuthorityError::NoHost)?;
        self.check(certificate.der(), host, from)?;
        write_new(&files.key, &key.pem()?, 0o600)?;
        write_new(&files.certificate, &certificate.pem(), 0o644)?;
        Ok(files)
    }

    /// Looks whether those who trust the authority trust a certificate, for `host` and at a moment.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        host: &str,
        at: SystemTime,
    ) -> Result<(), AuthorityError> {
        let roots = roots_of(&self.certificate())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build();
        let host = ServerName::try_from(host).map_err(|_| AuthorityError::Host(host.into()))?;
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        verifier
            .map_err(making)?
            .verify_server_cert(certificate, &[], &host, &[], UnixTime::since_unix_epoch(at))
            .map_err(|_| {
                let shown = |path: PathBuf| path.display().to_string();
                AuthorityError::OtherKey(shown(self.key_path()), shown(self.certificate()))
            })?;
        Ok(())
    }
}

/// What every certificate has: a serial number that nobody can guess, and when it is valid.
fn params(from: SystemTime, until: SystemTime) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(making)?;
    // A number that is not negative, and never empty.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = from.into();
    params.not_after = until.into();
    Ok(params)
}

fn making(error: impl ToString) -> AuthorityError {
    AuthorityError::Making(error.to_string())
}

fn must_be_free(path: &Path) -> Result<(), AuthorityError> {
    match path.symlink_metadata() {
        Ok(_) => Err(AuthorityError::Exists(path.to_owned())),
        Err(_) => Ok(()),
    }
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|reason| match reason.kind() {
        io::ErrorKind::AlreadyExists => AuthorityError::Exists(path.to_owned()),
        _ => AuthorityError::Write {
            path: path.to_owned(),
            reason,
        },
    })
}

/// A key on the curve P-256, which every client of TLS knows.
struct Key {
    secret: SigningKey,
    public: Vec<u8>,
}

impl From<SigningKey> for Key {
    fn from(secret: SigningKey) -> Self {
        let point = secret.verifying_key().to_encoded_point(false);
        Self {
            public: point.as_bytes().to_vec(),
            secret,
        }
    }
}

impl Key {
    fn new() -> Self {
        SigningKey::random(&mut OsRng).into()
    }

    fn pem(&self) -> Result<impl std::ops::Deref<Target = String> + use<>, AuthorityError> {
        self.secret.to_pkcs8_pem(LineEnding::LF).map_err(making)
    }

    /// What it is known by.
    fn hash(&self) -> [u8; KEY_ID_BYTES] {
        let mut hash = [0; KEY_ID_BYTES];
        hash.copy_from_slice(&blake3::hash(&self.public).as_bytes()[..KEY_ID_BYTES]);
        hash
    }

    fn id(&self) -> KeyIdMethod {
        KeyIdMethod::PreSpecified(self.hash().to_vec())
    }

    /// The name of the authority that has this key.
    fn name(&self) -> DistinguishedName {
        let mut name = DistinguishedName::new();
        let digits = hex::encode(&self.hash()[..4]);
        name.push(DnType::CommonName, format!("r3mes functions {digits}"));
        name
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature = self.secret.sign(message);
        Ok(signature.as_bytes().to_vec())
    }
}
