//! The keys of a node: one mnemonic, from which the account and one operations key per role derive.
//!
//! | key | derivation | what it signs |
//! |---|---|---|
//! | node account | `m/44'/118'/0'/0/0` | registration, stake, grants; may be kept elsewhere |
//! | operations key of role n | `m/44'/118'/0'/0/n` | what that role does, by grant of the account |
//! | consensus key, beacon seed | files of their own | blocks and beacon preimages of a block validator |
//! | peer key | a file of its own | connections between CometBFT nodes |
//!
//! A role's process is given its operations key alone, so roles never race on a sequence and a
//! stolen role key cannot move stake.

use std::path::{Path, PathBuf};

use bip32::{DerivationPath, Language, Mnemonic, XPrv};
use r3mes_consensus::key::ValidatorKey;
use r3mes_types::{Address, ConsensusKey, Role, SecretKey};
use zeroize::Zeroizing;

use crate::home::{self, Home, HomeError};

/// SLIP-44 coin type of Cosmos accounts, so that wallets derive the same addresses.
pub(crate) const COIN_TYPE: u32 = 118;

/// The file of the consensus key's seed.
const CONSENSUS_FILE: &str = "consensus.key";
/// The file of the beacon's seed.
const BEACON_FILE: &str = "beacon.key";

/// The keys folder of a home.
pub struct Keyring {
    dir: PathBuf,
}

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No keys were made here.
    #[error("{dir} holds no keys; run `r3mes init --home {home}` first")]
    Missing {
        /// The folder of keys.
        dir: PathBuf,
        /// The home directory.
        home: PathBuf,
    },
    /// A key file could not be read or written.
    #[error(transparent)]
    File(#[from] HomeError),
    /// Keys exist already; replacing them would lose the account.
    #[error(
        "{path} exists: these keys own an account, and are not replaced. Give another folder with --home. If they were never used, because `r3mes init` was broken off, remove the folder and try again"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key file does not hold what it should.
    #[error("{path} does not hold {expected}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// Words that were given are no mnemonic.
    #[error(
        "these are not 24 English words of BIP-39 with a right checksum: look for a word that is misspelt, missing or at the wrong place"
    )]
    Phrase,
    /// The consensus key is kept elsewhere.
    #[error("the consensus key of this home is kept elsewhere, by tmkms; only {path} is here")]
    Away {
        /// The public key's file.
        path: PathBuf,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Entropy(#[source] getrandom::Error),
}

impl Keyring {
    /// The keyring of a home.
    pub fn new(home: &Home) -> Self {
        Self { dir: home.keys() }
    }

    /// Makes new keys: a fresh mnemonic and every role's operations key.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when there are keys already.
    pub fn generate(&self) -> Result<(), KeyError> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(entropy.as_mut()).map_err(KeyError::Entropy)?;
        let mnemonic = Mnemonic::from_entropy(*entropy, Language::English);
        self.store(&mnemonic)
    }

    /// Takes a mnemonic that was made elsewhere.
    ///
    /// # Errors
    /// [`KeyError::Phrase`] when it is not 24 English words with a right checksum;
    /// [`KeyError::Exists`] when there are keys already.
    pub fn recover(&self, phrase: &str) -> Result<(), KeyError> {
        let mnemonic =
            Mnemonic::new(phrase.trim(), Language::English).map_err(|_| KeyError::Phrase)?;
        self.store(&mnemonic)
    }

    fn store(&self, mnemonic: &Mnemonic) -> Result<(), KeyError> {
        let path = self.mnemonic_file();
        if path.exists() {
            return Err(KeyError::Exists { path });
        }
        let address = derive(mnemonic, 0).address();
        home::write_secret(&self.address_file(), address.to_string().as_bytes())?;
        home::write_secret(&path, mnemonic.phrase().as_bytes())?;
        for &role in Role::ALL {
            let key = derive(mnemonic, role.number());
            home::write_secret(
                &self.role_file(role),
                hex::encode(*key.to_bytes()).as_bytes(),
            )?;
        }
        Ok(())
    }

    /// The node account's key. Only commands that stake, register or send need it.
    ///
    /// # Errors
    /// When the mnemonic is missing, open to others or malformed.
    pub fn account(&self) -> Result<SecretKey, KeyError> {
        Ok(derive(&self.mnemonic()?, 0))
    }

    /// Whether the account's mnemonic is here, and not kept elsewhere.
    pub fn has_account(&self) -> bool {
        self.mnemonic_file().exists()
    }

    /// The node account's address: what a role's process knows of the account. The mnemonic itself
    /// may be taken off the machine once the node is registered.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn account_address(&self) -> Result<Address, KeyError> {
        self.require_keys()?;
        let path = self.address_file();
        let bytes = home::read_secret(&path)?;
        let address = std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        address.ok_or(KeyError::Malformed {
            path,
            expected: "an address, remes1...",
        })
    }

    /// The operations key of one role.
    ///
    /// # Errors
    /// When the key file is missing, open to others or malformed.
    pub fn role(&self, role: Role) -> Result<SecretKey, KeyError> {
        let path = self.role_file(role);
        let bytes = read_hex32(&path)?;
        SecretKey::from_bytes(&bytes).map_err(|_| KeyError::Malformed {
            path,
            expected: "a secp256k1 key as 64 hex digits",
        })
    }

    /// The consensus key's seed (Ed25519, 32 bytes); made on first use.
    ///
    /// # Errors
    /// [`KeyError::Away`] when it has been [moved](Keyring::give_consensus_key_away) elsewhere; also
    /// when the file cannot be made, read, or is malformed.
    pub fn consensus_seed(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let path = self.public_file();
        if path.exists() {
            return Err(KeyError::Away { path });
        }
        self.seed_file(CONSENSUS_FILE)
    }

    /// The public consensus key, whether its secret is here or elsewhere.
    ///
    /// # Errors
    /// When a file cannot be made, read, or is malformed.
    pub fn consensus_key(&self) -> Result<ConsensusKey, KeyError> {
        if self.has_consensus_key() {
            return Ok(ValidatorKey::from_seed(&*self.consensus_seed()?).public_key());
        }
        Ok(ConsensusKey::from(*read_hex32(&self.public_file())?))
    }

    /// Whether the consensus key's secret is kept here.
    pub fn has_consensus_key(&self) -> bool {
        !self.public_file().exists()
    }

    /// Removes the consensus key's secret, which somebody else keeps now; the public key stays.
    ///
    /// # Errors
    /// When a file cannot be written or removed.
    pub fn give_consensus_key_away(&self) -> Result<(), KeyError> {
        let public = self.consensus_key()?;
        home::write_secret(
            &self.public_file(),
            hex::encode(public.as_bytes()).as_bytes(),
        )?;
        let path = self.dir.join(CONSENSUS_FILE);
        Ok(std::fs::remove_file(&path).map_err(|source| HomeError::Io { path, source })?)
    }

    fn public_file(&self) -> PathBuf {
        self.dir.join("consensus.pub")
    }

    /// The seed of the beacon's hash chain; made on first use.
    ///
    /// # Errors
    /// When the file cannot be made, read, or is malformed.
    pub fn beacon_seed(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        self.seed_file(BEACON_FILE)
    }

    /// The seed of the key by which CometBFT's peers know this node; made on first use.
    ///
    /// # Errors
    /// When the file cannot be made, read, or is malformed.
    pub fn peer_seed(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        self.seed_file("peer.key")
    }

    /// Takes a beacon seed that others know: for demonstrations that are to be repeated, only.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when there is one already.
    pub fn set_beacon_seed(&self, seed: &[u8; 32]) -> Result<(), KeyError> {
        let path = self.dir.join(BEACON_FILE);
        if path.exists() {
            return Err(KeyError::Exists { path });
        }
        Ok(home::write_secret(&path, hex::encode(seed).as_bytes())?)
    }

    /// A seed for one role's private randomness (commitment salts); made on first use and kept, so
    /// that a restarted role reproduces its commitments.
    ///
    /// # Errors
    /// When the file cannot be made, read, or is malformed.
    pub fn salt_seed(&self, role: Role) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        self.seed_file(&format!("{role}.salt"))
    }

    /// The address of each key, for display: the account first, then the roles.
    ///
    /// # Errors
    /// As [`Keyring::account_address`] and [`Keyring::role`].
    pub fn addresses(&self) -> Result<Vec<(String, Address)>, KeyError> {
        let mut all = vec![("account".to_owned(), self.account_address()?)];
        for &role in Role::ALL {
            all.push((role.to_string(), self.role(role)?.address()));
        }
        Ok(all)
    }

    /// The mnemonic's words, for `r3mes keys export`.
    ///
    /// # Errors
    /// As [`Keyring::account`].
    pub fn phrase(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(Zeroizing::new(self.mnemonic()?.phrase().to_owned()))
    }

    /// Tells a home without any keys from one whose keys cannot be read.
    fn require_keys(&self) -> Result<(), KeyError> {
        match self.address_file().exists() || self.mnemonic_file().exists() {
            true => Ok(()),
            false => Err(KeyError::Missing {
                dir: self.dir.clone(),
                home: self.dir.parent().unwrap_or(&self.dir).to_owned(),
            }),
        }
    }

    fn mnemonic(&self) -> Result<Mnemonic, KeyError> {
        self.require_keys()?;
        let bytes = Zeroizing::new(home::read_secret(&self.mnemonic_file())?);
        let phrase = std::str::from_utf8(&bytes).map_err(|_| self.bad_mnemonic())?;
        Mnemonic::new(phrase.trim(), Language::English).map_err(|_| self.bad_mnemonic())
    }

    fn bad_mnemonic(&self) -> KeyError {
        KeyError::Malformed {
            path: self.mnemonic_file(),
            expected: "24 English mnemonic words",
        }
    }

    fn seed_file(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let path = self.dir.join(name);
        if !path.exists() {
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut()).map_err(KeyError::Entropy)?;
            home::write_secret(&path, hex::encode(*seed).as_bytes())?;
        }
        read_hex32(&path)
    }

    fn mnemonic_file(&self) -> PathBuf {
        self.dir.join("mnemonic")
    }

    fn address_file(&self) -> PathBuf {
        self.dir.join("account.address")
    }

    fn role_file(&self, role: Role) -> PathBuf {
        self.dir.join(format!("{role}.key"))
    }
}

fn derive(mnemonic: &Mnemonic, index: u32) -> SecretKey {
    let path: DerivationPath = format!("m/44'/{COIN_TYPE}'/0'/0/{index}")
        .parse()
        .expect("a fixed derivation path");
    let key = XPrv::derive_from_path(mnemonic.to_seed(""), &path)
        .expect("derivation fails with chance 2^-127");
    SecretKey::from_bytes(&key.private_key().to_bytes().into())
        .expect("a derived key is a valid scalar")
}

fn read_hex32(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let text = Zeroizing::new(home::read_secret(path)?);
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut()).map_err(|_| KeyError::Malformed {
        path: path.to_owned(),
        expected: "64 hex digits",
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> (tempfile::TempDir, Keyring) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        home.create().unwrap();
        let keyring = Keyring::new(&home);
        (dir, keyring)
    }

    /// The words of BIP-39's all-zero 256-bit vector; the address is what Cosmos wallets derive.
    const ZERO: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon \
                        abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art";

    #[test]
    fn recovered_words_give_the_account_that_wallets_derive() {
        let (_dir, keyring) = keyring();
        keyring.recover(ZERO).unwrap();
        let address = keyring.account().unwrap().address();
        assert_eq!(
            address.to_string(),
            "remes1r5v5srda7xfth3hn2s26txvrcrntldjuy5u8da"
        );
    }

    #[test]
    fn a_home_without_keys_says_how_to_make_them() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(&Home::new(folder.path()));
        let home = folder.path().display();
        for error in [
            keyring.addresses().map(|_| ()).unwrap_err(),
            keyring.account_address().map(|_| ()).unwrap_err(),
            keyring.phrase().map(|_| ()).unwrap_err(),
        ] {
            let said = error.to_string();
            assert!(
                said.contains(&format!("r3mes init --home {home}")),
                "{said}"
            );
        }
        assert!(folder.path().read_dir().unwrap().next().is_none());
    }

    #[test]
    fn words_with_a_wrong_checksum_are_blamed_and_no_file() {
        let (_dir, keyring) = keyring();
        let swapped = ZERO.replace(" art", " abandon");
        let error = keyring.recover(&swapped).unwrap_err();
        assert!(matches!(error, KeyError::Phrase), "{error}");
        assert!(!error.to_string().contains('/'), "{error}");
        assert!(!keyring.mnemonic_file().exists());
    }

    #[test]
    fn new_keys_never_replace_old_ones() {
        let (_dir, keyring) = keyring();
        keyring.generate().unwrap();
        let before = keyring.addresses().unwrap();
        assert!(matches!(keyring.generate(), Err(KeyError::Exists { .. })));
        assert_eq!(keyring.addresses().unwrap(), before);
    }

    #[test]
    fn a_consensus_key_that_is_given_away_leaves_its_public_half() {
        let (_dir, keyring) = keyring();
        let public = keyring.consensus_key().unwrap();
        assert!(keyring.has_consensus_key());
        keyring.give_consensus_key_away().unwrap();
        assert!(!keyring.dir.join(CONSENSUS_FILE).exists());
        assert_eq!(keyring.consensus_key().unwrap(), public);
        assert!(matches!(
            keyring.consensus_seed(),
            Err(KeyError::Away { .. })
        ));
        assert!(keyring.give_consensus_key_away().is_err());
    }

    #[test]
    fn a_role_key_is_the_one_its_index_derives() {
        let (_dir, keyring) = keyring();
        keyring.recover(ZERO).unwrap();
        let derived = derive(&keyring.mnemonic().unwrap(), Role::Validator.number());
        assert_eq!(
            keyring.role(Role::Validator).unwrap().public_key(),
            derived.public_key()
        );
    }
}
