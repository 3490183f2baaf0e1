//! `cosmos.tx.v1beta1.Service/Simulate`: what a transaction would cost and do.

use crate::query::MAX_PAGE;
use crate::tx::{
    Any, AuthInfo, Fee, MAX_TX_BYTES, ModeInfo, SignMode, SignerInfo, Single, Tx, TxError, TxRaw,
};
use crate::wire::{Blob, List, Text, Wire};
use crate::{Amount, Signature, queries, schema};

/// Longest value of an event's attribute that is shown.
pub const MAX_ATTRIBUTE: usize = 4096;
/// Most attributes of an event.
pub const MAX_ATTRIBUTES: usize = 64;
/// Longest encoded mode of signing.
const MAX_MODE: usize = 64;
/// Longest signature.
const MAX_SIGNATURE: usize = 64;

schema! {
    /// Asks what a transaction would cost and do. The signature may be missing.
    pub struct SimulateRequest {
        /// The encoded transaction, in the place where older clients put it.
        1 => tx: Option<Blob<MAX_TX_BYTES>>,
        /// The encoded transaction.
        2 => tx_bytes: Blob<MAX_TX_BYTES>,
    }

    /// What a transaction would cost and do.
    pub struct SimulateResponse {
        /// What it would cost.
        1 => gas_info: GasInfo,
        /// What it would do.
        2 => result: SimulationResult,
    }

    /// `cosmos.base.abci.v1beta1.GasInfo`.
    #[derive(Copy)]
    pub struct GasInfo {
        /// The limit.
        1 => gas_wanted: u64,
        /// What was used.
        2 => gas_used: u64,
    }

    /// `cosmos.base.abci.v1beta1.Result`.
    pub struct SimulationResult {
        /// What the messages answered: nothing as yet.
        1 => data: Blob<0>,
        /// What went wrong: nothing.
        2 => log: Text<0>,
        /// What happened.
        3 => events: List<Event, MAX_PAGE>,
    }

    /// `tendermint.abci.Event`.
    pub struct Event {
        /// Its kind.
        1 => kind: Text<MAX_ATTRIBUTE>,
        /// Its attributes.
        2 => attributes: List<EventAttribute, MAX_ATTRIBUTES>,
    }

    /// `tendermint.abci.EventAttribute`.
    pub struct EventAttribute {
        /// Its name.
        1 => key: Text<MAX_ATTRIBUTE>,
        /// Its value.
        2 => value: Text<MAX_ATTRIBUTE>,
        /// Whether it can be searched for.
        3 => index: bool,
    }

    /// [`TxRaw`] whose signature may be missing.
    pub struct UnsignedRaw {
        /// Encoded [`TxBody`](crate::tx::TxBody).
        1 => body_bytes: Blob<MAX_TX_BYTES>,
        /// Encoded [`UnsignedAuthInfo`].
        2 => auth_info_bytes: Blob<MAX_TX_BYTES>,
        /// The signature, empty, or none.
        3 => signatures: List<Blob<MAX_SIGNATURE>, 1>,
    }

    /// [`AuthInfo`] of which the mode of signing and the fee may be missing.
    pub struct UnsignedAuthInfo {
        /// Who would sign.
        1 => signer_infos: List<UnsignedSignerInfo, 1>,
        /// What would be paid.
        2 => fee: Option<Fee>,
    }

    /// [`SignerInfo`] of which the mode of signing may be missing.
    pub struct UnsignedSignerInfo {
        /// The key.
        1 => public_key: Any,
        /// What would be signed.
        2 => mode_info: Option<Blob<MAX_MODE>>,
        /// How many transactions the key has signed before.
        3 => sequence: u64,
    }
}

queries! {
    "/cosmos.tx.v1beta1.Service/Simulate" => SimulateRequest: SimulateResponse,
}

/// A transaction whose cost is asked for, as it would be if it were signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The transaction. Its signature is of nobody.
    pub tx: Tx,
    /// Its length once it is signed, with a gas limit and a fee.
    pub signed_bytes: usize,
}

impl SimulateRequest {
    /// The bytes of the transaction, wherever they are.
    pub fn bytes(&self) -> &[u8] {
        match &self.tx {
            Some(tx) if self.tx_bytes.is_empty() => tx,
            _ => &self.tx_bytes,
        }
    }
}

impl Draft {
    /// Parses a transaction that may lack signature, mode of signing and fee. `max_gas` stands for a
    /// gas limit that is not there.
    ///
    /// # Errors
    /// As [`Tx::parse`].
    pub fn parse(bytes: &[u8], max_gas: u64) -> Result<Self, TxError> {
        if bytes.len() > MAX_TX_BYTES {
            let length = bytes.len();
            return Err(TxError::TooLarge { length });
        }
        let malformed = |part| move |source| TxError::Malformed { part, source };
        let raw = UnsignedRaw::decode(bytes).map_err(malformed("TxRaw"))?;
        let auth = UnsignedAuthInfo::decode(&raw.auth_info_bytes);
        let auth = auth.map_err(malformed("AuthInfo"))?;
        let mut fee = auth.fee.unwrap_or_else(|| Fee::none(0));
        if fee.gas_limit == 0 {
            fee.gas_limit = max_gas;
        }
        let signer_infos = auth.signer_infos.into_iter().map(|info| SignerInfo {
            public_key: info.public_key,
            mode_info: ModeInfo {
                single: Single {
                    mode: SignMode::Direct,
                },
            },
            sequence: info.sequence,
        });
        let signer_infos: List<SignerInfo, 1> =
            List::new(signer_infos.collect()).map_err(malformed("AuthInfo"))?;
        let signed = |fee: Fee| {
            let auth = AuthInfo {
                signer_infos: signer_infos.clone(),
                fee,
            };
            let raw = TxRaw {
                body_bytes: raw.body_bytes.clone(),
                auth_info_bytes: Blob::new(auth.encode()).map_err(malformed("AuthInfo"))?,
                signatures: List::new(vec![Signature::from([0; MAX_SIGNATURE])])
                    .map_err(malformed("TxRaw"))?,
            };
            Ok(raw.encode())
        };
        let mut paid = fee.clone();
        if paid.amount.is_empty() {
            paid.amount = Fee::of(Amount::remes(1), 0).amount;
        }
        Ok(Self {
            signed_bytes: signed(paid)?.len(),
            tx: Tx::parse(&signed(fee)?)?,
        })
    }
}
