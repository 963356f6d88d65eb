//! `strftime_now`: the current date for prompts, in UTC.

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

/// A time in UTC, and its parts.
struct Moment {
    seconds: u64,
    micros: u32,
    year: u64,
    month: u64,
    day: u64,
    /// Day of the year, from 0.
    year_day: u64,
    /// Day of the week, from 0 for Sunday.
    weekday: u64,
}

/// Formats a time by the directives of C's `strftime` and Python's `%f`, in the C locale. A directive may have glibc's
/// flags: `-` for no padding, `_` for spaces, `0` for zeros.
pub(super) fn format(now: SystemTime, format: &str) -> Result<String, Error> {
    Moment::of(now).format(format)
}

impl Moment {
    fn of(now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let days = since.as_secs() / 86_400;
        let (year, month, day) = civil(days);
        let year_day = days - days_to(year);
        let weekday = (days + 4) % 7;
        Self { seconds: since.as_secs(), micros: since.subsec_micros(), year, month, day, year_day, weekday }
    }

    fn format(&self, format: &str) -> Result<String, Error> {
        let (mut out, mut letters) = (String::new(), format.chars());
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            let mut directive = letters.next();
            let flag = directive.filter(|letter| "-_0".contains(*letter));
            if flag.is_some() {
                directive = letters.next();
            }
            let text = directive.and_then(|directive| self.directive(directive, flag));
            out.push_str(&text.ok_or_else(|| {
                let shown = directive.map_or_else(|| "%".to_owned(), |letter| format!("%{letter}"));
                Error::new(ErrorKind::InvalidOperation, format!("strftime_now: directive {shown} is not supported"))
            })?);
        }
        Ok(out)
    }

    fn directive(&self, directive: char, flag: Option<char>) -> Option<String> {
        let number = |value: u64, width: usize, pad: char| match flag.unwrap_or(pad) {
            '-' => value.to_string(),
            '_' => format!("{value:width$}"),
            _ => format!("{value:0width$}"),
        };
        let second_of_day = self.seconds % 86_400;
        let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        let hour_of_twelve = (hour + 11) % 12 + 1;
        // Days of this week that belong to the year, if weeks begin on a Sunday or on a Monday.
        let week = |first: u64| (self.year_day + 7 - (self.weekday + 7 - first) % 7) / 7;
        let text = match directive {
            'd' => number(self.day, 2, '0'),
            'e' => number(self.day, 2, '_'),
            'm' => number(self.month, 2, '0'),
            'y' => number(self.year % 100, 2, '0'),
            'C' => number(self.year / 100, 2, '0'),
            'H' => number(hour, 2, '0'),
            'k' => number(hour, 2, '_'),
            'I' => number(hour_of_twelve, 2, '0'),
            'l' => number(hour_of_twelve, 2, '_'),
            'M' => number(minute, 2, '0'),
            'S' => number(second, 2, '0'),
            'j' => number(self.year_day + 1, 3, '0'),
            'U' => number(week(0), 2, '0'),
            'W' => number(week(1), 2, '0'),
            'V' => number(self.iso_week().1, 2, '0'),
            'G' => self.iso_week().0.to_string(),
            'g' => number(self.iso_week().0 % 100, 2, '0'),
            'w' => self.weekday.to_string(),
            'u' => ((self.weekday + 6) % 7 + 1).to_string(),
            'Y' => self.year.to_string(),
            's' => self.seconds.to_string(),
            'f' => format!("{:06}", self.micros),
            'B' => MONTHS[self.month as usize - 1].to_owned(),
            'b' | 'h' => MONTHS[self.month as usize - 1][..3].to_owned(),
            'A' => DAYS[self.weekday as usize].to_owned(),
            'a' => DAYS[self.weekday as usize][..3].to_owned(),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'P' => if hour < 12 { "am" } else { "pm" }.to_owned(),
            'F' => self.format("%Y-%m-%d").ok()?,
            'D' | 'x' => self.format("%m/%d/%y").ok()?,
            'T' | 'X' => self.format("%H:%M:%S").ok()?,
            'R' => self.format("%H:%M").ok()?,
            'r' => self.format("%I:%M:%S %p").ok()?,
            'c' => self.format("%a %b %e %H:%M:%S %Y").ok()?,
            // As a Python time without a time zone, which transformers uses.
            'z' | 'Z' => String::new(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        };
        Some(text)
    }

    /// Year and week by ISO 8601: weeks begin on Mondays, and the first one has the year's first Thursday.
    fn iso_week(&self) -> (u64, u64) {
        let monday_first = (self.weekday + 6) % 7;
        // The Thursday of the same week, as a day of this year; it may be in a year beside it.
        let thursday = self.year_day as i64 + 3 - monday_first as i64;
        let length = (days_to(self.year + 1) - days_to(self.year)) as i64;
        let (year, day) = match thursday {
            day if day < 0 => (self.year - 1, day + (days_to(self.year) - days_to(self.year - 1)) as i64),
            day if day >= length => (self.year + 1, day - length),
            day => (self.year, day),
        };
        (year, day as u64 / 7 + 1)
    }
}

/// Days from 1970-01-01 to the first day of a year from 1969 on; a day before is none.
fn days_to(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year * 365 + leaps(year.saturating_sub(1))).saturating_sub(1970 * 365 + leaps(1969))
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
    fn weeks_and_short_forms_are_those_of_strftime() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // LC_ALL=C TZ=UTC date -u -d @SECONDS +FORMAT
        let weeks = "%U %W %V %G %u %w %j";
        let cases = [
            (1_709_251_199, weeks, "08 09 09 2024 4 4 060"),
            (1_609_459_200, weeks, "00 00 53 2020 5 5 001"),
            (1_735_603_200, weeks, "52 53 01 2025 2 2 366"),
            (1_672_531_200, weeks, "01 00 52 2022 7 0 001"),
            (0, weeks, "00 00 01 1970 4 4 001"),
            (1_709_251_199, "%D|%x|%T|%X|%R|%h|%C|%r", "02/29/24|02/29/24|23:59:59|23:59:59|23:59|Feb|20|11:59:59 PM"),
            (951_868_800, "%c|%e|%s|%f|%Z|%z|%-j|%_d", "Wed Mar  1 00:00:00 2000| 1|951868800|000000|||61| 1"),
        ];
        for (seconds, directives, expected) in cases {
            assert_eq!(format(at(seconds), directives).unwrap(), expected, "{seconds} {directives}");
        }
    }

    #[test]
    fn an_unknown_directive_is_named() {
        assert!(format(UNIX_EPOCH, "%Q").unwrap_err().to_string().contains("%Q"));
        assert!(format(UNIX_EPOCH, "100%").is_err());
    }
}
