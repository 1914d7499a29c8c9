//! Headers that requests carry besides their own: the time limit of the attempt, and those of a hook.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;

/// Header with the time that the client waits for an answer, in milliseconds.
pub const TIMEOUT_HEADER: &str = "x-request-timeout-ms";
/// Longest time in that header: servers read eight digits.
const TIMEOUT_MS_MAX: u128 = 99_999_999;

/// A function that makes headers for each request, such as those of the trace that is active in the task that searches.
#[derive(Clone)]
pub struct RequestHeaders(Arc<dyn Fn() -> HeaderMap + Send + Sync>);

impl RequestHeaders {
    /// Takes the function. It is called once for each attempt, also for a second one of the same queries.
    pub fn new(make: impl Fn() -> HeaderMap + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self) -> HeaderMap {
        (self.0)()
    }
}

impl Default for RequestHeaders {
    fn default() -> Self {
        Self::new(HeaderMap::new)
    }
}

impl fmt::Debug for RequestHeaders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The headers may hold a secret.
        formatter.write_str("RequestHeaders")
    }
}

/// Returns a time limit as the header has it.
pub(super) fn timeout_ms(limit: Duration) -> String {
    limit.as_millis().clamp(1, TIMEOUT_MS_MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_a_number_of_one_to_eight_digits() {
        for (limit, expected) in [
            (Duration::ZERO, "1"),
            (Duration::from_micros(1900), "1"),
            (Duration::from_mins(2), "120000"),
            (Duration::MAX, "99999999"),
        ] {
            assert_eq!(timeout_ms(limit), expected);
        }
    }
}
