//! Replaces what a pattern finds in each body, byte for byte: nothing is decoded or encoded.

use std::ops::Range;

use wasmflow_sdk::pattern::Pattern;
use wasmflow_sdk::prelude::*;

/// What is found, and what takes its place.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Regular expression (the syntax of the Rust crate `regex`). `(?-u)` at its front lets `.` match bytes that are not
    /// UTF-8.
    pattern: Pattern,
    /// Takes the place of each match; `$1` and `${name}` stand for groups, `$$` for a dollar sign.
    #[serde(default)]
    replacement: String,
}

/// The interceptor.
pub struct SearchReplace {
    pattern: Pattern,
    replacement: Vec<u8>,
    /// Whether the replacement names groups: finding them costs several times as much as finding the match.
    expands: bool,
}

impl Interceptor for SearchReplace {
    type Config = Config;
    const ABOUT: &'static str = "Replaces what a pattern finds in each body.";

    fn open(config: Config) -> Result<Self, Failure> {
        let expands = config.replacement.contains('$');
        Ok(SearchReplace { pattern: config.pattern, replacement: config.replacement.into_bytes(), expands })
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        let before = batch.bodies();
        // Nothing is written as long as nothing is found.
        let Some(first) = before.iter().position(|body| self.pattern.is_match(body)) else { return Ok(()) };
        let mut after = PackedBuilder::with_capacity(before.count(), before.data.len() + before.data.len() / 8);
        after.push_first(first, &before);
        for body in before.iter().skip(first) {
            after.push_with(|out| self.replace(body, out));
        }
        batch.set_bodies(&after.finish())?;
        Ok(())
    }
}

wasmflow_sdk::export_interceptor!(SearchReplace);

impl SearchReplace {
    /// Appends the body with every match replaced.
    fn replace(&self, body: &[u8], out: &mut Vec<u8>) {
        match self.expands {
            true => {
                let matches = self.pattern.captures_iter(body).map(|groups| (groups.get_match().range(), groups));
                splice(body, out, matches, |groups, out| groups.expand(&self.replacement, out))
            }
            false => {
                let matches = self.pattern.find_iter(body).map(|found| (found.range(), ()));
                splice(body, out, matches, |(), out| append(out, &self.replacement))
            }
        }
    }
}

/// Appends `body` with what `replace` writes in the place of each range.
fn splice<M>(
    body: &[u8],
    out: &mut Vec<u8>,
    matches: impl Iterator<Item = (Range<usize>, M)>,
    replace: impl Fn(M, &mut Vec<u8>),
) {
    let mut copied = 0;
    for (range, found) in matches {
        append(out, &body[copied..range.start]);
        replace(found, out);
        copied = range.end;
    }
    append(out, &body[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(pattern: &str, replacement: &str, body: &[u8]) -> Vec<u8> {
        let config = Config { pattern: pattern.parse().unwrap(), replacement: replacement.into() };
        let mut batch = Batch::from_bodies([body]);
        SearchReplace::open(config).unwrap().intercept(&mut batch).unwrap();
        batch.bodies().get(0).to_vec()
    }

    #[test]
    fn every_match_is_replaced() {
        assert_eq!(replaced("a+", "-", b"baab a"), b"b-b -");
        assert_eq!(replaced("a", "", b"banana"), b"bnn");
        assert_eq!(replaced("x", "-", b"banana"), b"banana");
    }

    #[test]
    fn bodies_in_front_of_the_first_match_stay_as_they_are() {
        let config = Config { pattern: "b".parse().unwrap(), replacement: "-".into() };
        let mut batch = Batch::from_bodies(["a", "", "ab", "a"]);
        SearchReplace::open(config).unwrap().intercept(&mut batch).unwrap();
        assert_eq!(batch.bodies().iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"a-", b"a"]);
    }

    #[test]
    fn groups_are_put_in_by_number_and_name() {
        assert_eq!(replaced(r"(\w+)=(?<value>\w+)", "${value}:$1", b"k=v; a=b"), b"v:k; b:a");
        assert_eq!(replaced("a", "$$", b"a"), b"$");
    }

    #[test]
    fn an_empty_match_is_replaced_too() {
        assert_eq!(replaced("^", "> ", b"line"), b"> line");
        assert_eq!(replaced("x*", "-", b"ab"), b"-a-b-");
        assert_eq!(replaced("$", "!", b""), b"!");
    }

    #[test]
    fn bytes_that_are_not_text_stay_as_they_are() {
        assert_eq!(replaced("b", "B", b"\xffb\x00"), b"\xffB\x00");
        assert_eq!(replaced(r"(?-u)\xff", "", b"\xffb"), b"b");
    }
}
