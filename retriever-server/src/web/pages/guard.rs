//! The guard against requests to the inside of a network: web pages name addresses, and this server can reach
//! what their authors cannot. It vets the address that is then connected to, so a name cannot resolve to
//! another one in between, and every redirect passes it again.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::PageFault;

/// The addresses of a name as a future.
pub type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The ports of the web.
const PORTS: [u16; 2] = [80, 443];

/// Networks of IPv4 that are not the public internet: the address and the length of the prefix.
const CLOSED_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (Ipv4Addr::BROADCAST, 32),
];

/// The only global unicast addresses of IPv6. Mapped IPv4, NAT64, link-local and multicast are outside.
const OPEN_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Networks within [`OPEN_V6`] that lead elsewhere: protocols with Teredo, documentation, and 6to4.
const CLOSED_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The rules of addresses, and the look-up of names.
#[derive(Clone)]
pub struct Guard {
    /// Returns `true` for addresses that may be connected to.
    pub allows_address: fn(IpAddr) -> bool,
    /// Returns `true` for ports that may be connected to.
    pub allows_port: fn(u16) -> bool,
    /// Returns the addresses of a name.
    pub lookup: Arc<dyn Fn(String) -> LookupFuture + Send + Sync>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Guard")
    }
}

impl Guard {
    /// Allows the public web, with the names of the operating system.
    pub fn public_web() -> Self {
        let lookup = |name: String| -> LookupFuture {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        };
        Self {
            allows_address: is_public,
            allows_port: |port| PORTS.contains(&port),
            lookup: Arc::new(lookup),
        }
    }

    /// Parses an address and vets all but the addresses of its name, which are vetted when it is resolved. Hosts as
    /// numbers in any form are addresses.
    pub fn vet(&self, url: &str) -> Result<Url, PageFault> {
        let forbidden = |reason: String| Err(PageFault::Forbidden(reason));
        let url = match Url::parse(url) {
            Ok(url) => url,
            Err(error) => return forbidden(format!("{url:?} is not an address: {error}")),
        };
        if !matches!(url.scheme(), "http" | "https") {
            return forbidden(format!("the scheme {}, expected http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return forbidden("an address with a user or a password".to_owned());
        }
        if !url.port_or_known_default().is_some_and(self.allows_port) {
            return forbidden(format!("port {:?}, expected 80 or 443", url.port()));
        }
        // Brackets are part of the text of an IPv6 host.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) if !(self.allows_address)(address) => {
                forbidden(format!("{address} is not a public address"))
            }
            _ if host.is_empty() => forbidden("an address without a host".to_owned()),
            _ => Ok(url),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let (looked_up, allows) = ((self.lookup)(name.clone()), self.allows_address);
        Box::pin(async move {
            let mut addresses = looked_up.await?;
            addresses.retain(|address| allows(address.ip()));
            if addresses.is_empty() {
                let reason = format!("{name} has no public address");
                return Err(io::Error::other(reason).into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Returns `true` for an address of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            !CLOSED_V4.iter().any(|(network, prefix)| {
                (bits ^ network.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
            })
        }
        IpAddr::V6(address) => {
            let is_in = |(network, prefix): &(Ipv6Addr, u32)| {
                (address.to_bits() ^ network.to_bits()) >> (128 - prefix) == 0
            };
            is_in(&OPEN_V6) && !CLOSED_V6.iter().any(is_in)
        }
    }
}
