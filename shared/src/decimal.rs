//! Exact decimal numbers: parsed from text once, then converted to the PostgreSQL type of a column.
//!
//! Nothing passes through floating point. A value that a type cannot hold digit for digit does not fit.
//!
//! No crate is used: `rust_decimal` holds 28 digits, `numeric` 131,072. `bigdecimal` has no such limit, but converts
//! every number to a binary integer and back, and adds `num-bigint` to every function; [`from_twos_complement`], which
//! `num-bigint` could replace, is 40 lines.

/// PostgreSQL's `numeric` holds up to 131,072 digits before and 16,383 after the point:
/// <https://www.postgresql.org/docs/current/datatype-numeric.html>.
const INTEGER_DIGITS_MAX: i64 = 131_072;
const FRACTION_DIGITS_MAX: i64 = 16_383;

/// The maximum size of a binary number, about 10,000 digits. Reading takes quadratic time, and no source has longer
/// ones.
const UNSCALED_BYTES_MAX: usize = 4_096;

/// A number: sign, significant digits without zeros at either end, and the position of the decimal point.
#[derive(Debug, PartialEq)]
pub struct Decimal<'a> {
    negative: bool,
    /// The digits as text, which may contain a decimal point.
    mantissa: &'a [u8],
    /// How many of the significant digits precede the decimal point; negative for leading zeros after it.
    exponent: i64,
    /// The number of significant digits.
    digits: usize,
}

impl<'a> Decimal<'a> {
    /// Parses a number such as `-12.50e3`; returns `None` if it is not a JSON number. Unlike in JSON, leading zeros and
    /// a leading `+` are allowed.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (negative, text) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let exponent_at = text.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at(exponent_at);
        let exponent = if exponent.is_empty() { 0 } else { parse_exponent(&exponent[1..])? };
        let whole = mantissa.iter().position(|&b| b == b'.').unwrap_or(mantissa.len());
        let fraction = mantissa.get(whole + 1..).unwrap_or_default();
        let valid = whole > 0 && mantissa[..whole].iter().chain(fraction).all(u8::is_ascii_digit);
        if !valid || (whole + 1 == mantissa.len()) {
            return None;
        }
        let zeros = mantissa.iter().take_while(|b| matches!(b, b'0' | b'.')).count();
        let leading = zeros - usize::from(zeros > whole);
        let end = mantissa.len() - mantissa.iter().rev().take_while(|b| matches!(b, b'0' | b'.')).count();
        if zeros >= end {
            return Some(Self { negative: false, mantissa: &[], exponent: 0, digits: 0 });
        }
        let significant = &mantissa[zeros..end];
        let digits = significant.iter().filter(|b| b.is_ascii_digit()).count();
        let point = i64::try_from(whole).ok()? - i64::try_from(leading).ok()?;
        Some(Self { negative, mantissa: significant, exponent: point.checked_add(exponent)?, digits })
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.mantissa.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0')
    }

    /// The number of significant digits after the decimal point.
    fn scale(&self) -> i64 {
        (self.digits as i64 - self.exponent).max(0)
    }

    /// The value, if it is a whole number of at most 38 digits.
    pub fn to_integer(&self) -> Option<i128> {
        if self.scale() > 0 || self.exponent > 38 {
            return None;
        }
        let zeros = u32::try_from(self.exponent - self.digits as i64).ok()?;
        let magnitude = self.digits().fold(0i128, |sum, digit| sum * 10 + i128::from(digit));
        let magnitude = magnitude.checked_mul(10i128.checked_pow(zeros)?)?;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// Whether `numeric(precision, scale)` holds the value exactly; without a modifier, whether `numeric` does.
    pub fn fits_numeric(&self, modifier: Option<(i64, i64)>) -> bool {
        let (integer, fraction) = modifier.map_or((INTEGER_DIGITS_MAX, FRACTION_DIGITS_MAX), |(p, s)| (p - s, s));
        self.digits == 0 || (self.exponent <= integer && self.scale() <= fraction)
    }

    /// Appends PostgreSQL's binary `numeric`: groups of four decimal digits. The value must fit; see
    /// [`fits_numeric`](Self::fits_numeric).
    pub fn write_numeric(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        let lead = self.exponent.rem_euclid(4);
        let weight = self.exponent.div_euclid(4) - i64::from(lead == 0);
        // The first group holds `lead` digits (or four); the last one is padded with zeros.
        let mut missing_digits = if lead == 0 { 4 } else { lead };
        let (mut group, mut groups) = (0u16, 0u16);
        for digit in self.digits() {
            group = group * 10 + u16::from(digit);
            missing_digits -= 1;
            if missing_digits == 0 {
                out.extend_from_slice(&group.to_be_bytes());
                (group, groups, missing_digits) = (0, groups + 1, 4);
            }
        }
        if missing_digits < 4 && self.digits > 0 {
            for _ in 0..missing_digits {
                group *= 10;
            }
            out.extend_from_slice(&group.to_be_bytes());
            groups += 1;
        }
        let sign: u16 = if self.negative { 0x4000 } else { 0 };
        let weight = if self.digits == 0 { 0 } else { weight as i16 };
        out[start..start + 2].copy_from_slice(&groups.to_be_bytes());
        out[start + 2..start + 4].copy_from_slice(&weight.to_be_bytes());
        out[start + 4..start + 6].copy_from_slice(&sign.to_be_bytes());
        out[start + 6..start + 8].copy_from_slice(&(self.scale() as u16).to_be_bytes());
    }

    /// The nearest double, if printing it gives the same digits, so that nothing is lost.
    pub fn to_f64_exact(&self) -> Option<f64> {
        let value: f64 = self.canonical().parse().ok().filter(|v: &f64| v.is_finite())?;
        let printed = format!("{value:e}");
        (Decimal::parse(&printed)?.canonical() == self.canonical()).then_some(value)
    }

    /// The nearest single-precision number, under the same condition.
    pub fn to_f32_exact(&self) -> Option<f32> {
        let value: f32 = self.canonical().parse().ok().filter(|v: &f32| v.is_finite())?;
        let printed = format!("{value:e}");
        (Decimal::parse(&printed)?.canonical() == self.canonical()).then_some(value)
    }

    /// `0.DIGITSeEXPONENT`: one text per value.
    fn canonical(&self) -> String {
        let digits: String = self.digits().map(|digit| char::from(digit + b'0')).collect();
        format!("{}0.{digits}0e{}", if self.negative { "-" } else { "" }, self.exponent)
    }
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Twelve digits already exceed every range; more could overflow.
    let significant = digits.iter().skip_while(|&&b| b == b'0').take(12);
    Some(sign * significant.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// The length of the text that PostgreSQL writes for a JSON number: without an exponent, and with as many digits as its exponent
/// says. `None` if `numeric` cannot hold it.
pub fn plain_text_bytes(mantissa: &str, exponent: &str) -> Option<usize> {
    let exponent = parse_exponent(exponent.as_bytes())?;
    let (sign, digits) = mantissa.strip_prefix('-').map_or((0, mantissa), |digits| (1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0').len() as i64;
    let (integer, scale) = (whole + exponent, (fraction.len() as i64 - exponent).max(0));
    let point = i64::from(scale > 0);
    let is_numeric = integer <= INTEGER_DIGITS_MAX && scale <= FRACTION_DIGITS_MAX;
    is_numeric.then(|| usize::try_from(sign + integer.max(1) + point + scale).ok()).flatten()
}

/// The decimal text of a big-endian two's complement number with `scale` digits after the decimal point. Returns `None`
/// for more than 4,096 bytes, a negative scale, or a scale that `numeric` does not allow.
pub fn from_twos_complement(bytes: &[u8], scale: i64) -> Option<String> {
    let scale = usize::try_from(scale).ok().filter(|_| (0..=FRACTION_DIGITS_MAX).contains(&scale))?;
    if bytes.len() > UNSCALED_BYTES_MAX {
        return None;
    }
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut magnitude: Vec<u8> = bytes.iter().map(|byte| if negative { !byte } else { *byte }).collect();
    if negative {
        // The magnitude is the complement plus one. The sum does not overflow, even for 0x80: its complement is 0x7f.
        for byte in magnitude.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
    }
    let digits = decimal_digits(&magnitude);
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{}{whole}{point}{fraction}", if negative { "-" } else { "" }))
}

/// The decimal digits of a big-endian number, in groups of nine.
fn decimal_digits(bytes: &[u8]) -> String {
    const GROUP: u64 = 1_000_000_000;
    let mut groups: Vec<u64> = vec![0];
    for byte in bytes {
        let mut carry = u64::from(*byte);
        for group in &mut groups {
            let sum = *group * 256 + carry;
            (*group, carry) = (sum % GROUP, sum / GROUP);
        }
        if carry > 0 {
            groups.push(carry);
        }
    }
    let (last, rest) = groups.split_last().map_or((0, &[][..]), |(last, rest)| (*last, rest));
    rest.iter().rev().fold(last.to_string(), |digits, group| format!("{digits}{group:09}"))
}

/// Formats PostgreSQL's binary `numeric` as text, to print a plan.
pub fn format_numeric(bytes: &[u8]) -> Option<String> {
    let read_i16 = |at: usize| Some(i64::from(i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let (groups, weight, sign, scale) = (read_i16(0)?, read_i16(2)?, read_i16(4)?, usize::try_from(read_i16(6)?).ok()?);
    // The group with weight 10000^power.
    let group = |power: i64| match weight - power {
        index if (0..groups).contains(&index) => read_i16(8 + 2 * index as usize),
        _ => Some(0),
    };
    let whole: String =
        (0..=weight.max(0)).rev().map(|power| Some(format!("{:04}", group(power)?))).collect::<Option<_>>()?;
    let fraction: String =
        (1..=scale.div_ceil(4) as i64).map(|power| Some(format!("{:04}", group(-power)?))).collect::<Option<_>>()?;
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{}{whole}{point}{}", if sign == 0x4000 { "-" } else { "" }, &fraction[..scale]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        let mut bytes = Vec::new();
        Decimal::parse(text).unwrap().write_numeric(&mut bytes);
        format_numeric(&bytes).unwrap()
    }

    #[test]
    fn numeric_is_exact() {
        for (text, expected) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
            ("-99.50", "-99.5"),
            ("0.00012", "0.00012"),
            ("1e5", "100000"),
            ("123.456e-7", "0.0000123456"),
            ("10000", "10000"),
            ("1.0001", "1.0001"),
            ("007", "7"),
        ] {
            assert_eq!(round_trip(text), expected, "{text}");
        }
    }

    #[test]
    fn only_numbers_are_numbers() {
        for text in ["", "-", ".5", "5.", "1e", "1e+", "0x10", "NaN", "Infinity", "1_000", " 1", "1.2.3"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_fit_integers_and_others_do_not() {
        let integer = |text| Decimal::parse(text).unwrap().to_integer();
        assert_eq!(integer("3804086584686624768"), Some(3_804_086_584_686_624_768));
        assert_eq!(integer("-12.000"), Some(-12));
        assert_eq!(integer("1.5e1"), Some(15));
        assert_eq!(integer("1.55e1"), None);
        assert_eq!(integer("1e999999999999999999"), None);
    }

    #[test]
    fn binary_numbers_are_read_digit_for_digit() {
        for (bytes, scale, text) in [
            (&[][..], 0, Some("0")),
            (&[0x7f], 2, Some("1.27")),
            (&[0x80], 0, Some("-128")),
            (&[0xff], 3, Some("-0.001")),
            (&[0xff, 0x00], 1, Some("-25.6")),
            (&[0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 0, Some("18446744073709551615")),
            (&[0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], 18, Some("18.446744073709551616")),
            (&[1], -1, None),
            (&[1], 16_384, None),
            (&[1; 4_097], 0, None),
        ] {
            assert_eq!(from_twos_complement(bytes, scale).as_deref(), text, "{bytes:?} {scale}");
        }
    }

    #[test]
    fn declared_precision_is_a_limit_not_a_rounding() {
        let fits = |text| Decimal::parse(text).unwrap().fits_numeric(Some((12, 2)));
        assert!(fits("9999999999.99") && fits("0.10") && fits("0"));
        assert!(!fits("0.001") && !fits("10000000000") && !fits("1e12"));
        assert!(!Decimal::parse("1e200000").unwrap().fits_numeric(None));
    }

    #[test]
    fn doubles_are_accepted_only_if_their_text_round_trips() {
        let double = |text| Decimal::parse(text).unwrap().to_f64_exact();
        assert_eq!(double("0.1"), Some(0.1));
        assert_eq!(double("12345678901234567890"), None);
        assert_eq!(double("1e400"), None);
        assert_eq!(double("0"), Some(0.0));
    }
}
