//! Transactions in the form of the Cosmos SDK: `TxRaw`, signed in `SIGN_MODE_DIRECT`; transfers also
//! in `SIGN_MODE_LEGACY_AMINO_JSON`, for hardware wallets.
//!
//! One key signs a transaction. The accounts its messages act for are the key's own, or accounts
//! that granted it those message types.
//!
//! ```
//! use r3mes_types::{Amount, Coin, SecretKey, bank::MsgSend, tx::{Signer, Tx, Unsigned}};
//!
//! let key = SecretKey::from_bytes(&[1; 32])?;
//! let send = MsgSend::new(key.address(), SecretKey::from_bytes(&[2; 32])?.address(), Amount::remes(1));
//! let signer = Signer { chain_id: "r3mes-1", account_number: 0, sequence: 0 };
//! let bytes = Unsigned::new(vec![send.into()]).sign(&key, &signer)?;
//! let tx = Tx::parse(&bytes)?;
//! assert!(tx.verify("r3mes-1", 0));
//! assert!(!tx.verify("r3mes-2", 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use sha2::{Digest, Sha256};

use crate::beacon::MsgReveal;
use crate::wire::{Blob, DecodeError, List, Text, Wire};
use crate::{
    Address, Amount, Coin, Message, MessageError, PublicKey, SecretKey, Signature, amino, schema,
    wire_enum,
};

/// Largest transaction in bytes.
pub const MAX_TX_BYTES: usize = 256 * 1024;
/// Most messages in one transaction.
pub const MAX_MESSAGES: usize = 32;
/// Longest memo in bytes.
pub const MAX_MEMO: usize = 256;
/// Longest type URL in bytes.
pub const MAX_TYPE_URL: usize = 128;
/// Longest chain id in bytes, as in CometBFT.
pub const MAX_CHAIN_ID: usize = 50;
/// Type URL of the only kind of key that signs.
pub const PUBLIC_KEY_URL: &str = "/cosmos.crypto.secp256k1.PubKey";

wire_enum! {
    /// What exactly was signed.
    pub enum SignMode {
        /// The canonical bytes of a [`SignDoc`].
        Direct = 1 => "direct",
        /// The transaction as sorted JSON; transfers only.
        LegacyAminoJson = 127 => "legacy amino JSON",
    }
}

schema! {
    /// `google.protobuf.Any`: a value with its type.
    pub struct Any {
        /// Names the type.
        1 => type_url: Text<MAX_TYPE_URL>,
        /// The encoded value.
        2 => value: Blob<MAX_TX_BYTES>,
    }

    /// `cosmos.tx.v1beta1.TxRaw`: what is signed, as the very bytes, and the signature.
    pub struct TxRaw {
        /// Encoded [`TxBody`].
        1 => body_bytes: Blob<MAX_TX_BYTES>,
        /// Encoded [`AuthInfo`].
        2 => auth_info_bytes: Blob<MAX_TX_BYTES>,
        /// The signature; none on a block's first transaction.
        3 => signatures: List<Signature, 1>,
    }

    /// `cosmos.tx.v1beta1.TxBody`.
    pub struct TxBody {
        /// What to do, in order; all of it or nothing.
        1 => messages: List<Any, MAX_MESSAGES>,
        /// A note for people.
        2 => memo: Text<MAX_MEMO>,
        /// Last height at which the transaction is good; 0 for no end.
        3 => timeout_height: u64,
    }

    /// `cosmos.tx.v1beta1.AuthInfo`.
    pub struct AuthInfo {
        /// Who signs.
        1 => signer_infos: List<SignerInfo, 1>,
        /// What is paid.
        2 => fee: Fee,
    }

    /// `cosmos.tx.v1beta1.SignerInfo`.
    pub struct SignerInfo {
        /// The key. Always given, so that a transaction can be checked by itself.
        1 => public_key: Any,
        /// What was signed.
        2 => mode_info: ModeInfo,
        /// How many transactions the key has signed before.
        3 => sequence: u64,
    }

    /// `cosmos.tx.v1beta1.ModeInfo` with a single signature.
    pub struct ModeInfo {
        /// The only form accepted.
        1 => single: Single,
    }

    /// `cosmos.tx.v1beta1.ModeInfo.Single`.
    pub struct Single {
        /// What was signed.
        1 => mode: SignMode,
    }

    /// `cosmos.tx.v1beta1.Fee`.
    pub struct Fee {
        /// At most one coin.
        1 => amount: List<Coin, 1>,
        /// Most gas that may be used.
        2 => gas_limit: u64,
        /// Who pays instead of the signer; must be the signer when given.
        3 => payer: Option<Address>,
        /// An account that granted the signer to pay fees from it.
        4 => granter: Option<Address>,
    }

    /// `cosmos.tx.v1beta1.SignDoc`: what is signed in direct mode.
    pub struct SignDoc {
        /// Encoded [`TxBody`].
        1 => body_bytes: Blob<MAX_TX_BYTES>,
        /// Encoded [`AuthInfo`].
        2 => auth_info_bytes: Blob<MAX_TX_BYTES>,
        /// The chain the transaction is for.
        3 => chain_id: Text<MAX_CHAIN_ID>,
        /// Number of the signer's account.
        4 => account_number: u64,
    }

    /// `cosmos.crypto.secp256k1.PubKey`.
    pub struct PublicKeyValue {
        /// The compressed key.
        1 => key: PublicKey,
    }
}

impl Fee {
    /// No fee, for what a node owes anyway, with a limit of gas.
    pub fn none(gas_limit: u64) -> Self {
        Self {
            amount: List::default(),
            gas_limit,
            payer: None,
            granter: None,
        }
    }

    /// A fee the signer pays itself.
    pub fn of(amount: Amount, gas_limit: u64) -> Self {
        let mut fee = Self::none(gas_limit);
        fee.amount
            .push(Coin(amount))
            .expect("an empty list has room for one coin");
        fee
    }

    /// The amount paid.
    pub fn paid(&self) -> Amount {
        self.amount.first().map_or(Amount::ZERO, |coin| coin.0)
    }
}

/// A transaction whose form has been checked: every part parsed, the signature not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tx {
    /// What to do.
    pub messages: Vec<Message>,
    /// A note for people.
    pub memo: Text<MAX_MEMO>,
    /// Last height at which the transaction is good; 0 for no end.
    pub timeout_height: u64,
    /// The key that signed.
    pub public_key: PublicKey,
    /// How many transactions the key has signed before.
    pub sequence: u64,
    /// What is paid.
    pub fee: Fee,
    /// What was signed.
    pub mode: SignMode,
    /// The signature.
    pub signature: Signature,
    /// Kept, since it takes two hashes and is asked for at every step.
    signer: Address,
    body_bytes: Blob<MAX_TX_BYTES>,
    auth_info_bytes: Blob<MAX_TX_BYTES>,
}

/// Why a transaction's bytes were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// Larger than [`MAX_TX_BYTES`].
    #[error("the transaction has {length} bytes, the limit is {MAX_TX_BYTES}")]
    TooLarge {
        /// Its length.
        length: usize,
    },
    /// A part is not canonical.
    #[error("malformed transaction ({part}): {source}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong where.
        source: DecodeError,
    },
    /// It does nothing.
    #[error("the transaction carries no message")]
    Empty,
    /// There is no signature, or nobody it is of.
    #[error("the transaction must have exactly one signer and one signature")]
    Unsigned,
    /// Another kind of key.
    #[error("keys of type {type_url:?} cannot sign here; use {PUBLIC_KEY_URL}")]
    KeyType {
        /// Type URL of the key.
        type_url: String,
    },
    /// A message that has no JSON form.
    #[error("{type_url} cannot be signed as amino JSON, only transfers can: sign in direct mode")]
    Amino {
        /// Type URL of the message.
        type_url: &'static str,
    },
    /// A message is not valid.
    #[error("message {index}: {source}")]
    Message {
        /// Position in the transaction, from 0.
        index: usize,
        /// What is wrong.
        source: MessageError,
    },
}

impl Tx {
    /// Parses the bytes of a `TxRaw`.
    ///
    /// # Errors
    /// When any part is not canonical, too large, or of an unknown type.
    pub fn parse(bytes: &[u8]) -> Result<Self, TxError> {
        if bytes.len() > MAX_TX_BYTES {
            return Err(TxError::TooLarge {
                length: bytes.len(),
            });
        }
        let malformed = |part| move |source| TxError::Malformed { part, source };
        let raw = TxRaw::decode(bytes).map_err(malformed("TxRaw"))?;
        let body = TxBody::decode(&raw.body_bytes).map_err(malformed("TxBody"))?;
        let auth = AuthInfo::decode(&raw.auth_info_bytes).map_err(malformed("AuthInfo"))?;
        let ([signer], [signature]) = (&*auth.signer_infos, &*raw.signatures) else {
            return Err(TxError::Unsigned);
        };
        if &*signer.public_key.type_url != PUBLIC_KEY_URL {
            let type_url = signer.public_key.type_url.to_string();
            return Err(TxError::KeyType { type_url });
        }
        let key = PublicKeyValue::decode(&signer.public_key.value)
            .map_err(malformed("AuthInfo.public_key"))?;
        if body.messages.is_empty() {
            return Err(TxError::Empty);
        }
        let messages = parse_messages(&body.messages)?;
        let mode = signer.mode_info.single.mode;
        if mode == SignMode::LegacyAminoJson
            && let Some(message) = messages.iter().find(|message| !amino::has_form(message))
        {
            let type_url = message.type_url();
            return Err(TxError::Amino { type_url });
        }
        Ok(Self {
            messages,
            memo: body.memo,
            timeout_height: body.timeout_height,
            public_key: key.key,
            sequence: signer.sequence,
            fee: auth.fee,
            mode,
            signature: *signature,
            signer: key.key.address(),
            body_bytes: raw.body_bytes,
            auth_info_bytes: raw.auth_info_bytes,
        })
    }

    /// The account of the key that signed.
    pub const fn signer(&self) -> Address {
        self.signer
    }

    /// Whether the signature is over this transaction for this chain and account.
    pub fn verify(&self, chain_id: &str, account_number: u64) -> bool {
        let signed = match self.mode {
            SignMode::Direct => self.document(chain_id, account_number),
            SignMode::LegacyAminoJson => amino::sign_bytes(self, chain_id, account_number),
        };
        signed.is_some_and(|signed| self.public_key.verify(&signed, &self.signature))
    }

    fn document(&self, chain_id: &str, account_number: u64) -> Option<Vec<u8>> {
        let document = SignDoc {
            body_bytes: self.body_bytes.clone(),
            auth_info_bytes: self.auth_info_bytes.clone(),
            chain_id: Text::new(chain_id).ok()?,
            account_number,
        };
        Some(document.encode())
    }
}

fn parse_messages(messages: &[Any]) -> Result<Vec<Message>, TxError> {
    messages
        .iter()
        .enumerate()
        .map(|(index, any)| {
            Message::decode(&any.type_url, &any.value)
                .map_err(|source| TxError::Message { index, source })
        })
        .collect()
}

/// For whom a signature is made.
#[derive(Clone, Copy, Debug)]
pub struct Signer<'a> {
    /// The chain the transaction is for.
    pub chain_id: &'a str,
    /// Number of the signer's account.
    pub account_number: u64,
    /// How many transactions the key has signed before.
    pub sequence: u64,
}

/// A transaction before it is signed.
#[derive(Clone, Debug)]
pub struct Unsigned {
    /// What to do.
    pub messages: Vec<Message>,
    /// A note for people.
    pub memo: Text<MAX_MEMO>,
    /// Last height at which the transaction is good; 0 for no end.
    pub timeout_height: u64,
    /// What is paid.
    pub fee: Fee,
}

/// Gas limit of a transaction whose builder names none.
pub const DEFAULT_GAS_LIMIT: u64 = 1_000_000;

impl Unsigned {
    /// A transaction without memo, end or fee.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            memo: Text::default(),
            timeout_height: 0,
            fee: Fee::none(DEFAULT_GAS_LIMIT),
        }
    }

    /// The same with another fee.
    #[must_use]
    pub fn with_fee(mut self, fee: Fee) -> Self {
        self.fee = fee;
        self
    }

    /// What a wallet has to sign so that `key` is the signer.
    ///
    /// # Errors
    /// When there are too many messages, or the chain id is too long.
    pub fn sign_doc(&self, key: &PublicKey, signer: &Signer<'_>) -> Result<SignDoc, DecodeError> {
        let messages: Vec<Any> = self
            .messages
            .iter()
            .map(Message::to_any)
            .collect::<Result<_, _>>()?;
        let body = TxBody {
            messages: List::new(messages)?,
            memo: self.memo.clone(),
            timeout_height: self.timeout_height,
        };
        let info = SignerInfo {
            public_key: Any {
                type_url: Text::new(PUBLIC_KEY_URL)?,
                value: Blob::new(PublicKeyValue { key: *key }.encode())?,
            },
            mode_info: ModeInfo {
                single: Single {
                    mode: SignMode::Direct,
                },
            },
            sequence: signer.sequence,
        };
        let auth = AuthInfo {
            signer_infos: List::new(vec![info])?,
            fee: self.fee.clone(),
        };
        Ok(SignDoc {
            body_bytes: Blob::new(body.encode())?,
            auth_info_bytes: Blob::new(auth.encode())?,
            chain_id: Text::new(signer.chain_id)?,
            account_number: signer.account_number,
        })
    }

    /// Signs; the result is ready to be sent.
    ///
    /// # Errors
    /// As [`Unsigned::sign_doc`].
    pub fn sign(&self, key: &SecretKey, signer: &Signer<'_>) -> Result<Vec<u8>, DecodeError> {
        let document = self.sign_doc(&key.public_key(), signer)?;
        let signature = key.sign(&document.encode());
        Ok(document.with_signature(signature))
    }
}

impl SignDoc {
    /// The transaction, once a signature over the document is there.
    pub fn with_signature(self, signature: Signature) -> Vec<u8> {
        let signatures = List::new(vec![signature]).expect("a list of one has room for one");
        TxRaw {
            body_bytes: self.body_bytes,
            auth_info_bytes: self.auth_info_bytes,
            signatures,
        }
        .encode()
    }
}

/// A block's first transaction: the block proposer's reveal, which needs no signature, since only
/// the one who made the hash chain can know the preimage.
pub fn reveal_tx(reveal: &MsgReveal) -> Vec<u8> {
    let message = Any {
        type_url: Text::new(MsgReveal::TYPE_URL).expect("the constant is short"),
        value: Blob::new(reveal.encode()).expect("an address and a hash are short"),
    };
    let body = TxBody {
        messages: List::new(vec![message]).expect("a list of one has room for one"),
        memo: Text::default(),
        timeout_height: 0,
    };
    let body_bytes = Blob::new(body.encode()).expect("one short message fits a transaction");
    TxRaw {
        body_bytes,
        auth_info_bytes: Blob::default(),
        signatures: List::default(),
    }
    .encode()
}

/// Reads a block's first transaction; `None` when it is anything but a reveal.
pub fn parse_reveal(bytes: &[u8]) -> Option<MsgReveal> {
    let raw = TxRaw::decode(bytes).ok()?;
    let body = TxBody::decode(&raw.body_bytes).ok()?;
    let [message] = &*body.messages else {
        return None;
    };
    if &*message.type_url != MsgReveal::TYPE_URL {
        return None;
    }
    let reveal = MsgReveal::decode(&message.value).ok()?;
    (reveal_tx(&reveal) == bytes).then_some(reveal)
}

/// The name of a transaction: sha256 of its bytes, in upper-case hexadecimal digits, as Cosmos does.
pub fn tx_hash(bytes: &[u8]) -> String {
    hex::encode_upper(Sha256::digest(bytes))
}
