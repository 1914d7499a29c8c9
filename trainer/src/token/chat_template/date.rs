//! The current day for templates, and its `strftime`. The day is fixed: with the real date, the prompts of
//! two runs would differ.

use std::fmt;
use std::str::FromStr;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const DAYS_BEFORE_MONTH: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

/// A day of the Gregorian calendar, written as `2024-07-26`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatDate {
    year: u32,
    /// The month, from 1 to 12.
    month: u32,
    /// The day of the month, from 1 to 31.
    day: u32,
}

/// A text that is not a day.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a day is written as 2024-07-26")]
pub struct NotADate;

/// A `strftime` format with an unknown directive.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "strftime_now({format:?}) has an unknown directive; accepted: %Y %y %m %B %b %d %e %j %A %a %w %H %I \
     %M %S %p %F %%"
)]
pub(super) struct UnknownDirective {
    format: String,
}

impl Default for ChatDate {
    /// Returns the default day of Llama 3's templates.
    fn default() -> Self {
        Self { year: 2024, month: 7, day: 26 }
    }
}

impl FromStr for ChatDate {
    type Err = NotADate;

    fn from_str(text: &str) -> Result<Self, NotADate> {
        let digits = |text: &str, count: usize| {
            let number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
            number.then(|| text.parse().ok()).flatten()
        };
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts[..] else { return Err(NotADate) };
        let (Some(year), Some(month), Some(day)) =
            (digits(year, 4), digits(month, 2), digits(day, 2))
        else {
            return Err(NotADate);
        };
        let date = Self { year, month, day };
        let is_day = year > 0 && (1..=12).contains(&month) && (1..=date.days()).contains(&day);
        is_day.then_some(date).ok_or(NotADate)
    }
}

impl fmt::Display for ChatDate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl ChatDate {
    fn is_leap(self) -> bool {
        self.year.is_multiple_of(4)
            && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    /// Returns the number of days in its month.
    fn days(self) -> u32 {
        match self.month {
            2 => 28 + u32::from(self.is_leap()),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Returns the day of the year; 1 for the first of January.
    fn day_of_year(self) -> u32 {
        let leap_day = u32::from(self.is_leap() && self.month > 2);
        DAYS_BEFORE_MONTH[self.month as usize - 1] + self.day + leap_day
    }

    /// Returns the day of the week; 0 for Sunday.
    fn weekday(self) -> u32 {
        // The last day of the year 0 in the proleptic calendar is a Sunday; count the days since then.
        let years = self.year - 1;
        (years * 365 + years / 4 - years / 100 + years / 400 + self.day_of_year()) % 7
    }

    /// Formats midnight of the day in English, as Python's `strftime` does.
    ///
    /// # Errors
    /// An unknown directive.
    pub(super) fn format(self, format: &str) -> Result<String, UnknownDirective> {
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let directive = letters.next();
            // `%-d` is `%d` without leading zeros.
            let (directive, trimmed) = match directive {
                Some('-') => (letters.next(), true),
                other => (other, false),
            };
            let written = directive.and_then(|directive| self.directive(directive));
            let Some(written) = written else {
                return Err(UnknownDirective { format: format.to_owned() });
            };
            let short = written.trim_start_matches(['0', ' ']);
            text.push_str(if trimmed && !short.is_empty() { short } else { &written });
        }
        Ok(text)
    }

    fn directive(self, directive: char) -> Option<String> {
        let month = MONTHS[self.month as usize - 1];
        let weekday = WEEKDAYS[self.weekday() as usize];
        Some(match directive {
            'Y' => format!("{}", self.year),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year()),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'w' => self.weekday().to_string(),
            'F' => self.to_string(),
            'H' | 'M' | 'S' => "00".to_owned(),
            'I' => "12".to_owned(),
            'p' => "AM".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}
