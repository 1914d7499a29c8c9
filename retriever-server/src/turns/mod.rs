//! The turns of admitted queries. A bounded number of queries is in flight; the others wait, one line for each
//! caller, and the lines take turns. A caller with many queries thus delays its own, not those of others.
//!
//! A large request takes several turns, each for a slice of its queries. A wait that is dropped leaves the line
//! at once. The module also observes how many queries end in a second, from which it estimates waits.

mod rate;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use rate::Rate;

/// The longest time after which a refused client is told to ask again.
const MAX_RETRY_S: u16 = 60;

/// The one who sends requests. Requests of one caller share its part of the capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// A machine, or the network of the first 64 bits of an IPv6 address.
    Address(IpAddr),
    /// The holder of a key that was checked, by the key's number.
    Key(u64),
}

impl Caller {
    /// Returns the caller at an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Self::Address(IpAddr::V6(network.into()))
            }
            address @ IpAddr::V4(_) => Self::Address(address),
        }
    }
}

/// The limits of queries in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// The most queries in flight, at least 1. A turn for more has to be alone.
    pub max_in_flight: usize,
    /// The most queries in a slice, at least 1.
    pub max_slice: usize,
    /// The longest expected wait with which a request is admitted.
    pub max_wait: Duration,
}

/// The queries in flight, and those that wait.
#[derive(Debug)]
pub struct Turns {
    limits: TurnLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    waiting: usize,
    /// The lines with someone in them.
    lines: BTreeMap<Caller, Line>,
    /// The callers with a line, the next one first.
    order: VecDeque<Caller>,
    next_number: u64,
    rate: Rate,
}

/// The waiting slices of one caller, in the order of their arrival.
#[derive(Debug, Default)]
struct Line {
    slices: VecDeque<Waiting>,
    queries: usize,
    /// The queries that the caller may begin before the next caller's turn.
    credit: usize,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    queries: usize,
    grant: oneshot::Sender<Turn>,
}

/// The turn of some queries, which ends when this value is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    queries: usize,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.end(self.queries);
    }
}

/// A place in a line, which is left when this value is dropped.
struct Place<'a> {
    turns: &'a Arc<Turns>,
    caller: Caller,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        if state.leave(self.caller, self.number) {
            // The one behind may be smaller, and fit.
            self.turns.advance(state);
        }
    }
}

impl Turns {
    /// Creates the lines, with nobody in them.
    pub fn new(limits: TurnLimits) -> Self {
        Self { limits, state: Mutex::default() }
    }

    /// Returns the limits.
    pub fn limits(&self) -> TurnLimits {
        self.limits
    }

    /// Waits for a turn of `queries` in the line of `caller`, until `deadline`. Returns `None` if it has passed.
    pub async fn take(
        self: &Arc<Self>,
        caller: Caller,
        queries: usize,
        deadline: Instant,
    ) -> Option<Turn> {
        let (place, granted) = {
            let mut state = self.lock();
            if state.waiting == 0 && self.fits(&state, queries) {
                return Some(self.begin(&mut state, queries));
            }
            let (grant, granted) = oneshot::channel();
            let number = state.join(caller, queries, grant);
            (Place { turns: self, caller, number }, granted)
        };
        let turn = tokio::time::timeout_at(deadline, granted).await;
        drop(place);
        turn.ok()?.ok()
    }

    /// Returns the expected wait of a request for its first turn: until as many queries have ended as are ahead, and
    /// as it needs room for. Returns `None` if nothing is known yet.
    pub fn expected_wait(&self, caller: Caller, queries: usize) -> Option<Duration> {
        let state = self.lock();
        let slice = queries.min(self.limits.max_slice);
        if state.waiting == 0 && self.fits(&state, slice) {
            return Some(Duration::ZERO);
        }
        let ahead = state.ahead(caller, self.limits.max_slice) + slice;
        let per_s = state.rate.per_s()?;
        Some(Duration::from_secs_f64((ahead as f64 / per_s).min(1e6)))
    }

    /// Notes that `queries` are refused, and returns the time until they may be accepted: the time that the
    /// waiting queries take, and those that were refused lately and will come again too.
    pub fn refuse(&self, queries: usize) -> u16 {
        let mut state = self.lock();
        let now = Instant::now();
        let refused = state.rate.refuse(queries, now);
        let pending = (state.in_flight + state.waiting) as f64 + refused;
        let Some(per_s) = state.rate.per_s() else { return 1 };
        ((pending / per_s).ceil() as u16).clamp(1, MAX_RETRY_S)
    }

    /// Returns the numbers of queries in flight and waiting.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_flight, state.waiting)
    }

    /// Returns the observed number of queries per second, if there is one.
    pub fn queries_per_s(&self) -> Option<f64> {
        self.lock().rate.per_s()
    }

    fn fits(&self, state: &State, queries: usize) -> bool {
        state.in_flight == 0 || state.in_flight + queries <= self.limits.max_in_flight
    }

    fn begin(self: &Arc<Self>, state: &mut State, queries: usize) -> Turn {
        if state.in_flight == 0 {
            state.rate.start(Instant::now());
        }
        state.in_flight += queries;
        Turn { turns: Arc::clone(self), queries }
    }

    fn end(self: &Arc<Self>, queries: usize) {
        let mut state = self.lock();
        state.in_flight -= queries;
        let is_busy = state.in_flight > 0 || state.waiting > 0;
        let is_full = state.waiting > 0;
        state.rate.end(queries, is_full, is_busy, Instant::now());
        self.advance(state);
    }

    /// Gives turns to those who wait, as long as they fit.
    fn advance(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut given = Vec::new();
        while let Some(queries) = state.head(self.limits.max_slice)
            && self.fits(&state, queries)
        {
            let waiting = state.pop();
            let turn = self.begin(&mut state, waiting.queries);
            given.push((waiting.grant, turn));
        }
        // A turn that nobody waits for any more ends here, which takes the lock.
        drop(state);
        for (grant, turn) in given {
            let _ = grant.send(turn);
        }
    }

    /// Locks the state. Its changes cannot fail half-way, so a poisoned lock still guards sound lines.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds a slice to the end of the caller's line.
    fn join(&mut self, caller: Caller, queries: usize, grant: oneshot::Sender<Turn>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let line = self.lines.entry(caller).or_insert_with(|| {
            self.order.push_back(caller);
            Line::default()
        });
        line.slices.push_back(Waiting { number, queries, grant });
        line.queries += queries;
        self.waiting += queries;
        number
    }

    /// Removes a slice from its line. Returns `false` if it is not there.
    fn leave(&mut self, caller: Caller, number: u64) -> bool {
        let Some(line) = self.lines.get_mut(&caller) else { return false };
        let Ok(at) = line.slices.binary_search_by_key(&number, |waiting| waiting.number) else {
            return false;
        };
        let left = line.slices.remove(at).expect("the position was just found");
        line.queries -= left.queries;
        self.waiting -= left.queries;
        self.drop_empty_line(caller);
        true
    }

    fn drop_empty_line(&mut self, caller: Caller) {
        if self.lines.get(&caller).is_some_and(|line| line.slices.is_empty()) {
            self.lines.remove(&caller);
            self.order.retain(|other| *other != caller);
        }
    }

    /// Returns the size of the slice that is next. Each caller begins up to `quantum` queries in its turn (deficit
    /// round robin: Shreedhar and Varghese, SIGCOMM 1995); a larger slice takes several rounds to save for.
    fn head(&mut self, quantum: usize) -> Option<usize> {
        loop {
            let caller = *self.order.front()?;
            let line = self.lines.get(&caller).expect("a caller in the order has a line");
            let queries = line.slices.front().expect("a line has a slice").queries;
            if line.credit >= queries {
                return Some(queries);
            }
            self.order.rotate_left(1);
            let next = *self.order.front()?;
            let line = self.lines.get_mut(&next).expect("a caller in the order has a line");
            line.credit += quantum;
        }
    }

    /// Takes the slice that [`State::head`] has found.
    fn pop(&mut self) -> Waiting {
        let caller = *self.order.front().expect("there is a next caller");
        let line = self.lines.get_mut(&caller).expect("a caller in the order has a line");
        let waiting = line.slices.pop_front().expect("a line has a slice");
        line.queries -= waiting.queries;
        line.credit -= waiting.queries;
        self.waiting -= waiting.queries;
        self.drop_empty_line(caller);
        waiting
    }

    /// Returns the number of queries that begin before the next one of `caller`: its own, and as many of each
    /// other, or a slice.
    fn ahead(&self, caller: Caller, slice: usize) -> usize {
        let own = self.lines.get(&caller).map_or(0, |line| line.queries);
        let others = self.lines.iter().filter(|(other, _)| **other != caller);
        own + others.map(|(_, line)| line.queries.min(own + slice)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests;
