//! Timestamps with microsecond precision, as PostgreSQL stores them.
//!
//! Parsing never rounds: it rejects digits after the microsecond unless they are zeros, and values outside the range of
//! `timestamptz`.
//!
//! No crate is used: jiff ends at the year 9999 and chrono near 262,000, while `timestamptz` ends at 294276.

use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// 2000-01-01, the epoch of PostgreSQL's binary format.
const POSTGRES_EPOCH_DAYS: i64 = 10_957;

/// PostgreSQL's `timestamptz` begins in 4713 BC: <https://www.postgresql.org/docs/current/datatype-datetime.html>. It
/// ends in 294276 AD. [`Timestamp`] ends thirty years earlier, in 294246, the last full year of 64-bit microseconds since
/// 1970.
const MIN: Timestamp = Timestamp(days_from_civil(-4712, 1, 1) * MICROS_PER_DAY);
const MAX: Timestamp = Timestamp(days_from_civil(294_247, 1, 1) * MICROS_PER_DAY - 1);

impl Timestamp {
    /// Parses an ISO 8601 date and time. Without an offset it is in UTC; a date alone is midnight.
    ///
    /// Returns `None` for any other text, for digits finer than a microsecond, and outside PostgreSQL's range.
    pub fn parse(text: &str) -> Option<Self> {
        let mut cursor = TextCursor(text.as_bytes());
        let days = cursor.date()?;
        let micros = if cursor.take_any(b"Tt ") { cursor.time_and_offset()? } else { 0 };
        if !cursor.0.is_empty() {
            return None;
        }
        days.checked_mul(MICROS_PER_DAY)?
            .checked_add(micros)
            .map(Self)
            .filter(|timestamp| (MIN..=MAX).contains(timestamp))
    }

    /// Parses seconds since 1970 as decimal text, possibly with a fraction, as in Lambda's arrival times, without
    /// floating point.
    pub fn parse_epoch_seconds(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().ok().filter(|&s: &i64| s >= 0)?;
        let mut cursor = TextCursor(fraction.as_bytes());
        let micros = cursor.fraction()?;
        cursor.0.is_empty().then_some(())?;
        seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(micros).map(Self).filter(|timestamp| *timestamp <= MAX)
    }

    /// Parses a number of seconds, milliseconds or microseconds since 1970; its size determines the unit. DynamoDB
    /// writes seconds in its streams, and milliseconds or microseconds through Kinesis.
    pub fn parse_epoch(text: &str) -> Option<Self> {
        let whole: i64 = text.split('.').next()?.parse().ok()?;
        match whole {
            100_000_000_000_000.. => Some(Self(whole)).filter(|timestamp| *timestamp <= MAX),
            100_000_000_000.. => whole.checked_mul(1_000).map(Self),
            _ => Self::parse_epoch_seconds(text),
        }
    }

    /// Microseconds since 2000-01-01, PostgreSQL's binary format.
    pub fn to_postgres(self) -> i64 {
        self.0 - POSTGRES_EPOCH_DAYS * MICROS_PER_DAY
    }

    /// The timestamp from PostgreSQL's binary format.
    pub fn from_postgres(micros: i64) -> Self {
        Self(micros + POSTGRES_EPOCH_DAYS * MICROS_PER_DAY)
    }

    /// The day since 1970-01-01, and the microseconds within it.
    pub fn day_and_micros(self) -> (i64, i64) {
        (self.0.div_euclid(MICROS_PER_DAY), self.0.rem_euclid(MICROS_PER_DAY))
    }

    /// Midnight UTC of a day since 1970-01-01.
    pub fn from_days(days: i64) -> Self {
        Self(days * MICROS_PER_DAY)
    }

    /// Adds `micros`, and clamps the sum to the supported range.
    pub fn saturating_add(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros)).clamp(MIN, MAX)
    }
}

impl fmt::Display for Timestamp {
    /// Writes `2026-02-08T23:30:00.123456Z`, without the fraction if it is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, micros) = self.day_and_micros();
        let (year, month, day) = civil_from_days(days);
        let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if !(0..=9999).contains(&year) {
            write!(f, "{}", if year < 0 { '-' } else { '+' })?;
        }
        write!(f, "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", year.abs())?;
        match fraction {
            0 => write!(f, "Z"),
            _ if fraction % 1000 == 0 => write!(f, ".{:03}Z", fraction / 1000),
            _ => write!(f, ".{fraction:06}Z"),
        }
    }
}

/// Parses `YYYY-MM-DD` into days since 2000-01-01, PostgreSQL's binary format of `date`.
pub fn parse_date(text: &str) -> Option<i32> {
    let mut cursor = TextCursor(text.as_bytes());
    let days = cursor.date()?;
    let in_range = (MIN..=MAX).contains(&Timestamp(days.checked_mul(MICROS_PER_DAY)?));
    (cursor.0.is_empty() && in_range).then(|| i32::try_from(days - POSTGRES_EPOCH_DAYS).ok()).flatten()
}

/// Converts days since 1970-01-01 to days since 2000-01-01, within the range of [`parse_date`].
pub fn date_to_postgres(days: i32) -> Option<i32> {
    let in_range = (MIN..=MAX).contains(&Timestamp(i64::from(days).checked_mul(MICROS_PER_DAY)?));
    in_range.then(|| i32::try_from(i64::from(days) - POSTGRES_EPOCH_DAYS).ok()).flatten()
}

/// Formats a day since 1970-01-01 as text that [`parse_date`] accepts.
pub fn format_date(days: i32) -> String {
    let (year, month, day) = civil_from_days(i64::from(days));
    let sign = match year {
        0..=9999 => "",
        ..0 => "-",
        10_000.. => "+",
    };
    format!("{sign}{:04}-{month:02}-{day:02}", year.abs())
}

/// Midnight UTC of a `date` in PostgreSQL's binary format.
pub fn date_from_postgres(days: i32) -> Timestamp {
    Timestamp::from_days(i64::from(days) + POSTGRES_EPOCH_DAYS)
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant's `days_from_civil`).
pub const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
pub const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The unread rest of a text.
struct TextCursor<'a>(&'a [u8]);

impl TextCursor<'_> {
    fn take_any(&mut self, expected: &[u8]) -> bool {
        let matches = self.0.first().is_some_and(|byte| expected.contains(byte));
        if matches {
            self.0 = &self.0[1..];
        }
        matches
    }

    fn two_digits(&mut self) -> Option<i64> {
        let (&[a, b], rest) = self.0.split_first_chunk::<2>()?;
        (a.is_ascii_digit() && b.is_ascii_digit()).then(|| {
            self.0 = rest;
            i64::from(a - b'0') * 10 + i64::from(b - b'0')
        })
    }

    /// Reads `YYYY-MM-DD`, or a date with ISO 8601's expanded year: a sign and up to six digits.
    fn date(&mut self) -> Option<i64> {
        let signed = matches!(self.0.first(), Some(b'+' | b'-'));
        let negative = self.0.first() == Some(&b'-');
        if signed {
            self.0 = &self.0[1..];
        }
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits != 4 && !(signed && digits <= 6 && digits > 4) {
            return None;
        }
        let (year, rest) = self.0.split_at(digits);
        self.0 = rest;
        let year = year.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        let year = if negative { -year } else { year };
        let month = self.take_any(b"-").then(|| self.two_digits()).flatten().filter(|m| (1..=12).contains(m))?;
        let day = self.take_any(b"-").then(|| self.two_digits()).flatten()?;
        (1..=days_in_month(year, month)).contains(&day).then(|| days_from_civil(year, month, day))
    }

    fn time_and_offset(&mut self) -> Option<i64> {
        let hour = self.two_digits().filter(|&h| h < 24)?;
        let minute = self.take_any(b":").then(|| self.two_digits()).flatten().filter(|&m| m < 60)?;
        let second = if self.take_any(b":") { self.two_digits().filter(|&s| s < 60)? } else { 0 };
        let fraction = if self.take_any(b".,") { self.required_fraction()? } else { 0 };
        let local = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + fraction;
        Some(local - self.offset()?)
    }

    fn required_fraction(&mut self) -> Option<i64> {
        self.0.first().filter(|byte| byte.is_ascii_digit())?;
        self.fraction()
    }

    /// Reads the digits after the decimal point as microseconds; returns `None` if they are finer than a microsecond.
    fn fraction(&mut self) -> Option<i64> {
        let (mut micros, mut unit) = (0, MICROS_PER_SECOND / 10);
        while let Some((&digit, rest)) = self.0.split_first().filter(|(digit, _)| digit.is_ascii_digit()) {
            if unit == 0 && digit != b'0' {
                return None;
            }
            micros += i64::from(digit - b'0') * unit;
            unit /= 10;
            self.0 = rest;
        }
        Some(micros)
    }

    fn offset(&mut self) -> Option<i64> {
        let sign = match self.0.first() {
            None => return Some(0),
            Some(b'Z' | b'z') => 0,
            Some(b'+') => 1,
            Some(b'-') => -1,
            Some(_) => return None,
        };
        self.0 = &self.0[1..];
        if sign == 0 {
            return Some(0);
        }
        let hours = self.two_digits().filter(|&h| h < 16)?;
        let minutes =
            if self.take_any(b":") || !self.0.is_empty() { self.two_digits().filter(|&m| m < 60)? } else { 0 };
        Some(sign * (hours * 60 + minutes) * 60 * MICROS_PER_SECOND)
    }
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_formats_of_sources() {
        for (text, expected) in [
            ("2015-12-10T04:08:31.909Z", "2015-12-10T04:08:31.909Z"),
            ("2026-02-08 18:30:00-05:00", "2026-02-08T23:30:00Z"),
            ("2026-02-08T18:30-0500", "2026-02-08T23:30:00Z"),
            ("2026-02-08T18:30:00.1234560000", "2026-02-08T18:30:00.123456Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("+20240-01-01T00:00:00Z", "+20240-01-01T00:00:00Z"),
            ("-0044-03-15T00:00:00Z", "-0044-03-15T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn rejects_invalid_and_inexact_texts() {
        for text in [
            "",
            "now",
            "2026-02-30T00:00:00Z",
            "2026-02-08T25:00:00Z",
            "2026-02-08T23:59:60Z",
            "2026-02-08T23:30:00.1234567Z",
            "+294277-01-01T00:00:00Z",
            "-4713-01-01",
            "20260208",
            "2026-02-08T",
            "2026-02-08T10:00:00Zx",
            "99999-01-01",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn arrival_times_keep_their_fraction() {
        let millis = |text| Timestamp::parse_epoch_seconds(text).map(|t| t.0 / 1000);
        assert_eq!(millis("1545084650.98"), Some(1_545_084_650_980));
        assert_eq!(millis("1545084650"), Some(1_545_084_650_000));
        assert_eq!(Timestamp::parse_epoch_seconds("1545084650.1234567"), None);
        assert_eq!(Timestamp::parse_epoch_seconds("-1"), None);
    }

    #[test]
    fn civil_dates_round_trip() {
        for days in (-2_000_000..2_000_000).step_by(7_919) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
