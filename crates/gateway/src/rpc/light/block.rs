//! One step of trust: from a block that is trusted to another.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tendermint::block::CommitSig;
use tendermint::block::signed_header::SignedHeader;
use tendermint::crypto::default::signature::Verifier as Verifying;
use tendermint::vote::{self, SignedVote, Vote};
use tendermint::{Hash, PublicKey, Time, chain, validator};
use tendermint_light_client_verifier::errors::VerificationErrorDetail;
use tendermint_light_client_verifier::options::Options;
use tendermint_light_client_verifier::types::{TrustedBlockState, UntrustedBlockState};
use tendermint_light_client_verifier::{ProdVerifier, Verdict, Verifier};

use super::error::LightError;

/// For how long a header is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustOptions {
    /// How old a trusted header may be when others are verified by it: less than the time for which
    /// validators can lose their stake for what they signed.
    pub period: Duration,
    /// How far the network's clocks may be ahead of this machine's.
    pub clock_drift: Duration,
}

impl Default for TrustOptions {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(14 * 24 * 3600),
            clock_drift: Duration::from_secs(10),
        }
    }
}

/// A block validator as header hashes have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signer {
    pub_key: PublicKey,
    #[serde(with = "tendermint::serializers::from_str")]
    power: u64,
}

/// A block without its transactions: header, commit, and who signs it and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Sent", into = "Sent")]
pub struct LightBlock {
    /// Header and commit.
    pub signed: SignedHeader,
    /// Who signs it.
    pub validators: validator::Set,
    /// Who signs the next.
    pub next_validators: validator::Set,
}

/// A [`LightBlock`] as files have it: nothing in it that no hash or signature covers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    signed: SignedHeader,
    validators: Vec<Signer>,
    next_validators: Vec<Signer>,
}

impl From<LightBlock> for Sent {
    fn from(block: LightBlock) -> Self {
        let signers = |set: &validator::Set| {
            let signers = set.validators().iter();
            let signers = signers.map(|info| Signer {
                pub_key: info.pub_key,
                power: info.power(),
            });
            signers.collect()
        };
        Self {
            validators: signers(&block.validators),
            next_validators: signers(&block.next_validators),
            signed: block.signed,
        }
    }
}

impl TryFrom<Sent> for LightBlock {
    type Error = TooMuchPower;

    fn try_from(sent: Sent) -> Result<Self, Self::Error> {
        let set = |signers: Vec<Signer>| {
            let infos = signers.into_iter().map(|signer| {
                let power = signer.power.try_into().map_err(|_| TooMuchPower)?;
                Ok(validator::Info::new(signer.pub_key, power))
            });
            validators(infos.collect::<Result<_, _>>()?)
        };
        Ok(Self {
            validators: set(sent.validators)?,
            next_validators: set(sent.next_validators)?,
            signed: sent.signed,
        })
    }
}

/// No network has so much voting power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the validators have more voting power together than any network may")]
pub struct TooMuchPower;

/// A set of validators that somebody sent.
pub(super) fn validators(infos: Vec<validator::Info>) -> Result<validator::Set, TooMuchPower> {
    let powers = infos.iter().map(validator::Info::power);
    let total = powers.fold(0u64, u64::saturating_add);
    if total > validator::Set::MAX_TOTAL_VOTING_POWER {
        return Err(TooMuchPower);
    }
    Ok(validator::Set::without_proposer(infos))
}

impl LightBlock {
    /// Its height.
    pub fn height(&self) -> u64 {
        self.signed.header.height.value()
    }

    /// Its hash.
    pub fn hash(&self) -> Hash {
        self.signed.header.hash()
    }

    /// The app hash in its header: the state's root after the block before.
    pub fn app_hash(&self) -> Option<[u8; 32]> {
        self.signed.header.app_hash.as_bytes().try_into().ok()
    }

    /// As something trusted.
    pub fn trusted(&self) -> Trusted {
        let header = &self.signed.header;
        Trusted {
            chain_id: header.chain_id.clone(),
            height: self.height(),
            time: header.time,
            hash: Some(self.hash()),
            next_validators: self.next_validators.clone(),
        }
    }

    /// How much power signed it, and how much there is.
    pub fn power(&self) -> (u64, u64) {
        let signatures = self.signed.commit.signatures.iter();
        let signed = signatures.filter_map(|signature| match signature {
            CommitSig::BlockIdFlagCommit {
                validator_address, ..
            } => self.validators.validator(*validator_address),
            _ => None,
        });
        let signed = signed.map(|info| info.power()).sum();
        (signed, self.validators.total_voting_power().value())
    }

    /// Checks what can be checked without trusting anything: that hashes fit each other, and that every
    /// signature in the commit is one, also those beyond what is needed.
    ///
    /// # Errors
    /// [`LightError`] names what does not fit.
    pub fn check(&self) -> Result<(), LightError> {
        let (height, header) = (self.height(), &self.signed.header);
        let committed = self.signed.commit.block_id.hash;
        if committed != self.hash() {
            return Err(LightError::Header {
                height,
                found: self.hash().to_string(),
                committed: committed.to_string(),
            });
        }
        let sets = [
            (height, &self.validators, header.validators_hash),
            (
                height + 1,
                &self.next_validators,
                header.next_validators_hash,
            ),
        ];
        for (height, set, expected) in sets {
            if set.hash() != expected {
                return Err(LightError::Validators {
                    height,
                    found: set.hash().to_string(),
                    expected: expected.to_string(),
                });
            }
        }
        self.check_signatures()
    }

    fn check_signatures(&self) -> Result<(), LightError> {
        let (height, commit) = (self.height(), &self.signed.commit);
        if commit.height.value() != height {
            return Err(LightError::Commit {
                height,
                why: format!("it is for height {}", commit.height),
            });
        }
        let mut signers = BTreeSet::new();
        for (index, signature) in commit.signatures.iter().enumerate() {
            let (address, timestamp, signature, block_id) = match signature {
                CommitSig::BlockIdFlagAbsent => continue,
                CommitSig::BlockIdFlagCommit {
                    validator_address,
                    timestamp,
                    signature,
                } => (
                    validator_address,
                    timestamp,
                    signature,
                    Some(commit.block_id),
                ),
                CommitSig::BlockIdFlagNil {
                    validator_address,
                    timestamp,
                    signature,
                } => (validator_address, timestamp, signature, None),
            };
            let refused = |why: String| LightError::Signature { height, why };
            let info = self.validators.validator(*address);
            let info = info.ok_or_else(|| refused(format!("{address} is no validator")))?;
            if !signers.insert(*address) {
                return Err(refused(format!("{address} signs twice")));
            }
            let vote = Vote {
                vote_type: vote::Type::Precommit,
                height: commit.height,
                round: commit.round,
                block_id,
                timestamp: Some(*timestamp),
                validator_address: *address,
                validator_index: index
                    .try_into()
                    .map_err(|_| refused("there are too many".to_owned()))?,
                signature: signature.clone(),
                extension: Vec::new(),
                extension_signature: None,
            };
            let vote = SignedVote::from_vote(vote, self.signed.header.chain_id.clone());
            let vote = vote.ok_or_else(|| refused(format!("that of {address} is missing")))?;
            info.verify_signature::<Verifying>(&vote.sign_bytes(), vote.signature())
                .map_err(|_| refused(format!("that of {address} is not valid")))?;
        }
        Ok(())
    }
}

/// What is trusted: from it, later headers are verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Trusted {
    /// The chain.
    pub chain_id: chain::Id,
    /// The height.
    pub height: u64,
    /// When that was.
    pub time: Time,
    /// Hash of the block; `None` before the first one.
    pub hash: Option<Hash>,
    /// Who signs the next block.
    pub next_validators: validator::Set,
}

/// Whether `block` may be trusted because `trusted` is. `Ok(false)`: it is valid in itself, but too few
/// of the trusted validators signed it; one between the two has to be verified first.
///
/// # Errors
/// [`LightError`] names what is wrong with the block.
pub fn verify(
    trusted: &Trusted,
    block: &LightBlock,
    options: &TrustOptions,
    now: Time,
) -> Result<bool, LightError> {
    block.check()?;
    let height = trusted.height.try_into();
    let verdict = ProdVerifier::default().verify_update_header(
        UntrustedBlockState {
            signed_header: &block.signed,
            validators: &block.validators,
            next_validators: Some(&block.next_validators),
        },
        TrustedBlockState {
            chain_id: &trusted.chain_id,
            header_time: trusted.time,
            height: height.map_err(|_| LightError::Height {
                asked: trusted.height,
                got: block.height(),
            })?,
            next_validators: &trusted.next_validators,
            next_validators_hash: trusted.next_validators.hash(),
        },
        &Options {
            trust_threshold: Default::default(),
            trusting_period: options.period,
            clock_drift: options.clock_drift,
        },
        now,
    );
    match verdict {
        Verdict::Success => Ok(true),
        Verdict::NotEnoughTrust(_) => Ok(false),
        Verdict::Invalid(detail) => Err(named(trusted, block, detail)),
    }
}

/// [`verify`] by this machine's clock.
///
/// # Errors
/// As [`verify`].
pub fn verify_now(
    trusted: &Trusted,
    block: &LightBlock,
    options: &TrustOptions,
) -> Result<bool, LightError> {
    verify(trusted, block, options, Time::now())
}

/// Whether `before` is the block that `after`, which is trusted, names as the one before it.
///
/// # Errors
/// [`LightError`] names what differs.
pub fn verify_link(before: &LightBlock, after: &LightBlock) -> Result<(), LightError> {
    before.check()?;
    let named = after.signed.header.last_block_id;
    let trusted = named.map(|id| id.hash).unwrap_or_default();
    let consecutive = before.height() + 1 == after.height();
    if !consecutive || before.hash() != trusted {
        return Err(LightError::Fork {
            height: before.height(),
            found: before.hash().to_string(),
            trusted: trusted.to_string(),
        });
    }
    Ok(())
}

fn named(trusted: &Trusted, block: &LightBlock, detail: VerificationErrorDetail) -> LightError {
    use VerificationErrorDetail as Detail;
    let height = block.height();
    match detail {
        Detail::InvalidCommitValue(found) => LightError::Header {
            height,
            found: found.header_hash.to_string(),
            committed: found.commit_hash.to_string(),
        },
        Detail::InvalidValidatorSet(found) => LightError::Validators {
            height,
            found: found.validators_hash.to_string(),
            expected: found.header_validators_hash.to_string(),
        },
        // Of the verifier's two, the first is the untrusted header's.
        Detail::InvalidNextValidatorSet(found) => LightError::Validators {
            height,
            found: found.header_next_validators_hash.to_string(),
            expected: found.next_validators_hash.to_string(),
        },
        Detail::InsufficientSignersOverlap(found) => LightError::Power {
            height,
            tally: found.tally.to_string(),
        },
        Detail::InvalidSignature(found) => LightError::Signature {
            height,
            why: format!("that of {} is not valid", found.validator.address),
        },
        Detail::FaultySigner(found) => LightError::Signature {
            height,
            why: format!("{} is no validator", found.signer),
        },
        Detail::NonIncreasingHeight(_) => LightError::Behind {
            newest: height,
            verified: trusted.height,
        },
        Detail::ChainIdMismatch(found) => LightError::Chain {
            height,
            got: found.got,
            expected: found.expected,
        },
        Detail::NonMonotonicBftTime(found) => LightError::Time {
            height,
            got: found.header_bft_time.to_string(),
            trusted: trusted.height,
            expected: found.trusted_header_bft_time.to_string(),
        },
        Detail::HeaderFromTheFuture(found) => LightError::Future {
            height,
            got: found.header_time.to_string(),
            now: found.now.to_string(),
        },
        Detail::NotWithinTrustPeriod(found) => LightError::Expired {
            height: trusted.height,
            ended: found.expires_at.to_string(),
        },
        other => LightError::Commit {
            height,
            why: other.to_string(),
        },
    }
}
