//! Who may be told: what a URL names, and which addresses it may lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::http::Uri;

use super::WebhookHosts;

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Receiver {
    pub(super) is_https: bool,
    /// Without the brackets of an address.
    pub(super) host: String,
    pub(super) port: u16,
    /// As the header `Host` has it.
    pub(super) authority: String,
    pub(super) path: String,
}

impl Receiver {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let form = "Callback-URL must be https://HOST/PATH";
        let read: Uri = url.parse().map_err(|error| format!("{form}: {error}"))?;
        let is_https = match read.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(form.into()),
        };
        let authority = read.authority().ok_or(form)?;
        if authority.as_str().contains('@') {
            return Err("Callback-URL must hold no password".into());
        }
        let host = authority
            .host()
            .trim_matches(['[', ']'])
            .to_ascii_lowercase();
        if host.is_empty() {
            return Err(form.into());
        }
        let usual = if is_https { 443 } else { 80 };
        let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
            Some(port) => port
                .parse()
                .map_err(|_| format!("{form}: {port} is no port"))?,
            None => usual,
        };
        let path = read.path_and_query().map_or("/", |path| path.as_str());
        // A query may follow the host at once.
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        Ok(Self {
            is_https,
            host,
            port,
            authority: authority.to_string(),
            path,
        })
    }

    /// Whether it may be told, as far as its name says.
    ///
    /// # Errors
    /// Why not, for its caller.
    pub(super) fn check(&self, hosts: &WebhookHosts) -> Result<(), String> {
        match hosts {
            WebhookHosts::Only(listed) if listed.is_empty() => {
                Err("this gateway sends no webhooks: poll the call's Location".into())
            }
            WebhookHosts::Only(listed) => {
                let host = match self.host.contains(':') {
                    true => format!("[{}]", self.host),
                    false => self.host.clone(),
                };
                let names = [format!("{host}:{}", self.port), host, self.host.clone()];
                let is_this = |name: &String| names.iter().any(|own| own.eq_ignore_ascii_case(name));
                match listed.iter().any(is_this) {
                    true => Ok(()),
                    false => Err(format!(
                        "this gateway tells only hosts that its owner has listed, and {} is none of \
                         them (services.functions.webhook_hosts)",
                        self.host
                    )),
                }
            }
            WebhookHosts::Public if !self.is_https => Err(
                "Callback-URL must begin with https://; http:// is for hosts that the gateway's owner \
                 has listed (services.functions.webhook_hosts)"
                    .into(),
            ),
            WebhookHosts::Public => match self.host.parse() {
                Ok(address) => self.check_address(address, hosts),
                Err(_) => Ok(()),
            },
        }
    }

    /// Whether one of its addresses may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_address(
        &self,
        address: IpAddr,
        hosts: &WebhookHosts,
    ) -> Result<(), String> {
        match hosts {
            WebhookHosts::Public if !is_public(address) => Err(format!(
                "{} is at no public address: the gateway's owner must list it \
                 (services.functions.webhook_hosts)",
                self.host
            )),
            _ => Ok(()),
        }
    }

    /// Its addresses, of which each may be connected to.
    ///
    /// # Errors
    /// Whether it may never be told, and why not.
    pub(super) async fn addresses(
        &self,
        hosts: &WebhookHosts,
    ) -> Result<Vec<SocketAddr>, (bool, String)> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found =
            found.map_err(|error| (false, format!("{} is not found: {error}", self.host)))?;
        let found: Vec<SocketAddr> = found.collect();
        for address in &found {
            self.check_address(address.ip(), hosts)
                .map_err(|refusal| (true, refusal))?;
        }
        Ok(found)
    }
}

/// Whether an address is one of the public Internet, by IANA's registries of special-purpose addresses.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || (a == 100 && b & 0xc0 == 64)
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240)
}

/// Global unicast, without what leads to IPv4 addresses (2001::/32, 2002::/16), is for documentation
/// (2001:db8::/32, 3fff::/20) or for protocols (2001::/23).
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    a & 0xe000 == 0x2000
        && !(a == 0x2001 && (b < 0x200 || b == 0xdb8))
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_a_port_and_a_path() {
        let read = Receiver::parse("https://Hooks.example.com/done?of=1").unwrap();
        assert_eq!((read.host.as_str(), read.port), ("hooks.example.com", 443));
        assert_eq!((read.path.as_str(), read.is_https), ("/done?of=1", true));
        let read = Receiver::parse("http://[::1]:8080").unwrap();
        assert_eq!((read.host.as_str(), read.port), ("::1", 8080));
        assert_eq!(
            (read.authority.as_str(), read.path.as_str()),
            ("[::1]:8080", "/")
        );
        let read = Receiver::parse("https://a?token=x").unwrap();
        assert_eq!(read.path, "/?token=x");
        for wrong in [
            "ftp://a/",
            "a/b",
            "https://",
            "https://me:pass@a/",
            "https:///x",
            "https://a:99999/",
            "",
        ] {
            Receiver::parse(wrong).unwrap_err();
        }
    }

    #[test]
    fn public_hosts_are_told_unless_the_owner_lists_some() {
        let check = |url: &str, hosts: &WebhookHosts| Receiver::parse(url).unwrap().check(hosts);
        let public = WebhookHosts::Public;
        check("https://example.com/", &public).unwrap();
        check("https://93.184.215.14/", &public).unwrap();
        let plain = check("http://example.com/", &public).unwrap_err();
        assert!(plain.contains("https://"), "{plain}");
        let near = check("https://127.0.0.1/", &public).unwrap_err();
        assert!(near.contains("webhook_hosts"), "{near}");
        let listed = ["Inside", "[::1]:81", "a:82", "::2", "[::3]"];
        let only = WebhookHosts::Only(listed.map(String::from).into());
        check("http://inside:9/", &only).unwrap();
        check("http://[::1]:81/", &only).unwrap();
        check("http://a:82/", &only).unwrap();
        check("http://a:83/", &only).unwrap_err();
        check("http://[::2]:7/", &only).unwrap();
        check("http://[::3]:7/", &only).unwrap();
        check("http://[::1]/", &only).unwrap_err();
        check("https://example.com/", &only).unwrap_err();
        let nobody = check("https://example.com/", &WebhookHosts::Only(Vec::new()));
        assert!(nobody.unwrap_err().contains("no webhooks"));
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        let public = [
            "8.8.8.8",
            "93.184.215.14",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
        ];
        let special = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "64:ff9b::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in special {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
