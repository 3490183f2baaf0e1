//! Arrow Flight: what its services and clients share.

use std::path::PathBuf;

use garde::Validate;
use serde::{Deserialize, Serialize};

use super::checks::is_flight_url;

/// Arrow Flight between nodes that share a token. The services are switched on where they run, with
/// `flight_listen`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Flight {
    /// The file that holds the token, with mode 0600; below the home unless the path is absolute.
    /// `R3MES_FLIGHT_TOKEN` in the environment goes before it.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Nodes that share the token, each flight://HOST:PORT. They are asked for blobs, and nobody else is
    /// shown the token.
    #[garde(length(max = 256), inner(custom(is_flight_url)))]
    pub peers: Vec<String>,
}
