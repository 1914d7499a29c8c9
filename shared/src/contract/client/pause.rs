//! The pause that a server requests with `Retry-After`.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap};

/// Longest pause that is read; the deadline of a search is far shorter.
const MAX_PAUSE: Duration = Duration::from_hours(365 * 24);

/// Returns the requested pause: a number of seconds or a date (RFC 9110, 10.2.3). A date counts from the server's own
/// `Date`, if it sends one, because the clocks of two machines may differ. Other texts request nothing.
pub fn requested(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: header::HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(header::RETRY_AFTER)?;
    let pause = match value.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Duration::try_from_secs_f64(seconds).unwrap_or(MAX_PAUSE),
        Ok(_) => return None,
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            let now = text(header::DATE)
                .and_then(|date| httpdate::parse_http_date(date).ok())
                .unwrap_or(now);
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause_ms(retry_after: &str, date: Option<&str>) -> Option<u128> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, retry_after.parse().unwrap());
        if let Some(date) = date {
            headers.insert(header::DATE, date.parse().unwrap());
        }
        // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        requested(&headers, now).map(|pause| pause.as_millis())
    }

    #[test]
    fn seconds_and_all_forms_of_dates_are_read() {
        for (value, expected_ms) in [
            ("0", Some(0)),
            (" 7 ", Some(7_000)),
            ("1.5", Some(1_500)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10_000)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", Some(10_000)),
            ("Sun Nov  6 08:49:47 1994", Some(10_000)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("-3", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(pause_ms(value, None), expected_ms, "{value:?}");
        }
    }

    #[test]
    fn a_date_counts_from_the_clock_of_the_server() {
        let later = "Sun, 06 Nov 1994 09:00:05 GMT";
        let date = Some("Sun, 06 Nov 1994 09:00:00 GMT");
        assert_eq!(pause_ms(later, date), Some(5_000));
        assert_eq!(pause_ms(later, Some("no date")), Some(628_000));
    }

    #[test]
    fn absurd_values_are_bounded() {
        let most = Some(MAX_PAUSE.as_millis());
        for value in ["99999999999999999999999999", "1e300", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"]
        {
            assert_eq!(pause_ms(value, None), most, "{value}");
        }
    }
}
