//! A line of the table: what was measured, the figure, and its target.

use std::fmt;
use std::time::Duration;

use super::median;

/// A measured figure. The table and the README's summary both print it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Figure {
    /// The rates of both sides, in rows per second.
    Rates {
        /// Millstream's.
        ours: f64,
        /// The raw counterpart's.
        raw: f64,
    },
    /// A load without a counterpart.
    Load {
        /// In rows per second.
        rate: f64,
        /// How long it took.
        seconds: f64,
    },
    /// A single value.
    Value {
        /// In its unit.
        value: f64,
        /// The unit, as it is printed.
        unit: &'static str,
    },
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rates { ours, raw } => {
                let (ours, raw, ratio) = (grouped(*ours), grouped(*raw), ours / raw);
                write!(formatter, "{ours} rows/s; raw {raw} rows/s; ratio {ratio:.2}")
            }
            Self::Load { rate, seconds } => write!(formatter, "{} rows/s, {seconds:.0} s", grouped(*rate)),
            Self::Value { value, unit } => write!(formatter, "{value:.1} {unit}"),
        }
    }
}

/// A number without decimals, with commas between groups of three digits.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One line of the table.
pub struct Line {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: Figure,
    /// The target, and whether it is met.
    pub target: String,
}

impl Line {
    /// A rate and its ratio to the raw counterpart's.
    pub fn ratio(what: &str, rows: u64, ours: &mut [Duration], raw: &mut [Duration], target: Option<f64>) -> Self {
        let rate = |times: &mut [Duration]| rows as f64 / median(times).as_secs_f64();
        let (ours, raw) = (rate(ours), rate(raw));
        let target = target.map(|target| format!("≥ {target} {}", mark(ours / raw >= target))).unwrap_or_default();
        Self { what: what.to_owned(), figure: Figure::Rates { ours, raw }, target }
    }

    /// A figure that is to stay below a limit.
    pub fn at_most(what: &str, value: f64, unit: &'static str, limit: f64) -> Self {
        let target = format!("≤ {limit} {unit} {}", mark(value <= limit));
        Self { what: what.to_owned(), figure: Figure::Value { value, unit }, target }
    }
}

fn mark(reached: bool) -> char {
    if reached { '✓' } else { '✗' }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "| {} | {} | {} |", self.what, self.figure, self.target)
    }
}
