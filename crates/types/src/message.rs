//! All messages a transaction can carry.

use crate::auth::AuthMessage;
use crate::bank::BankMessage;
use crate::beacon::BeaconMessage;
use crate::data::DataMessage;
use crate::escrow::EscrowMessage;
use crate::governance::GovernanceMessage;
use crate::models::ModelsMessage;
use crate::nodes::NodesMessage;
use crate::training::TrainingMessage;
use crate::tx::Any;
use crate::wire::{Blob, DecodeError, MessageType, Text};
use crate::{Address, Hash};

/// Declares the messages of one domain with their type URLs and the field naming who acts.
#[macro_export]
macro_rules! messages {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $url:literal => $variant:ident($type:ty) by $actor:ident ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( #[doc = concat!("`", $url, "`")] $variant($type), )*
        }

        impl $name {
            /// Type URLs of all messages of this domain.
            pub const TYPE_URLS: &'static [&'static str] = &[$($url),*];

            /// The messages of this domain as they stand in `.proto` files, with their type URLs.
            pub fn described() -> Vec<(&'static str, $crate::wire::MessageType)> {
                vec![$(($url, <$type as $crate::wire::Wire>::described())),*]
            }

            /// Parses a message of this domain; `None` when the type URL is of another.
            pub fn decode(
                type_url: &str,
                value: &[u8],
            ) -> Option<Result<Self, $crate::wire::DecodeError>> {
                match type_url {
                    $( $url => Some(
                        <$type as $crate::wire::Wire>::decode(value).map(Self::$variant)
                    ), )*
                    _ => None,
                }
            }

            /// Names the kind of message.
            pub const fn type_url(&self) -> &'static str {
                match self { $( Self::$variant(_) => $url, )* }
            }

            /// The account the message acts for.
            pub const fn actor(&self) -> $crate::Address {
                match self { $( Self::$variant(message) => message.$actor, )* }
            }

            /// The canonical encoding of the message alone.
            pub fn encode(&self) -> Vec<u8> {
                match self { $( Self::$variant(message) => $crate::wire::Wire::encode(message), )* }
            }
        }

        $(
            impl From<$type> for $name {
                fn from(message: $type) -> Self {
                    Self::$variant(message)
                }
            }
            impl From<$type> for $crate::Message {
                fn from(message: $type) -> Self {
                    Self::from($name::$variant(message))
                }
            }
        )*
    };
}

/// Declares [`Message`] over the domains.
macro_rules! domains {
    ($( $variant:ident($type:ty) ),* $(,)?) => {
        /// A checked message of any domain.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message {
            $( #[doc = concat!("A message of the domain ", stringify!($variant), ".")] $variant($type), )*
        }

        impl Message {
            /// Type URLs of all messages of all domains.
            pub fn type_urls() -> impl Iterator<Item = &'static str> {
                let domains: &[&'static [&'static str]] = &[$( <$type>::TYPE_URLS ),*];
                domains.iter().flat_map(|urls| urls.iter().copied())
            }

            /// All messages as they stand in `.proto` files, with their type URLs.
            pub fn described() -> Vec<(&'static str, MessageType)> {
                let domains = [$( <$type>::described() ),*];
                domains.into_iter().flatten().collect()
            }

            /// Parses one message.
            ///
            /// # Errors
            /// When the type URL is unknown or the value is not canonical.
            pub fn decode(type_url: &str, value: &[u8]) -> Result<Self, MessageError> {
                $(
                    if let Some(parsed) = <$type>::decode(type_url, value) {
                        return parsed.map(Self::$variant).map_err(|source| MessageError::Malformed {
                            type_url: type_url.to_owned(),
                            source,
                        });
                    }
                )*
                Err(MessageError::Unknown { type_url: type_url.to_owned() })
            }

            /// Names the kind of message.
            pub const fn type_url(&self) -> &'static str {
                match self { $( Self::$variant(message) => message.type_url(), )* }
            }

            /// The account the message acts for.
            pub const fn actor(&self) -> Address {
                match self { $( Self::$variant(message) => message.actor(), )* }
            }

            /// The canonical encoding of the message alone.
            pub fn encode(&self) -> Vec<u8> {
                match self { $( Self::$variant(message) => message.encode(), )* }
            }
        }

        $(
            impl From<$type> for Message {
                fn from(message: $type) -> Self {
                    Self::$variant(message)
                }
            }
        )*
    };
}

domains! {
    Bank(BankMessage),
    Auth(AuthMessage),
    Beacon(BeaconMessage),
    Nodes(NodesMessage),
    Models(ModelsMessage),
    Data(DataMessage),
    Governance(GovernanceMessage),
    Training(TrainingMessage),
    Escrow(EscrowMessage),
}

impl Message {
    /// Type URL and value together, as transactions carry them.
    ///
    /// # Errors
    /// When the message is longer than a transaction may be.
    pub fn to_any(&self) -> Result<Any, DecodeError> {
        Ok(Any {
            type_url: Text::new(self.type_url())?,
            value: Blob::new(self.encode())?,
        })
    }

    /// A hash over type and content.
    pub fn hash(&self) -> Hash {
        crate::Hasher::new("r3mes message v1")
            .part(self.type_url().as_bytes())
            .part(&self.encode())
            .finish()
    }
}

/// Why a message was refused before anything was looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// No domain knows the type URL.
    #[error("unknown message type {type_url:?}")]
    Unknown {
        /// The type URL.
        type_url: String,
    },
    /// The message is not a canonical encoding of a valid value.
    #[error("malformed {type_url}")]
    Malformed {
        /// The type URL.
        type_url: String,
        /// What is wrong where.
        #[source]
        source: DecodeError,
    },
}
