//! Names, numbers, times and sizes as text. Everything that comes from outside passes [`name`] or [`prose`].

use maud::{Markup, html};

use crate::timestamp::Timestamp;

/// A longer name is cut off.
const NAME_CHARS_MAX: usize = 60;
/// A longer message is cut off.
const PROSE_CHARS_MAX: usize = 240;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A name, isolated from the direction of the text around it, without control characters, and cut off if it is long.
pub fn name(text: &str) -> Markup {
    html! { bdi { (cleaned(text, NAME_CHARS_MAX)) } }
}

/// A message, likewise.
pub fn prose(text: &str) -> Markup {
    html! { bdi { (cleaned(text, PROSE_CHARS_MAX)) } }
}

/// A name for an attribute, which has no markup.
pub fn plain(text: &str) -> String {
    cleaned(text, NAME_CHARS_MAX)
}

/// Text without characters that are invisible or change the direction of others.
fn cleaned(text: &str, chars_max: usize) -> String {
    let is_visible = |c: &char| {
        let directs =
            matches!(*c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}');
        let breaks = matches!(*c, '\u{2028}' | '\u{2029}');
        let marks = matches!(*c, AGE_START | AGE_END);
        !(c.is_control() || directs || breaks || marks)
    };
    let mut kept: String = text.chars().filter(is_visible).take(chars_max + 1).collect();
    if kept.chars().count() > chars_max {
        kept = kept.chars().take(chars_max).collect();
        kept.push('…');
    }
    kept
}

/// A whole number with separators.
pub fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if number < 0 { format!("−{grouped}") } else { grouped }
}

/// A number rounded to a whole one; a dash for what is not a number.
pub fn amount(number: f64) -> String {
    if number.is_finite() && number.abs() < 9e18 { count(number.round() as i64) } else { "—".to_owned() }
}

/// An exact figure, rounded for display, with its sign.
pub fn signed_amount(number: f64) -> String {
    if number.round() > 0.0 { format!("+{}", amount(number)) } else { amount(number) }
}

/// An exact number with separators and at most two decimals; other text as it is.
pub fn decimal(exact: &str) -> String {
    let (digits, decimals) = exact.split_once('.').unwrap_or((exact, ""));
    if decimals.trim_end_matches('0').is_empty() {
        return digits.parse().map_or_else(|_| plain(exact), count);
    }
    let Ok(number) = exact.parse::<f64>() else { return plain(exact) };
    let hundredths = (number * 100.0).round();
    if !hundredths.is_finite() || hundredths.abs() >= 9e15 {
        return plain(exact);
    }
    let hundredths = hundredths as i64;
    let sign = if hundredths < 0 { "−" } else { "" };
    let whole = i64::try_from(hundredths.unsigned_abs() / 100).unwrap_or(i64::MAX);
    format!("{sign}{}.{:02}", count(whole), hundredths.unsigned_abs() % 100)
}

/// A share of one in percent; other text as it is.
pub fn percent(exact: &str) -> String {
    match exact.parse::<f64>() {
        Ok(share) if share.is_finite() => format!("{:.1} %", share * 100.0).replace('-', "−"),
        Ok(_) | Err(_) => plain(exact),
    }
}

/// A duration in the unit that fits.
pub fn duration(micros: i64) -> String {
    let micros = micros.max(0);
    match micros {
        0..10_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        _ if micros < MINUTE => format!("{} s", micros / SECOND),
        _ if micros < HOUR => format!("{} min", micros / MINUTE),
        _ if micros < DAY => format!("{} h {} min", micros / HOUR, micros / MINUTE % 60),
        _ => format!("{} d {} h", micros / DAY, micros / HOUR % 24),
    }
}

/// How long ago something was, in whole seconds; the page's script keeps it up to date.
pub fn age(micros: i64) -> String {
    let micros = micros.max(0);
    if micros < MINUTE { format!("{} s ago", micros / SECOND) } else { format!("{} ago", duration(micros)) }
}

/// The marks around what changes with every second. They are removed before a page is sent, and what is between them before
/// sections are compared.
pub const AGE_START: char = '\u{e000}';
/// See [`AGE_START`].
pub const AGE_END: char = '\u{e001}';

/// A time of day with how long ago it was; with the date if it is not today's.
pub fn time(at: Timestamp, now: Timestamp) -> Markup {
    html! { time datetime=(at) { (clock(at, now)) } " " (ago(at, now)) }
}

/// How long ago a time was.
pub fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let text = age(now.0.saturating_sub(at.0));
    html! { span.ago data-at=(at.0 / 1000) { (AGE_START) (text) (AGE_END) } }
}

/// A time in UTC to the second, without the date if it is today's.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let text = at.to_string();
    let second = text.split('.').next().unwrap_or_default().trim_end_matches('Z');
    let (date, time) = second.split_once('T').unwrap_or((second, ""));
    let is_today = now.to_string().starts_with(date);
    if is_today { format!("{time} UTC") } else { format!("{date} {time} UTC") }
}

/// The minute of a time in UTC.
pub fn clock_minute(at: Timestamp) -> String {
    let text = at.to_string();
    text.split('T').nth(1).map(|time| time.chars().take(5).collect()).unwrap_or_default()
}

/// A size in the unit that fits.
pub fn bytes(bytes: i64) -> String {
    let mut value = bytes.max(0) as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1_000.0 {
            return if value < 10.0 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1_000.0;
    }
    format!("{value:.1} TB")
}

/// The plural of a word that follows a number.
pub fn plural(number: i64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{} {word}s", count(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_without_control_characters_and_not_long() {
        let hostile = "<script>alert(1)</script>\u{202e}evil\u{0}\r\n\u{7}";
        assert_eq!(name(hostile).into_string(), "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;evil</bdi>");
        assert_eq!(name(&"x".repeat(500)).into_string().chars().filter(|c| *c == 'x').count(), NAME_CHARS_MAX);
        assert_eq!(name("a\" onload=\"x").into_string(), "<bdi>a&quot; onload=&quot;x</bdi>");
    }

    #[test]
    fn numbers_have_separators_and_units() {
        let counts = [0, 12, 999, 1_000, 84_112_903, -556_820].map(count);
        assert_eq!(counts, ["0", "12", "999", "1,000", "84,112,903", "−556,820"]);
        assert_eq!([f64::NAN, f64::INFINITY, 1e300, 12.5].map(amount), ["—", "—", "—", "13"]);
        assert_eq!([0.2, 703_003.4, -1.0].map(signed_amount), ["0", "+703,003", "−1"]);
        assert_eq!(
            [0, 512, 8_192, 2_400_000_000, 21_000_000_000].map(bytes),
            ["0 B", "512 B", "8.2 kB", "2.4 GB", "21 GB"]
        );
        let durations = [-5, 1_234_567, 59_900_000, 420_000_000, 6_240_000_000, 90_000_000_000].map(duration);
        assert_eq!(durations, ["0.0 s", "1.2 s", "59 s", "7 min", "1 h 44 min", "1 d 1 h"]);
    }

    #[test]
    fn exact_numbers_are_rounded_for_display() {
        let shown =
            ["1234567", "-1234.5", "0.004", "-0.006", "12.00", "1e400", "NaN", "99999999999999999999.5"].map(decimal);
        let expected = ["1,234,567", "−1,234.50", "0.00", "−0.01", "12", "1e400", "NaN", "99999999999999999999.5"];
        assert_eq!(shown, expected);
        assert_eq!(["0.1234", "-0.5", "1", "NaN"].map(percent), ["12.3 %", "−50.0 %", "100.0 %", "NaN"]);
    }

    #[test]
    fn times_are_in_utc_and_have_a_date_unless_it_is_today() {
        let at = Timestamp::parse("2026-02-08T21:14:07.5Z").unwrap();
        let later = Timestamp::parse("2026-02-09T00:00:00Z").unwrap();
        assert_eq!(clock(at, at), "21:14:07 UTC");
        assert_eq!(clock(at, later), "2026-02-08 21:14:07 UTC");
        assert_eq!(clock_minute(at), "21:14");
    }
}
