//! The servers behind a name: when the name is looked up, and how.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::{Instant, timeout};

use crate::machine::http;

/// Time after which a name is looked up again, and after a failure of one of its servers.
const INTERVAL: Duration = Duration::from_secs(30);
const INTERVAL_IN_DOUBT: Duration = Duration::from_secs(1);
/// Most servers of one name; more are not used.
const SERVERS_MAX: usize = 64;

/// The source of addresses.
#[derive(Clone)]
pub(super) struct Resolver(pub(super) Arc<dyn Resolve>);

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}

impl Resolver {
    /// Returns the resolver of the operating system.
    pub(super) fn of_system() -> Self {
        Self(Arc::new(SystemResolver))
    }
}

struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The time of the last look-up.
#[derive(Debug, Default)]
struct LookedUp {
    at: Option<Instant>,
    in_doubt: bool,
}

/// The names of servers.
#[derive(Debug)]
pub(super) struct Discovery {
    /// The endpoints whose hosts are names.
    pub(super) names: Vec<Url>,
    resolver: Resolver,
    /// Time limit of a look-up.
    limit: Duration,
    looked_up: Mutex<LookedUp>,
}

impl Discovery {
    pub(super) fn new(names: Vec<Url>, resolver: Resolver, limit: Duration) -> Self {
        Self { names, resolver, limit, looked_up: Mutex::default() }
    }

    /// Returns `true` if the names are to be looked up now. The caller then does it.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = if looked_up.in_doubt { INTERVAL_IN_DOUBT } else { INTERVAL };
        let is_due = !self.names.is_empty() && looked_up.at.is_none_or(|at| interval <= now - at);
        if is_due {
            *looked_up = LookedUp { at: Some(now), in_doubt: false };
        }
        is_due
    }

    /// Looks the names up sooner: one of their servers failed, and may have moved.
    pub(super) fn doubt(&self) {
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner).in_doubt = true;
    }

    /// Returns the addresses of an endpoint's host, sorted; at least one.
    ///
    /// # Errors
    /// The reason why there is none.
    pub(super) async fn addresses(&self, endpoint: &Url) -> Result<Vec<IpAddr>, String> {
        let host = endpoint.host_str().unwrap_or_default();
        let failed = |reason: &str| format!("cannot look up {host:?}: {reason}");
        // A URL has an IPv6 address in brackets.
        let name = host.trim_matches(['[', ']']).parse();
        let name = name.map_err(|_| failed("it is not a name"))?;
        let found = match timeout(self.limit, self.resolver.0.resolve(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(failed(&http::with_causes(&*error))),
            Err(_) => return Err(failed(&format!("no answer in {} ms", self.limit.as_millis()))),
        };
        let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() > SERVERS_MAX {
            let count = addresses.len();
            tracing::warn!(host, count, "the name has too many addresses: {SERVERS_MAX} are used");
            addresses.truncate(SERVERS_MAX);
        }
        if addresses.is_empty() { Err(failed("it has no address")) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_every_half_minute_and_sooner_in_doubt() {
        let names = vec![Url::parse("http://a/retrieve").unwrap()];
        let discovery = Discovery::new(names, Resolver::of_system(), INTERVAL);
        let start = Instant::now();
        let due_at = |seconds| discovery.is_due(start + Duration::from_secs(seconds));
        assert!(due_at(0) && !due_at(0) && !due_at(29));
        assert!(due_at(30) && !due_at(31));
        discovery.doubt();
        assert!(due_at(32), "a server failed");
        discovery.doubt();
        assert!(!due_at(32), "at most once a second");
        assert!(due_at(33) && !due_at(62) && due_at(63));
        let none = Discovery::new(Vec::new(), Resolver::of_system(), INTERVAL);
        assert!(!none.is_due(start));
    }

    #[tokio::test]
    async fn the_system_knows_its_own_name_and_not_any_other() {
        let discovery = Discovery::new(Vec::new(), Resolver::of_system(), Duration::from_mins(1));
        let look_up = async |url| discovery.addresses(&Url::parse(url).unwrap()).await;
        let local = look_up("http://localhost:1/retrieve").await.unwrap();
        assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback), "{local:?}");
        assert_eq!(look_up("http://[::1]:1/").await, Ok(vec!["::1".parse().unwrap()]));
        // RFC 6761 keeps this name for those that do not exist.
        let error = look_up("http://retriever.invalid/").await.unwrap_err();
        assert!(error.contains("cannot look up \"retriever.invalid\""), "{error}");
    }
}
