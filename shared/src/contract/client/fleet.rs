//! The servers of a client: which one is asked, and when a second one is.
//!
//! Invariant: a server whose index or settings differ from those of the others gets no query. With one server, nothing of
//! this takes place: it is neither passed over nor asked about its index.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::discovery::{Discovery, Resolver};
use super::hedge::{self, Hedging, Sent};
use super::reply::Answer;
use super::server::{Fault, Reply, Request, Server};
use super::serving::{MixedServers, Serving};
use super::{ClientConfig, ConfigError, SearchError, address};

/// Longest wait for `/info` of a server.
const INFO_LIMIT: Duration = Duration::from_secs(5);
/// Least time for an attempt among several servers, if there is so much left.
const ATTEMPT_MIN: Duration = Duration::from_secs(5);

/// All servers of a client.
#[derive(Debug)]
pub(super) struct Fleet {
    config: ClientConfig,
    /// The addresses of the configuration, for messages.
    pub(super) shown: String,
    /// Those with an address of their own, then those of the names.
    servers: Mutex<Arc<[Arc<Server>]>>,
    discovery: Discovery,
    /// The reason why the last look-up failed.
    lookup_fault: Mutex<Option<String>>,
    hedging: Mutex<Hedging>,
    /// The address of the first server that said what it serves, and what that is.
    reference: Mutex<Option<(String, Serving)>>,
    /// The identity that responses should have.
    identity: Mutex<Identity>,
    /// Counts choices, so that servers take turns.
    turn: AtomicUsize,
}

/// The identity that responses of all servers should have.
#[derive(Debug, Default)]
struct Identity {
    expected: Option<String>,
    /// `true` if an answer with another one is refused, also of a single server.
    is_pinned: bool,
}

/// The outcome of a request to one server, or to two.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Arc<Server>, Vec<Answer>),
    Failed(Vec<(Arc<Server>, Fault)>),
    /// No server is known, for this reason.
    NoServer(String),
}

/// The reason why a server gets no query.
enum Doubt {
    Silent(String),
    Mixed(MixedServers),
}

impl Fleet {
    /// Reads the addresses of `config`. Does not connect yet.
    ///
    /// # Errors
    /// An invalid address, or an HTTP client that cannot be set up.
    pub(super) fn new(config: ClientConfig, resolver: Resolver) -> Result<Self, ConfigError> {
        let (mut servers, mut names, mut shown) = (Vec::new(), Vec::new(), Vec::new());
        for address in address::addresses(&config.url)? {
            let prefix = if address.is_name { address::NAME_PREFIX } else { "" };
            shown.push(format!("{prefix}{}", address::shown(&address.endpoint)));
            if address.is_name {
                names.push(address.endpoint);
            } else {
                servers.push(Arc::new(Server::new(address.endpoint, None, &config)?));
            }
        }
        Ok(Self {
            shown: shown.join(", "),
            servers: Mutex::new(servers.into()),
            discovery: Discovery::new(names, resolver, config.connect_timeout),
            lookup_fault: Mutex::default(),
            hedging: Mutex::new(Hedging::new(config.hedge_percent)),
            reference: Mutex::default(),
            identity: Mutex::default(),
            turn: AtomicUsize::new(0),
            config,
        })
    }

    /// Returns the servers that are known now.
    pub(super) fn servers(&self) -> Arc<[Arc<Server>]> {
        Arc::clone(&lock(&self.servers))
    }

    /// Looks the names up if it is time. Waits for that only if no server is known.
    pub(super) async fn look_up_if_due(self: &Arc<Self>) {
        let is_due = self.discovery.is_due(Instant::now());
        if self.servers().is_empty() {
            self.look_up().await;
        } else if is_due {
            let fleet = Arc::clone(self);
            tokio::spawn(async move { fleet.look_up().await });
        }
    }

    /// Looks the names up. Servers that a name still has keep their connections and their health; a name that cannot be
    /// looked up keeps its servers.
    pub(super) async fn look_up(&self) {
        for name in &self.discovery.names {
            let found = self.discovery.addresses(name).await;
            let mut servers = lock(&self.servers);
            let is_of_name = |server: &Server| server.ip.is_some() && server.endpoint == *name;
            let added = found.and_then(|addresses| {
                let made = addresses.into_iter().map(|ip| {
                    let known =
                        servers.iter().find(|server| is_of_name(server) && server.ip == Some(ip));
                    match known {
                        Some(server) => Ok(Arc::clone(server)),
                        None => Server::new(name.clone(), Some(ip), &self.config).map(Arc::new),
                    }
                });
                made.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())
            });
            match added {
                Ok(added) => {
                    let others = servers.iter().filter(|server| !is_of_name(server)).cloned();
                    *servers = others.chain(added).collect();
                    *lock(&self.lookup_fault) = None;
                }
                Err(reason) => {
                    tracing::warn!(reason, servers = servers.len(), "no new list of retrievers");
                    *lock(&self.lookup_fault) = Some(reason);
                }
            }
        }
    }

    /// Sends a request to a server that is not in `tried`, if there is one, and to a second one if the first is late. At
    /// most `remaining` passes. Returns the number of attempts with their outcome.
    pub(super) async fn ask(
        self: &Arc<Self>,
        request: Request<'_>,
        tried: &[Arc<Server>],
        remaining: Duration,
    ) -> (u32, Outcome) {
        let started = Instant::now();
        // A look-up that takes too long leaves no server, which is an outcome too.
        let _ = timeout(remaining, self.look_up_if_due()).await;
        let Some(first) = self.choose(tried) else {
            return (0, Outcome::NoServer(self.lookup_fault().unwrap_or_default()));
        };
        lock(&self.hedging).count_request();
        let limit = self.attempt_limit(remaining.saturating_sub(started.elapsed()));
        let began = Instant::now();
        let asked = Arc::clone(&first);
        let mut attempt = pin!(self.attempt(&asked, request, limit));
        let second = tokio::select! {
            biased;
            outcome = &mut attempt => return (1, match outcome {
                Ok(answers) => Outcome::Answered(first, answers),
                Err(fault) => Outcome::Failed(vec![(first, fault)]),
            }),
            second = self.second(&first, tried) => second,
        };
        let left = limit.saturating_sub(began.elapsed());
        let outcome = hedge::first_success(attempt, self.attempt(&second, request, left)).await;
        let outcome = match outcome {
            Ok((Sent::First, answers)) => Outcome::Answered(first, answers),
            Ok((Sent::Second, answers)) => {
                let pause = first.health().lose(began, Instant::now());
                self.report(&first, pause, "it did not answer while another server did");
                Outcome::Answered(second, answers)
            }
            Err([fault, other]) => Outcome::Failed(vec![(first, fault), (second, other)]),
        };
        (2, outcome)
    }

    /// Returns the reason why the last look-up failed, if it did.
    pub(super) fn lookup_fault(&self) -> Option<String> {
        lock(&self.lookup_fault).clone()
    }

    /// Returns the reason of a failure with the address of the server, unless there is only one.
    pub(super) fn named(&self, server: &Server, reason: &str) -> String {
        if self.has_several() || server.ip.is_some() {
            format!("{}: {reason}", server.shown)
        } else {
            reason.to_owned()
        }
    }

    /// Returns `true` if a server that is not in `tried` can be asked at once.
    pub(super) fn has_other(&self, tried: &[Arc<Server>]) -> bool {
        let servers = self.servers();
        candidates(&servers, tried, Instant::now()).next().is_some()
    }

    /// Asks all servers at once: one that is gone does not delay the others. Returns them in their order.
    pub(super) async fn of_each<T, F>(
        &self,
        ask: impl Fn(Arc<Server>) -> F,
    ) -> Vec<(Arc<Server>, T)>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut pending = JoinSet::new();
        for (index, server) in self.servers().iter().cloned().enumerate() {
            let asked = ask(Arc::clone(&server));
            pending.spawn(async move { (index, (server, asked.await)) });
        }
        let mut answers = pending.join_all().await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Asks all servers what they serve, and compares it.
    ///
    /// # Errors
    /// Two servers that differ.
    pub(super) async fn compare(&self) -> Result<Vec<String>, MixedServers> {
        self.look_up().await;
        if !self.has_several() {
            return Ok(Vec::new());
        }
        let asked = self.of_each(|server| async move { server.serving(INFO_LIMIT).await });
        let mut silent = Vec::new();
        for (server, reply) in asked.await {
            match self.judge(&server, reply) {
                Ok(()) => {}
                Err(Doubt::Silent(reason)) => {
                    silent.push(format!("{}: {reason}", server.shown));
                }
                Err(Doubt::Mixed(mixed)) => return Err(mixed),
            }
        }
        Ok(silent)
    }

    /// Asks all servers once what they serve, and returns the first answer in their order.
    ///
    /// # Errors
    /// The reasons why none answered within `limit`.
    pub(super) async fn serving(&self, limit: Duration) -> Result<Option<Serving>, String> {
        self.look_up().await;
        let limit = limit.min(INFO_LIMIT);
        let asked = self.of_each(move |server| async move { server.serving(limit).await });
        let mut reasons = Vec::new();
        for (server, reply) in asked.await {
            match reply {
                Ok(serving) => return Ok(serving),
                Err(reason) => reasons.push(format!("{}: {reason}", server.shown)),
            }
        }
        reasons.extend(self.lookup_fault());
        Err(reasons.join("; "))
    }

    /// Chooses the server with the fewest pending requests, in turn. If all are passed over, it is the one whose pause
    /// ends first.
    fn choose(&self, tried: &[Arc<Server>]) -> Option<Arc<Server>> {
        let (servers, now) = (self.servers(), Instant::now());
        self.least_busy(candidates(&servers, tried, now)).or_else(|| {
            let passed_over_until = |server: &&Arc<Server>| server.health().passed_over_until(now);
            servers.iter().min_by_key(passed_over_until).cloned()
        })
    }

    fn least_busy<'a>(
        &self,
        servers: impl Iterator<Item = &'a Arc<Server>>,
    ) -> Option<Arc<Server>> {
        let servers: Vec<&Arc<Server>> = servers.collect();
        let turn = self.turn.fetch_add(1, Ordering::AcqRel) % servers.len().max(1);
        let (before, from) = servers.split_at(turn);
        let in_turn = from.iter().chain(before);
        in_turn.min_by_key(|server| server.in_flight()).map(|server| Arc::clone(server))
    }

    /// Waits until a second server is to be asked, and returns it. There may be none at all.
    async fn second(&self, first: &Arc<Server>, tried: &[Arc<Server>]) -> Arc<Server> {
        if self.config.hedge_percent == 0 || self.servers().len() < 2 {
            return std::future::pending().await;
        }
        let tried: Vec<Arc<Server>> = tried.iter().chain([first]).cloned().collect();
        loop {
            let delay = lock(&self.hedging).delay();
            sleep(delay).await;
            let (servers, now) = (self.servers(), Instant::now());
            let Some(second) = self.least_busy(candidates(&servers, &tried, now)) else { continue };
            // A server that failed meanwhile will hardly answer: to ask another is no extra work then.
            let has_failed = first.health().passed_over_until(now).is_some();
            if has_failed || lock(&self.hedging).take() {
                return second;
            }
        }
    }

    /// Sends a request to this server and notes how that went.
    async fn attempt(
        &self,
        server: &Arc<Server>,
        request: Request<'_>,
        limit: Duration,
    ) -> Result<Vec<Answer>, Fault> {
        let began = Instant::now();
        let _in_flight = server.begin(began);
        let outcome = match self.vouch(server, limit).await {
            Ok(()) => server.ask(request, limit.saturating_sub(began.elapsed())).await,
            Err(fault) => Err(fault),
        };
        let outcome = outcome.and_then(|Reply { answers, identity }| {
            self.check_identity(server, identity)?;
            Ok(answers)
        });
        match &outcome {
            Ok(_) => {
                lock(&self.hedging).record(began.elapsed());
                if server.health().succeed(began) && self.has_several() {
                    tracing::info!(url = server.shown, "the retriever answers again");
                }
            }
            Err(Fault::Retry { reason, requested_pause }) => {
                // It may have been restarted, with another index.
                server.set_vouched(false);
                if server.ip.is_some() {
                    self.discovery.doubt();
                }
                let pause = server.health().fail(began, Instant::now(), *requested_pause);
                self.report(server, pause, reason);
            }
            Err(Fault::Final(_)) => {}
        }
        outcome
    }

    /// Refuses all answers with another identity from now on.
    pub(super) fn pin_identity(&self, identity: &str) {
        *lock(&self.identity) = Identity { expected: Some(identity.to_owned()), is_pinned: true };
    }

    /// Compares the identity of an answer with that of the answers before, if the server tells it. Among several servers,
    /// one whose index was replaced during a run would mix the passages of two.
    fn check_identity(&self, server: &Server, found: Option<String>) -> Result<(), Fault> {
        let Some(found) = found else { return Ok(()) };
        let mut identity = lock(&self.identity);
        let expected = identity.expected.get_or_insert_with(|| found.clone()).clone();
        if expected == found {
            return Ok(());
        }
        let url = server.shown.clone();
        if self.has_several() {
            let reason = SearchError::Changed { url, expected, found }.to_string();
            return Err(Fault::Retry { reason, requested_pause: None });
        }
        if identity.is_pinned {
            return Err(Fault::Final(SearchError::Changed { url, expected, found }));
        }
        tracing::warn!(
            url,
            expected,
            found,
            "the retriever serves another index, or with other settings"
        );
        identity.expected = Some(found);
        Ok(())
    }

    fn report(&self, server: &Server, pause: Option<Duration>, reason: &str) {
        if let Some(pause) = pause.filter(|_| self.has_several()) {
            let (url, pause_ms) = (&server.shown, pause.as_millis());
            tracing::warn!(url, pause_ms, reason, "a retriever failed and is passed over");
        }
    }

    /// Checks that a server serves what the others serve, before it gets its first query and after each failure.
    async fn vouch(&self, server: &Server, limit: Duration) -> Result<(), Fault> {
        if !self.has_several() || server.is_vouched() {
            return Ok(());
        }
        let reply = server.serving(limit.min(INFO_LIMIT)).await;
        self.judge(server, reply).map_err(|doubt| {
            let reason = match doubt {
                Doubt::Silent(reason) => reason,
                Doubt::Mixed(mixed) => mixed.to_string(),
            };
            Fault::Retry { reason, requested_pause: None }
        })
    }

    fn judge(&self, server: &Server, reply: Result<Option<Serving>, String>) -> Result<(), Doubt> {
        if let Some(serving) = reply.map_err(Doubt::Silent)? {
            let mut reference = lock(&self.reference);
            let (address, expected) =
                reference.get_or_insert_with(|| (server.shown.clone(), serving.clone()));
            serving.compare(&server.shown, (address, expected)).map_err(Doubt::Mixed)?;
            if let Some(identity) = serving.identity() {
                lock(&self.identity).expected.get_or_insert_with(|| identity.to_owned());
            }
        }
        server.set_vouched(true);
        Ok(())
    }

    fn has_several(&self) -> bool {
        lock(&self.servers).len() > 1
    }

    /// Returns the limit of one attempt. Among several servers, one that never answers leaves time for another.
    fn attempt_limit(&self, remaining: Duration) -> Duration {
        let limit = match self.config.attempt_timeout {
            Some(limit) => limit,
            None if self.has_several() => (remaining / 2).max(ATTEMPT_MIN),
            None => remaining,
        };
        limit.min(remaining)
    }
}

/// Returns the servers that are neither in `tried` nor passed over.
fn candidates<'a>(
    servers: &'a [Arc<Server>],
    tried: &'a [Arc<Server>],
    now: Instant,
) -> impl Iterator<Item = &'a Arc<Server>> {
    servers.iter().filter(move |server| {
        !tried.iter().any(|other| Arc::ptr_eq(other, server))
            && server.health().passed_over_until(now).is_none()
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
