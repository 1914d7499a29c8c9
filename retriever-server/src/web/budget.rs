//! What may be spent in a day (UTC). A request is paid before it is sent, and refunded if its provider says
//! that it failed. Providers without a key are free.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::upstream::exchange::{Exchange, ExchangeFault, ExchangeFuture, Request};

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The most that may be spent in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DailyLimit {
    /// Requests to providers with a key.
    Requests(u64),
    /// Money, in millionths of a dollar.
    Millionths(u64),
}

impl fmt::Display for DailyLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests(count) => write!(formatter, "{count} requests"),
            Self::Millionths(amount) => write!(formatter, "{} USD", *amount as f64 / 1e6),
        }
    }
}

/// The expenses of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Days since 1970-01-01.
    pub day: u64,
    /// Requests.
    pub requests: u64,
    /// Money, in millionths of a dollar.
    pub millionths: u64,
}

/// The budget of all providers.
pub struct DailyBudget {
    limit: Option<DailyLimit>,
    spent: Mutex<Spent>,
    now_s: fn() -> u64,
    keep: Box<dyn Fn(Spent) + Send + Sync>,
}

impl fmt::Debug for DailyBudget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DailyBudget").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl DailyBudget {
    /// Continues with what was spent before. `keep` is called with every change.
    pub fn new(
        limit: Option<DailyLimit>,
        spent: Spent,
        keep: impl Fn(Spent) + Send + Sync + 'static,
    ) -> Self {
        Self { limit, spent: Mutex::new(spent), now_s: unix_seconds, keep: Box::new(keep) }
    }

    /// Pays for one request.
    ///
    /// # Errors
    /// The limit, if it would be exceeded.
    pub fn pay(&self, price_millionths: u64) -> Result<(), DailyLimit> {
        self.change(|spent, limit| {
            let requests = spent.requests + 1;
            let millionths = spent.millionths.saturating_add(price_millionths);
            let is_over = match limit {
                Some(DailyLimit::Requests(most)) => requests > most,
                Some(DailyLimit::Millionths(most)) => millionths > most,
                None => false,
            };
            if is_over {
                limit.map_or(Ok(()), Err)?;
            }
            *spent = Spent { requests, millionths, ..*spent };
            Ok(())
        })
    }

    /// Takes a payment of the same day back.
    pub fn refund(&self, price_millionths: u64) {
        // A refund cannot fail.
        let _ = self.change(|spent, _| {
            spent.requests = spent.requests.saturating_sub(1);
            spent.millionths = spent.millionths.saturating_sub(price_millionths);
            Ok(())
        });
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Spent, Option<DailyLimit>) -> Result<(), DailyLimit>,
    ) -> Result<(), DailyLimit> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let today = (self.now_s)() / SECONDS_PER_DAY;
        // A clock that is set back by hours must not open the budget again. One that was far ahead must not
        // close it for long.
        if today > spent.day || spent.day > today + 1 {
            *spent = Spent { day: today, ..Spent::default() };
        }
        change(&mut spent, self.limit)?;
        (self.keep)(*spent);
        Ok(())
    }
}

/// Returns the seconds since 1970; 0 for a clock before that.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// An exchange whose requests cost money.
#[derive(Debug)]
pub struct Paid {
    /// The exchange.
    pub exchange: Arc<dyn Exchange>,
    /// The budget that pays.
    pub budget: Arc<DailyBudget>,
    /// The price of a request.
    pub price_millionths: u64,
}

impl Exchange for Paid {
    fn send(&self, request: Request) -> ExchangeFuture<'_> {
        Box::pin(async move {
            self.budget.pay(self.price_millionths).map_err(|limit| {
                ExchangeFault::Withheld(format!("the budget of {limit} for this day is spent"))
            })?;
            let outcome = self.exchange.send(request).await;
            // A reply that was cut off may have been billed.
            if outcome.as_ref().is_ok_and(|reply| !reply.status.is_success()) {
                self.budget.refund(self.price_millionths);
            }
            outcome
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    static NOW_S: AtomicU64 = AtomicU64::new(0);

    fn at(day: u64) {
        NOW_S.store(day * SECONDS_PER_DAY + 7, Ordering::SeqCst);
    }

    #[test]
    fn a_day_has_its_limit_and_clock_jumps_do_not_lift_it() {
        let limit = Some(DailyLimit::Millionths(2500));
        let kept = Arc::new(Mutex::new(Spent::default()));
        let keep = Arc::clone(&kept);
        let budget = DailyBudget {
            now_s: || NOW_S.load(Ordering::SeqCst),
            ..DailyBudget::new(limit, Spent::default(), move |spent| *keep.lock().unwrap() = spent)
        };
        at(100);
        budget.pay(1000).unwrap();
        budget.pay(1000).unwrap();
        assert_eq!(budget.pay(1000), Err(DailyLimit::Millionths(2500)));
        assert_eq!(*kept.lock().unwrap(), Spent { day: 100, requests: 2, millionths: 2000 });
        budget.refund(1000);
        budget.pay(1000).unwrap();
        at(99);
        assert!(budget.pay(1000).is_err(), "set back by a day");
        at(101);
        budget.pay(1000).unwrap();
        at(4000);
        budget.pay(2000).unwrap();
        at(102);
        budget.pay(2000).unwrap();
        assert_eq!(kept.lock().unwrap().day, 102);
    }

    #[test]
    fn requests_are_counted_and_without_a_limit_nothing_is_refused() {
        let spent = Spent { day: unix_seconds() / SECONDS_PER_DAY, requests: 2, millionths: 0 };
        let budget = DailyBudget::new(Some(DailyLimit::Requests(3)), spent, |_| {});
        budget.pay(0).unwrap();
        assert!(budget.pay(0).is_err());
        let free = DailyBudget::new(None, spent, |_| {});
        assert!((0..100).all(|_| free.pay(u64::MAX).is_ok()));
    }
}
