//! Which network a node belongs to, and how its answers are checked.

use std::{path::PathBuf, time::Duration};

use garde::Validate;
use r3mes_gateway::rpc::light;
use r3mes_types::governance::Params;
use serde::{Deserialize, Serialize};

use super::checks::{is_hash, is_http_url, is_source};

/// Within this time a block follows that proves the newest state, on a network of either engine with
/// its usual pace.
const PROOF_FOLLOWS: Duration = Duration::from_millis(1500);

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// Which network, and where its ledger answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Chain id, as in the genesis.
    #[garde(length(min = 1, max = 50))]
    pub chain_id: String,
    /// Base URL of the ledger's RPC.
    #[garde(custom(is_http_url))]
    pub rpc: String,
    /// Where blobs are asked for when the ledger names no holder: base URLs, or Flight services, which
    /// count as peers of `flight`.
    #[garde(length(max = 16), inner(custom(is_source)))]
    pub bootstrap_blobs: Vec<String>,
    /// How what the RPC answers is checked, where it is not this home's own ledger; believed without
    /// a check when absent. `r3mes init --join` writes it.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub light: Option<Light>,
}

/// A light client: answers are checked against headers that the network's validators signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Light {
    /// A header that is trusted; the block validators of the genesis are when absent.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustedHeader>,
    /// For how many hours a header is trusted, while others are verified by it: less than the time for
    /// which the network's validators can lose their stake for what they signed, best two thirds of it.
    #[garde(range(min = 1))]
    pub trusting_hours: u64,
    /// How many seconds old the newest block may be. Any age when absent: under engine `local` a quiet
    /// network makes no blocks.
    #[garde(inner(range(min = 1)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_age_s: Option<u64>,
}

impl Default for Light {
    fn default() -> Self {
        Self {
            trust: None,
            trusting_hours: Self::TRUSTING_HOURS,
            max_header_age_s: None,
        }
    }
}

/// Headers would be trusted for as long as stake unbonds, or longer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "network.light.trusting_hours is {hours}, and stake unbonds in {unbonding_hours} hours on this network: whoever signed a header that is trusted for so long can have taken its stake back, and sign a false one for nothing. Set it to {should} (two thirds) or less"
)]
pub struct LongTrust {
    /// What is set.
    pub hours: u64,
    /// For how long stake unbonds on the network.
    pub unbonding_hours: u64,
    /// What would do.
    pub should: u64,
}

impl Light {
    /// How old the newest block of a network may be that makes them all the time, in seconds.
    pub const MAX_HEADER_AGE_S: u64 = 120;
    /// For how many hours a header is trusted where nothing else is said: two thirds of the week for
    /// which stake unbonds on a network that says nothing else.
    const TRUSTING_HOURS: u64 = 7 * 24 * 2 / 3;

    /// For how many hours headers of a network should be trusted: two thirds of the time for which its
    /// stake unbonds. As long as elsewhere where an authority decides, whose word every header is.
    pub fn hours_for(params: &Params) -> u64 {
        match params.governance.authority {
            Some(_) => Self::TRUSTING_HOURS,
            None => (params.nodes.unbonding.millis() / HOUR_MS * 2 / 3).max(1),
        }
    }

    /// Refuses to trust headers for as long as stake unbonds on the network, or longer: who signed them
    /// could have taken its stake back, and lie for nothing. Not where an authority decides.
    ///
    /// # Errors
    /// Says what is set, for how long stake unbonds, and what would do.
    pub fn refuse_long_trust(&self, params: &Params) -> Result<(), LongTrust> {
        let unbonding = params.nodes.unbonding.millis();
        let is_short = self.trusting_hours.saturating_mul(HOUR_MS) < unbonding;
        if is_short || params.governance.authority.is_some() {
            return Ok(());
        }
        Err(LongTrust {
            hours: self.trusting_hours,
            unbonding_hours: unbonding / HOUR_MS,
            should: Self::hours_for(params),
        })
    }

    /// As the light client takes it, keeping what it verified in `file`.
    ///
    /// # Errors
    /// When the trusted hash is not one.
    pub fn settings(&self, file: Option<PathBuf>) -> Result<light::Settings, TrustError> {
        let root = match &self.trust {
            None => light::Root::Genesis,
            Some(trusted) => {
                let mut hash = [0; 32];
                hex::decode_to_slice(&trusted.hash, &mut hash).map_err(|source| TrustError {
                    hash: trusted.hash.clone(),
                    source,
                })?;
                light::Root::Header {
                    height: trusted.height,
                    hash,
                }
            }
        };
        Ok(light::Settings {
            root,
            options: light::TrustOptions {
                period: Duration::from_secs(self.trusting_hours.saturating_mul(3600)),
                ..light::TrustOptions::default()
            },
            max_age: self.max_header_age_s.map(Duration::from_secs),
            first_wait: PROOF_FOLLOWS,
            patience: light::Settings::PATIENCE,
            file,
        })
    }
}

/// A trusted header's hash that is none, which a checked configuration does not have.
#[derive(Debug, thiserror::Error)]
#[error("network.light.trust.hash {hash:?} is no hash: 64 hexadecimal digits")]
pub struct TrustError {
    /// What is there.
    pub hash: String,
    /// What is wrong with it.
    #[source]
    pub source: hex::FromHexError,
}

/// A header that is trusted, from a source that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub struct TrustedHeader {
    /// Its height.
    #[garde(range(min = 1))]
    pub height: u64,
    /// Its hash, 64 hexadecimal digits.
    #[garde(custom(is_hash))]
    pub hash: String,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            chain_id: "r3mes-local".into(),
            rpc: "http://127.0.0.1:26657".into(),
            bootstrap_blobs: vec!["http://127.0.0.1:8090".into()],
            light: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use r3mes_ledger::genesis::params;
    use r3mes_types::{Address, Amount, Millis};

    use super::*;

    #[test]
    fn headers_are_trusted_for_less_than_the_time_in_which_stake_unbonds() {
        let mut lasting = params(None, Amount::ZERO);
        let light = Light::default();
        light.refuse_long_trust(&lasting).unwrap();
        assert_eq!(light.trusting_hours, Light::hours_for(&lasting));
        let week = Light {
            trusting_hours: 7 * 24,
            ..Light::default()
        };
        let refusal = week.refuse_long_trust(&lasting).unwrap_err().to_string();
        assert!(refusal.contains("Set it to 112"), "{refusal}");

        lasting.nodes.unbonding = Millis::seconds(48 * 3600);
        assert_eq!(Light::hours_for(&lasting), 32);
        assert!(light.refuse_long_trust(&lasting).is_err());

        let development = params(Some(Address::from([1; 20])), Amount::ZERO);
        week.refuse_long_trust(&development).unwrap();
        assert_eq!(Light::hours_for(&development), 112);
    }
}
