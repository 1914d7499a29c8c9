//! The time that a client gives for its answer, in a header of the request. It counts from the time at which the
//! header has arrived, and shortens the server's own limit.

use std::time::Duration;

use axum::http::HeaderMap;
use shared::contract::wire::{Location, ValidationError};
use tokio::time::Instant;

use super::respond::HttpError;

/// The header with a number of milliseconds.
const MILLISECONDS: &str = "x-request-timeout-ms";
/// The header of gRPC: at most eight digits and a unit.
const GRPC: &str = "grpc-timeout";
/// The most digits in either header.
const MAX_DIGITS: usize = 8;

/// The end of a request, if its client has set one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    at: Option<Instant>,
}

impl Deadline {
    /// Reads the headers of a request that has just arrived. A header that is no time is a fault.
    pub(super) fn of(headers: &HeaderMap, longest: Duration) -> Result<Self, Vec<ValidationError>> {
        let mut faults = Vec::new();
        let mut shortest: Option<Duration> = None;
        for (name, parse, accepted) in [
            (MILLISECONDS, milliseconds as fn(&str) -> Option<Duration>, "1 to 99999999"),
            (GRPC, grpc, "one to eight digits, not all 0, and one of H, M, S, m, u and n"),
        ] {
            for value in headers.get_all(name) {
                match value.to_str().ok().and_then(|text| parse(text.trim())) {
                    Some(time) => shortest = Some(shortest.map_or(time, |other| other.min(time))),
                    None => faults.push(ValidationError {
                        loc: ["header", name].map(|key| Location::Key(key.to_owned())).to_vec(),
                        msg: format!("is {value:?}, expected {accepted}"),
                        kind: "timeout".to_owned(),
                    }),
                }
            }
        }
        let at = shortest.map(|time| Instant::now() + time.min(longest));
        if faults.is_empty() { Ok(Self { at }) } else { Err(faults) }
    }

    /// Returns the time that is left, at most `limit`. If there is none, the request has failed.
    pub(super) fn left(self, limit: Duration) -> Result<Duration, HttpError> {
        let left = self.at.map_or(limit, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(HttpError::Late);
        }
        Ok(left.min(limit))
    }
}

fn digits(text: &str) -> Option<u64> {
    let is_number = text.len() <= MAX_DIGITS && text.bytes().all(|digit| digit.is_ascii_digit());
    Some(text).filter(|_| is_number)?.parse().ok().filter(|number| *number > 0)
}

fn milliseconds(text: &str) -> Option<Duration> {
    digits(text).map(Duration::from_millis)
}

/// Parses the value of gRPC's header: "Timeout" in its protocol over HTTP/2.
fn grpc(text: &str) -> Option<Duration> {
    let (unit, number) = (text.chars().next_back()?, text.get(..text.len().checked_sub(1)?)?);
    let number = digits(number)?;
    match unit {
        'H' => Some(Duration::from_secs(number * 3600)),
        'M' => Some(Duration::from_secs(number * 60)),
        'S' => Some(Duration::from_secs(number)),
        'm' => Some(Duration::from_millis(number)),
        'u' => Some(Duration::from_micros(number)),
        'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;
    use axum::http::header::HeaderValue;

    use super::*;

    fn deadline(headers: &[(&str, &str)]) -> Result<Deadline, Vec<ValidationError>> {
        let parsed = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        Deadline::of(&parsed.collect(), Duration::from_mins(1))
    }

    #[tokio::test(start_paused = true)]
    async fn headers_shorten_the_time() {
        let limit = Duration::from_mins(1);
        for (name, value, millis) in [
            (MILLISECONDS, "1500", 1500),
            (MILLISECONDS, " 7 ", 7),
            (MILLISECONDS, "99999999", 60_000),
            (GRPC, "1H", 60_000),
            (GRPC, "1M", 60_000),
            (GRPC, "2S", 2000),
            (GRPC, "250m", 250),
            (GRPC, "3000u", 3),
            (GRPC, "4000000n", 4),
        ] {
            let left = deadline(&[(name, value)]).unwrap().left(limit).unwrap();
            assert_eq!(left, Duration::from_millis(millis), "{name} {value}");
        }
        let both = deadline(&[(GRPC, "2S"), (MILLISECONDS, "500")]).unwrap();
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!(both.left(limit).unwrap(), Duration::from_millis(100));
        assert_eq!(both.left(Duration::from_millis(5)).unwrap(), Duration::from_millis(5));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(matches!(both.left(limit), Err(HttpError::Late)));
        assert_eq!(deadline(&[]).unwrap().left(limit).unwrap(), limit);
    }

    #[tokio::test]
    async fn headers_that_are_no_time_are_named() {
        for (name, value) in [
            (MILLISECONDS, ""),
            (MILLISECONDS, "0"),
            (MILLISECONDS, "-5"),
            (MILLISECONDS, "1.5"),
            (MILLISECONDS, "999999999"),
            (GRPC, "5"),
            (GRPC, "m"),
            (GRPC, "0m"),
            (GRPC, "5s"),
            (GRPC, "123456789m"),
            (GRPC, "\u{e9}m"),
        ] {
            let faults = deadline(&[(name, value)]).unwrap_err();
            let loc = ["header", name].map(|key| Location::Key(key.to_owned()));
            assert_eq!(faults[0].loc, loc, "{name} {value}");
            assert!(faults[0].msg.contains("expected"), "{faults:?}");
        }
    }
}
