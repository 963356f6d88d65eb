//! `strftime_now`: the current date for prompts, in UTC.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
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

/// Formats a time by those directives of C's `strftime` that occur in prompts.
pub(super) fn format(now: SystemTime, format: &str) -> Result<String, Error> {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let (year, month, day) = civil(days);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[((days + 4) % 7) as usize]);

    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let mut directive = letters.next();
        let width = if directive == Some('-') { 1 } else { 2 };
        if width == 1 {
            directive = letters.next();
        }
        let mut number = |value: u64| write!(out, "{value:0width$}");
        let written = match directive {
            Some('d') => number(day),
            Some('m') => number(month),
            Some('y') => number(year % 100),
            Some('H') => number(hour),
            Some('I') => number((hour + 11) % 12 + 1),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('Y') => write!(out, "{year}"),
            Some('B') => write!(out, "{month_name}"),
            Some('b') => write!(out, "{}", &month_name[..3]),
            Some('A') => write!(out, "{day_name}"),
            Some('a') => write!(out, "{}", &day_name[..3]),
            Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
            Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
            Some('%') => write!(out, "%"),
            _ => Err(std::fmt::Error),
        };
        written.map_err(|_| {
            let shown = directive.map_or_else(|| "%".to_owned(), |letter| format!("%{letter}"));
            Error::new(ErrorKind::InvalidOperation, format!("strftime_now: directive {shown} is not supported"))
        })?;
    }
    Ok(out)
}

/// Year, month and day of the `days`th day after 1970-01-01, in the calendar whose years begin in March
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era_day = days % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let march_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era_year + days / 146_097 * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_print_as_strftime_prints_them() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // date -u -d @SECONDS
        assert_eq!(format(at(0), "%A %d %B %Y %H:%M:%S").unwrap(), "Thursday 01 January 1970 00:00:00");
        assert_eq!(format(at(1_709_251_199), "%d %b %Y, %I:%M %p").unwrap(), "29 Feb 2024, 11:59 PM");
        assert_eq!(format(at(951_868_800), "%-d.%-m.%y %% %F").unwrap(), "1.3.00 % 2000-03-01");
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert!(format(UNIX_EPOCH, "%Q").unwrap_err().to_string().contains("%Q"));
        assert!(format(UNIX_EPOCH, "100%").is_err());
    }
}
