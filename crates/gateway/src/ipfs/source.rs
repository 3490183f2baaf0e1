use std::{fmt, str::FromStr};

use r3mes_blobs::AnyCid;
use reqwest::Url;

/// Scheme of Flight services.
const FLIGHT: &str = "flight";
/// Longest address of a source in characters.
const MAX_CHARS: usize = 512;

/// Where blobs can be had: the base address of a trustless gateway, such as `http://10.0.0.7:8090`,
/// or a Flight service, `flight://10.0.0.7:8815`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Url);

impl Source {
    /// Whether this is a Flight service.
    #[must_use]
    pub fn is_flight(&self) -> bool {
        self.0.scheme() == FLIGHT
    }

    /// Where a Flight service is connected to.
    pub(crate) fn flight_endpoint(&self) -> String {
        let address = self.0.as_str().trim_end_matches('/');
        address.replacen(FLIGHT, "http", 1)
    }

    /// Where this source, a trustless gateway, answers for one block.
    pub(super) fn block_url(&self, cid: &AnyCid) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}/ipfs/{cid}", url.path().trim_end_matches('/')));
        url.set_query(Some("format=raw"));
        url
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let url = plain_url(text)?;
        if !["http", FLIGHT].contains(&url.scheme()) {
            return Err(refused(text, "only http:// and flight:// are supported"));
        }
        if url.scheme() == FLIGHT && (url.port().is_none() || !["", "/"].contains(&url.path())) {
            return Err(refused(text, "a Flight service is flight://HOST:PORT"));
        }
        Ok(Self(url))
    }
}

/// The address of a gateway as others reach it, through a proxy with a certificate too.
pub(super) fn public_url(text: &str) -> Result<Url, SourceError> {
    let url = plain_url(text)?;
    match ["http", "https"].contains(&url.scheme()) {
        true => Ok(url),
        false => Err(refused(text, "a gateway is at http:// or https://")),
    }
}

fn plain_url(text: &str) -> Result<Url, SourceError> {
    if text.len() > MAX_CHARS {
        return Err(refused(text, "it is too long"));
    }
    let url = Url::parse(text).map_err(|_| refused(text, "it is not a URL"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(refused(text, "it has no host"));
    }
    let plain = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    match plain {
        true => Ok(url),
        false => Err(refused(
            text,
            "it must have neither user, query nor fragment",
        )),
    }
}

fn refused(text: &str, reason: &'static str) -> SourceError {
    SourceError {
        text: text.chars().take(MAX_CHARS).collect(),
        reason,
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// An address that cannot be a source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} cannot be a source of blobs: {reason} (expected a form such as http://host:8090 or \
     flight://host:8815)"
)]
pub struct SourceError {
    /// The address.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_asked_for_below_the_base_address() {
        let cid = r3mes_blobs::Cid::raw(b"").into();
        for (base, expected) in [
            ("http://host:8090", "http://host:8090/ipfs/"),
            ("http://host:8090/", "http://host:8090/ipfs/"),
            ("http://[::1]/blobs/", "http://[::1]/blobs/ipfs/"),
        ] {
            let source: Source = base.parse().unwrap();
            let url = source.block_url(&cid).to_string();
            assert_eq!(url, format!("{expected}{cid}?format=raw"));
        }
    }

    #[test]
    fn a_flight_service_is_connected_to_over_http() {
        for (text, endpoint) in [
            ("flight://host:8815", "http://host:8815"),
            ("flight://[::1]:8815/", "http://[::1]:8815"),
        ] {
            let source: Source = text.parse().unwrap();
            assert!(source.is_flight());
            assert_eq!(source.flight_endpoint(), endpoint);
            assert_eq!(source.to_string(), text.trim_end_matches('/'));
        }
        assert!(!"http://host:8815".parse::<Source>().unwrap().is_flight());
    }

    #[test]
    fn addresses_of_other_kinds_are_refused() {
        let long = format!("http://{}", "a".repeat(600));
        for text in [
            "",
            "host:8090",
            "https://host",
            "file:///etc/passwd",
            "http://u:p@host",
            "http://host/?x=1",
            "flight://host",
            "flight://host:8815/blobs",
            "flight://t:t@host:8815",
            &long,
        ] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }
}
