//! The key that signs blocks.

use std::fmt;

use r3mes_types::{ConsensusAddress, ConsensusKey};
use zeroize::Zeroizing;

/// An ed25519 key with which one validator signs blocks. Never printed; wiped from memory when dropped.
pub struct ValidatorKey {
    key: ed25519_consensus::SigningKey,
    public: tendermint::PublicKey,
}

impl ValidatorKey {
    /// Length of the secret in bytes.
    pub const LEN: usize = 32;

    /// The key of a 32-byte secret (an ed25519 seed: the first half of what CometBFT writes into
    /// `priv_validator_key.json`).
    pub fn from_seed(seed: &[u8; Self::LEN]) -> Self {
        let key = ed25519_consensus::SigningKey::from(*seed);
        let public = tendermint::PublicKey::from_raw_ed25519(key.verification_key().as_bytes())
            .expect("a key just derived is on the curve");
        Self { key, public }
    }

    /// The secret, to be written to a file that only its owner reads.
    pub fn to_seed(&self) -> Zeroizing<[u8; Self::LEN]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public key.
    pub fn public_key(&self) -> ConsensusKey {
        ConsensusKey::from(self.key.verification_key().to_bytes())
    }

    /// How CometBFT names the validator.
    pub fn address(&self) -> ConsensusAddress {
        self.public_key().address()
    }

    pub(crate) fn tendermint_key(&self) -> tendermint::PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> tendermint::Signature {
        let bytes = self.key.sign(message).to_bytes();
        tendermint::Signature::try_from(bytes.as_slice())
            .expect("an ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for ValidatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValidatorKey of {}", self.address())
    }
}
