//! TLS between brokers, nodes and clients: nobody else reads along, and a broker is who it says it is.
//!
//! A broker shows a certificate ([`ServerTls`]); nodes and clients trust the authorities of one file, or
//! those that the machine trusts ([`client_config`]). An [`Authority`] makes certificates for brokers of
//! one's own. Version 1.3 is spoken, and no older one.

mod authority;
mod client;
mod error;
mod provider;
mod server;

pub use rustls::ClientConfig;

pub(crate) use self::client::trusting_nobody;
pub use self::{
    authority::{Authority, AuthorityError, Issued},
    client::{client_config, connect},
    error::TlsError,
    provider::provider,
    server::{Accepted, ServerTls, refuse},
};
