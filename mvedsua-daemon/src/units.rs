//! Quantities as people and programs write them: sizes with their unit, durations as plain numbers in JSON.
//!
//! In JSON the unit is part of a field's name (`soak_ms`), so that a reader needs no manual: a field is declared
//! `#[serde(rename = "soak_ms", with = "crate::units::millis")]`.

/// Reads `512M`, `4G`, `64k` or a number of bytes; the units are powers of 1024.
///
/// # Errors
///
/// Where it is none of these.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        digits if digits.ends_with('k') => (digits.trim_end_matches('k').to_owned(), 10),
        digits if digits.ends_with('m') => (digits.trim_end_matches('m').to_owned(), 20),
        digits if digits.ends_with('g') => (digits.trim_end_matches('g').to_owned(), 30),
        digits => (digits.to_owned(), 0),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is no size; write 512M, 4G or a number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too much"))
}

/// Reads the number of a process.
///
/// # Errors
///
/// Where it is none.
pub fn parse_pid(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .ok_or_else(|| format!("`{text}` is no process's number; `ps -e` lists them, and --exe finds one by its name"))
}

/// Reads a percentage of at least 100: `300%`, or `300`.
///
/// # Errors
///
/// Where it is none.
pub fn parse_percent(text: &str) -> Result<u32, String> {
    let digits = text.trim().strip_suffix('%').unwrap_or(text).trim();
    let number: u32 = digits.parse().map_err(|_| format!("`{text}` is no percentage; write 300% or 300"))?;
    if number < 100 {
        Err(format!(
            "{number} % is less than 100 %, so the same version would fail; write `200%` for twice the latency"
        ))
    } else {
        Ok(number)
    }
}

/// A duration as a whole number of milliseconds.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }

    /// The same where there may be none; the field needs `default` too.
    pub mod optional {
        use std::time::Duration;

        use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

        pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
        }
    }
}

/// A duration as a whole number of microseconds.
pub mod micros {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use super::*;

    #[test]
    fn a_process_has_a_number() {
        assert_eq!(parse_pid("17"), Ok(17));
        for none in ["redis", "", "0", "-1", "99999999999"] {
            assert!(parse_pid(none).is_err_and(|why| why.contains("`ps -e` lists them")), "{none}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [("512M", 512 << 20), ("4g", 4 << 30), ("64k", 65536), ("7", 7), ("1GiB", 1 << 30), ("0", 0)];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for text in ["", "M", "-1", "1T", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_are_read_with_their_sign_and_without() {
        for text in ["300%", "300 %", "300", " 300 "] {
            assert_eq!(parse_percent(text), Ok(300), "{text}");
        }
        for text in ["", "%", "99%", "-300%", "3.5%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_plain_numbers_in_json() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Times {
            #[serde(rename = "soak_ms", with = "millis")]
            soak: Duration,
            #[serde(rename = "timeout_ms", with = "millis::optional", default)]
            timeout: Option<Duration>,
            #[serde(rename = "slow_us", with = "micros")]
            slow: Duration,
        }
        let times = Times { soak: Duration::from_secs(2), timeout: None, slow: Duration::from_micros(7) };
        let json = serde_json::to_string(&times).expect("it serialises");
        assert_eq!(json, r#"{"soak_ms":2000,"timeout_ms":null,"slow_us":7}"#);
        assert_eq!(serde_json::from_str::<Times>(&json).expect("it reads"), times);
        assert_eq!(serde_json::from_str::<Times>(r#"{"soak_ms":2000,"slow_us":7}"#).expect("it reads"), times);
    }
}
