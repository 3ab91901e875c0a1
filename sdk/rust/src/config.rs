//! Config values with units, and the way a stage's `config` table becomes a plugin's struct.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_path_to_error::Segment;

use crate::describe::Problem;

/// Reads the config that the host passes on.
///
/// # Errors
///
/// The first misfit, with its place as a JSON Pointer.
pub(crate) fn parse<C: DeserializeOwned>(json: &str) -> Result<C, Problem> {
    let json = if json.trim().is_empty() { "{}" } else { json };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| Problem {
        path: pointer(error.path()),
        message: without_place(&error.inner().to_string()).to_owned(),
    })
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// serde_json ends its messages with a place in a text that the operator has never seen.
fn without_place(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text)
}

/// A number of bytes, written with its unit: `"64KiB"`, `"1MB"`, `"512B"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time, written with its unit: `"500ms"`, `"30s"`, `"1h 30m"`; `"0"` needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

/// Largest first, so that the longest exact unit is the one that is written.
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];
/// In nanoseconds, largest first.
const TIMES: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const SIZE_PATTERN: &str = r"^[0-9]+ ?(B|KB|KiB|MB|MiB|GB|GiB)$";
const TIME_PATTERN: &str = r"^(0|[0-9]+ ?(ns|us|ms|s|m|h|d)( ?[0-9]+ ?(ns|us|ms|s|m|h|d))*)$";
const SIZE_HINT: &str = "a size is a whole number and a unit (B, KB, KiB, MB, MiB, GB, GiB), as in \"64KiB\"";
const TIME_HINT: &str =
    "a duration is whole numbers with units (ns, us, ms, s, m, h, d), as in \"500ms\" or \"1h 30m\"";

impl ByteSize {
    /// The bytes; what does not fit the memory of a guest is cut to its greatest number.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match leading_amount(text, &SIZES) {
            Some((size, "")) => Ok(ByteSize(size)),
            _ => Err(format!("`{text}` is no size: {SIZE_HINT}")),
        }
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Duration(std::time::Duration::ZERO));
        }
        let misfit = || format!("`{text}` is no duration: {TIME_HINT}");
        let (mut total, mut rest) = leading_amount(text, &TIMES).ok_or_else(misfit)?;
        while !rest.is_empty() {
            let (more, behind) = leading_amount(rest.trim_start(), &TIMES).ok_or_else(misfit)?;
            (total, rest) = (total.checked_add(more).ok_or_else(misfit)?, behind);
        }
        Ok(Duration(std::time::Duration::from_nanos(total)))
    }
}

/// One number and unit at the front of `text`, in the smallest unit, and what stands behind them.
fn leading_amount<'t>(text: &'t str, units: &[(&str, u64)]) -> Option<(u64, &'t str)> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let rest = text[digits..].strip_prefix(' ').unwrap_or(&text[digits..]);
    let unit_end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (_, factor) = units.iter().find(|(unit, _)| *unit == &rest[..unit_end])?;
    Some((number.checked_mul(*factor)?, &rest[unit_end..]))
}

fn write_amount(formatter: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => write!(formatter, "{}{unit}", amount / factor),
        None => write!(formatter, "0{}", units[units.len() - 1].0),
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(formatter, self.0, &SIZES)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(formatter, u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), &TIMES)
    }
}

impl std::ops::Deref for Duration {
    type Target = std::time::Duration;

    fn deref(&self) -> &std::time::Duration {
        &self.0
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> std::time::Duration {
        duration.0
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Duration {
        Duration(duration)
    }
}

macro_rules! written_with_unit {
    ($type:ident, $pattern:expr, $hint:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $hint })
            }
        }
    };
}

written_with_unit!(ByteSize, SIZE_PATTERN, SIZE_HINT);
written_with_unit!(Duration, TIME_PATTERN, TIME_HINT);

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<u64> {
        text.parse().ok().map(|ByteSize(bytes)| bytes)
    }

    fn milliseconds(text: &str) -> Option<u128> {
        text.parse::<Duration>().ok().map(|duration| duration.as_millis())
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("1 MB"), Some(1_000_000));
        assert_eq!(size("0B"), Some(0));
        for wrong in ["", "64", "KiB", "64kib", "-1B", "1.5MiB", "1KiB2B", "99999999999GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_need_a_unit_unless_they_are_zero() {
        assert_eq!(milliseconds("500ms"), Some(500));
        assert_eq!(milliseconds("1h 30m"), Some(5_400_000));
        assert_eq!(milliseconds("1m30s"), Some(90_000));
        assert_eq!(milliseconds("0"), Some(0));
        for wrong in ["", "5", "ms", "5 minutes", "-1s", "1s x", "99999999999d"] {
            assert_eq!(milliseconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        for bytes in [0, 1, 1000, 1024, 65_536, 1 << 30, 1025] {
            assert_eq!(size(&ByteSize(bytes).to_string()), Some(bytes));
        }
        let duration = Duration(std::time::Duration::from_millis(1500));
        assert_eq!(duration.to_string(), "1500ms");
    }

    #[test]
    fn a_misfit_is_named_by_its_pointer() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            #[expect(dead_code, reason = "only read from text")]
            wait: Duration,
        }
        type Config = std::collections::BTreeMap<String, Vec<Inner>>;
        let problem = parse::<Config>(r#"{ "a/b": [ { "wait": "5" } ] }"#).unwrap_err();
        assert_eq!(problem.path, "/a~1b/0/wait");
        assert!(problem.message.starts_with("`5` is no duration"), "{}", problem.message);
        assert!(!problem.message.contains(" at line "));
        assert_eq!(parse::<Config>("").unwrap().len(), 0);
    }
}
