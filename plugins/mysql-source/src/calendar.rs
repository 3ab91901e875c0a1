//! Dates and times of the server as microseconds, and back.

use mysql_async::Value;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 0001-01-01 00:00:00.
pub const LEAST_MOMENT: i64 = -719_162 * DAY;
/// -838:59:59, the end of what a TIME can hold.
pub const LEAST_SPAN: i64 = -(838 * 3600 + 59 * 60 + 59) * SECOND;

/// Zeros in a date (`2024-00-00`, which a lenient server keeps) count as ones.
pub fn moment((year, month, day): (u16, u8, u8), (hour, minute, second): (u8, u8, u8), micros: u32) -> i64 {
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    days_before(year.into(), month.max(1).into(), day.max(1).into()) * DAY + seconds * SECOND + i64::from(micros)
}

pub fn span(negative: bool, (days, hours, minutes, seconds): (u32, u8, u8, u8), micros: u32) -> i64 {
    let hours = i64::from(days) * 24 + i64::from(hours);
    let length = (hours * 3600 + i64::from(minutes) * 60 + i64::from(seconds)) * SECOND + i64::from(micros);
    if negative { -length } else { length }
}

pub fn moment_value(micros: i64) -> Value {
    let (year, month, day) = date(micros.div_euclid(DAY));
    let (hour, minute, second, part) = clock(micros.rem_euclid(DAY));
    // The hours of a day fit a byte, and the least moment is in year 1.
    Value::Date(year as u16, month as u8, day as u8, hour as u8, minute as u8, second as u8, part as u32)
}

pub fn span_value(micros: i64) -> Value {
    let (hours, minute, second, part) = clock(micros.abs());
    Value::Time(micros < 0, (hours / 24) as u32, (hours % 24) as u8, minute as u8, second as u8, part as u32)
}

pub fn write_moment(micros: i64) -> String {
    let (year, month, day) = date(micros.div_euclid(DAY));
    let (hour, minute, second, part) = clock(micros.rem_euclid(DAY));
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{part:06}")
}

pub fn write_span(micros: i64) -> String {
    let (hours, minute, second, part) = clock(micros.abs());
    format!("{}{hours:02}:{minute:02}:{second:02}.{part:06}", if micros < 0 { "-" } else { "" })
}

/// `2024-01-02`, `2024-01-02 03:04:05` or `2024-01-02T03:04:05.678`.
pub fn parse_moment(text: &str) -> Option<i64> {
    let (day, clock) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
    let mut parts = day.splitn(3, '-').map(|part| digits(part, 4));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let time = parse_span(clock)?;
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && (0..DAY).contains(&time);
    valid.then(|| days_before(year, month, day) * DAY + time)
}

/// `03:04:05`, `-838:59:59.000001`.
pub fn parse_span(text: &str) -> Option<i64> {
    let (bare, sign) = text.strip_prefix('-').map_or((text, 1), |bare| (bare, -1));
    let (clock, part) = bare.split_once('.').unwrap_or((bare, "0"));
    let mut parts = clock.splitn(3, ':').map(|part| digits(part, 3));
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let micros = digits(part, 6)? * 10i64.pow(6 - part.len() as u32);
    (minutes < 60 && seconds < 60).then_some(sign * ((hours * 3600 + minutes * 60 + seconds) * SECOND + micros))
}

fn digits(text: &str, most: usize) -> Option<i64> {
    let valid = (1..=most).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit());
    valid.then(|| text.parse().ok()).flatten()
}

fn clock(micros: i64) -> (i64, i64, i64, i64) {
    let seconds = micros / SECOND;
    (seconds / 3600, seconds / 60 % 60, seconds % 60, micros % SECOND)
}

/// The days from 1970-01-01 to a date of the Gregorian calendar. Counted in years that begin in March, so that the leap day is
/// the last of its year; 719,468 days lie between 0000-03-01 and 1970-01-01.
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The date so many days after 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_four_centuries_is_found_again() {
        let mut expected = (1800, 1, 1);
        for days in days_before(1800, 1, 1)..days_before(2201, 1, 1) {
            assert_eq!(date(days), expected);
            let (year, month, day) = expected;
            assert_eq!(days_before(year, month, day), days);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            expected = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (month, day) if day == last => (year, month + 1, 1),
                (month, day) => (year, month, day + 1),
            };
        }
        assert_eq!(days_before(1970, 1, 1), 0);
    }

    #[test]
    fn the_least_moment_is_the_first_day_of_year_one() {
        assert_eq!(write_moment(LEAST_MOMENT), "0001-01-01 00:00:00.000000");
        assert_eq!(write_span(LEAST_SPAN), "-838:59:59.000000");
    }

    #[test]
    fn fractions_are_parts_of_a_second_however_many_digits_they_have() {
        assert_eq!(parse_span("00:00:00.5"), Some(500_000));
        assert_eq!(parse_span("-00:00:01.000001"), Some(-1_000_001));
        assert_eq!(parse_moment("1970-01-02T00:00:01.25"), Some(DAY + 1_250_000));
        for wrong in ["", "24-1", "2024-13-01", "2024-01-02 25:00:00", "2024-01-02 00:00:00.1234567", "2024-01-02x"] {
            assert_eq!(parse_moment(wrong), None, "{wrong}");
        }
    }
}
