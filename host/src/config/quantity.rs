//! Sizes and durations as people write them: a number and a unit, always.

use std::time::Duration;

/// Units with how many of the base unit (bytes, microseconds) each has; the first spelling is the one we print.
type Units = &'static [(&'static [&'static str], u64)];

const SIZES: Units = &[
    (&["TiB"], 1 << 40),
    (&["GiB"], 1 << 30),
    (&["MiB"], 1 << 20),
    (&["KiB"], 1 << 10),
    (&["TB"], 1_000_000_000_000),
    (&["GB"], 1_000_000_000),
    (&["MB"], 1_000_000),
    (&["KB", "kB"], 1_000),
    (&["B"], 1),
];

const DURATIONS: Units = &[
    (&["d"], 86_400_000_000),
    (&["h"], 3_600_000_000),
    (&["min", "m"], 60_000_000),
    (&["s"], 1_000_000),
    (&["ms"], 1_000),
    (&["us"], 1),
];

/// Why a text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantityError {
    NotANumber,
    Negative,
    MissingUnit,
    UnknownUnit,
    Overflow,
}

/// Bytes.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    parse(text, SIZES)
}

pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    parse(text, DURATIONS).map(Duration::from_micros)
}

/// The same size in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    show(bytes, SIZES)
}

pub fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), DURATIONS)
}

/// `"1 KiB"` and `"1.5MiB"` are numbers with units; exponents, signs and compounds are not.
fn parse(text: &str, units: Units) -> Result<u64, QuantityError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('-') {
        return Err(if starts_with_digit(rest) { QuantityError::Negative } else { QuantityError::NotANumber });
    }
    if !starts_with_digit(text) {
        return Err(QuantityError::NotANumber);
    }
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim();
    if unit.is_empty() {
        return Err(QuantityError::MissingUnit);
    }
    let known = units.iter().find(|(spellings, _)| spellings.contains(&unit));
    let (_, factor) = known.ok_or(QuantityError::UnknownUnit)?;
    scale(&number.replace('_', ""), *factor)
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// Whole numbers are exact; a fraction is cut to the base unit.
fn scale(number: &str, factor: u64) -> Result<u64, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::NotANumber);
    }
    let whole: u64 = whole.parse().map_err(|_| QuantityError::Overflow)?;
    let fraction: f64 = format!("0.{fraction}").parse().unwrap_or(0.0);
    let part = (fraction * factor as f64) as u64;
    whole.checked_mul(factor).and_then(|base| base.checked_add(part)).ok_or(QuantityError::Overflow)
}

fn show(amount: u64, units: Units) -> String {
    let fits = units.iter().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    let (spellings, factor) = fits.unwrap_or(&units[units.len() - 1]);
    format!("{}{}", amount / factor, spellings[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("1.5 KiB"), Ok(1536));
        assert_eq!(parse_size("1_000B"), Ok(1000));
        assert_eq!(parse_size("10"), Err(QuantityError::MissingUnit));
        assert_eq!(parse_size("10 potatoes"), Err(QuantityError::UnknownUnit));
        assert_eq!(parse_size("-1MiB"), Err(QuantityError::Negative));
        assert_eq!(parse_size("99999999999 GiB"), Err(QuantityError::Overflow));
        assert_eq!(parse_size("much"), Err(QuantityError::NotANumber));
        assert_eq!(parse_size("1.2.3MiB"), Err(QuantityError::NotANumber));
        assert_eq!(parse_size(""), Err(QuantityError::NotANumber));
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("0ms"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("5"), Err(QuantityError::MissingUnit));
        assert_eq!(parse_duration("5 seconds"), Err(QuantityError::UnknownUnit));
    }

    #[test]
    fn a_quantity_is_shown_in_the_largest_unit_that_divides_it() {
        assert_eq!(show_size(16 << 20), "16MiB");
        assert_eq!(show_size(1025), "1025B");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0us");
    }
}
