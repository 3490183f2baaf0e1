//! Why the ledger refuses something, with numbers that never change.

use r3mes_state::ReadError;
use r3mes_types::{Address, Amount};

use crate::auth::AuthError;
use crate::bank::BankError;
use crate::beacon::BeaconError;
use crate::data::DataError;
use crate::escrow::EscrowError;
use crate::governance::GovernanceError;
use crate::models::ModelsError;
use crate::nodes::NodesError;
use crate::training::TrainingError;

/// Declares an error enum whose variants have stable numbers within a codespace.
#[macro_export]
macro_rules! coded_errors {
    (
        $(#[$meta:meta])*
        pub enum $name:ident in $codespace:literal {
            $(
                $(#[$variant_meta:meta])*
                $code:literal => $variant:ident $({
                    $( $(#[$field_meta:meta])* $field:ident : $type:ty ),* $(,)?
                })?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant $({ $( $(#[$field_meta])* $field: $type ),* })?, )*
        }

        impl $name {
            /// Names the domain the codes belong to.
            pub const CODESPACE: &'static str = $codespace;

            /// All codes with the names of their variants.
            pub const CODES: &'static [(u32, &'static str)] = &[$( ($code, stringify!($variant)) ),*];

            /// The number of this error; it never changes.
            pub const fn code(&self) -> u32 {
                match self { $( Self::$variant { .. } => $code, )* }
            }
        }
    };
}

/// The state itself failed: the caller must stop, not go on as if a message had been refused.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store below failed.
    #[error("the ledger's state cannot be read")]
    Read(#[source] ReadError),
    /// What was read is not what the ledger writes.
    #[error("the ledger's table {table:?} is damaged: {why}; restore the state from a snapshot")]
    Damaged {
        /// Prefix of the table.
        table: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A decided block breaks a rule that is checked before a block is voted on.
    #[error("the block at height {height} is not valid: {why}")]
    InvalidBlock {
        /// Its height.
        height: u64,
        /// What is wrong.
        why: String,
    },
    /// Genesis does not make a ledger.
    #[error("the genesis is not valid: {why}")]
    Genesis {
        /// What is wrong, where, and what to do.
        why: String,
    },
}

coded_errors! {
    /// Why a transaction is refused before its messages are looked at. The numbers are those of the
    /// Cosmos SDK, since wallets know them.
    pub enum TxRefusal in "sdk" {
        /// The bytes are not a transaction.
        #[error("{why}")]
        2 => Decode {
            /// What is wrong.
            why: String,
        },
        /// The key may not act for the account.
        #[error("{signer} may not send {type_url} for {actor}: sign with the account's own key, or grant this key that message type")]
        4 => Unauthorized {
            /// Whose key signed.
            signer: Address,
            /// For whom the message acts.
            actor: Address,
            /// The message type.
            type_url: String,
        },
        /// The fee cannot be paid.
        #[error("{payer} cannot pay the fee of {fee}: {why}")]
        5 => Funds {
            /// Who was to pay.
            payer: Address,
            /// The fee.
            fee: Amount,
            /// Why not.
            why: String,
        },
        /// The account does not exist.
        #[error("account {address} does not exist: it begins with the first coins it gets")]
        9 => UnknownAccount {
            /// Whose key signed.
            address: Address,
        },
        /// More gas is needed than the transaction allows.
        #[error("out of gas: the limit of {limit} is used up")]
        11 => OutOfGas {
            /// The limit.
            limit: u64,
        },
        /// The fee is too low.
        #[error("insufficient fee: {paid} paid, {required} required for this gas limit")]
        13 => Fee {
            /// What was offered.
            paid: Amount,
            /// What is needed.
            required: Amount,
        },
        /// The signature does not verify.
        #[error("signature verification failed: check chain id {chain_id:?} and account number {account_number}")]
        15 => Signature {
            /// The chain id it was verified for.
            chain_id: String,
            /// The account number it was verified for.
            account_number: u64,
        },
        /// The same is already waiting.
        #[error("an answer to this obligation is already waiting for a block")]
        19 => AlreadyPending,
        /// The transaction came too late.
        #[error("the transaction was good up to height {timeout}, this is height {height}")]
        30 => TimedOut {
            /// The last height.
            timeout: u64,
            /// The height now.
            height: u64,
        },
        /// Another sequence is next.
        #[error("account sequence mismatch, expected {expected}, got {found}: incorrect account sequence")]
        32 => Sequence {
            /// What is next.
            expected: u64,
            /// What the transaction says.
            found: u64,
        },
        /// A gas limit above what one transaction may use.
        #[error("a gas limit of {limit} is above the {max} that one transaction may use")]
        41 => GasLimit {
            /// The limit asked for.
            limit: u64,
            /// The most allowed.
            max: u64,
        },
        /// The block has no room.
        #[error("the block's gas of {max} is used up")]
        42 => BlockGas {
            /// The most a block may use.
            max: u64,
        },
    }
}

coded_errors! {
    /// Why a query is refused.
    pub enum QueryError in "query" {
        /// The path is unknown.
        #[error("there is no query {path:?}")]
        1 => UnknownPath {
            /// The path.
            path: String,
        },
        /// The question does not parse.
        #[error("the question is malformed: {why}")]
        2 => Malformed {
            /// What is wrong.
            why: String,
        },
        /// There is no such thing. The words are those of the Cosmos SDK, which its clients look for.
        #[error("rpc error: code = NotFound desc = {what} not found: key not found")]
        3 => NotFound {
            /// What was asked for.
            what: String,
        },
    }
}

/// Declares [`LedgerError`] over the domains.
macro_rules! ledger_error {
    ($( $variant:ident($type:ty) ),* $(,)?) => {
        /// Why something is refused, or a [`Fault`].
        #[derive(Debug, thiserror::Error)]
        pub enum LedgerError {
            /// The state itself failed.
            #[error(transparent)]
            Fault(#[from] Fault),
            $(
                #[doc = concat!("Refused by `", stringify!($type), "`.")]
                #[error(transparent)]
                $variant(#[from] $type),
            )*
        }

        impl LedgerError {
            /// Codespace and code, as clients see them; `None` for a [`Fault`].
            pub const fn code(&self) -> Option<(&'static str, u32)> {
                match self {
                    Self::Fault(_) => None,
                    $( Self::$variant(error) => Some((<$type>::CODESPACE, error.code())), )*
                }
            }

            /// Every codespace with its codes and the names of the errors.
            pub const ALL_CODES: &'static [(&'static str, &'static [(u32, &'static str)])] = &[
                $( (<$type>::CODESPACE, <$type>::CODES) ),*
            ];
        }
    };
}

ledger_error! {
    Tx(TxRefusal),
    Query(QueryError),
    Bank(BankError),
    Auth(AuthError),
    Beacon(BeaconError),
    Nodes(NodesError),
    Models(ModelsError),
    Data(DataError),
    Governance(GovernanceError),
    Training(TrainingError),
    Escrow(EscrowError),
}

impl LedgerError {
    /// A refusal where nothing may be refused is a mistake in the ledger, and so a fault.
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            refusal => Fault::Damaged {
                table: "app/",
                why: refusal.to_string(),
            },
        }
    }
}
