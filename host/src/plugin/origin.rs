//! What kinds of plugin there are, and where their bytes come from.

use std::fmt;
use std::path::{Path, PathBuf};

/// The three kinds of plugin, one world each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PluginKind {
    Source,
    Interceptor,
    Sink,
}

impl PluginKind {
    pub const ALL: [Self; 3] = [Self::Source, Self::Interceptor, Self::Sink];

    /// The kind's own interface in the plugin contract.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Interceptor => "interceptor",
            Self::Sink => "sink",
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.interface())
    }
}

/// Where a plugin's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PluginOrigin {
    /// Embedded in the binary.
    Standard { name: String, kind: PluginKind },
    /// A component on disk; absolute.
    File(PathBuf),
    /// A component on disk that is loaded only while it is this one.
    Pinned { path: PathBuf, digest: Digest },
}

/// SHA-256 of a plugin's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// As `plugin inspect` prints it: `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text
            .strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
        Some(Self(bytes?.try_into().ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl PluginOrigin {
    /// Of a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Standard { .. } => None,
            Self::File(path) | Self::Pinned { path, .. } => Some(path),
        }
    }
}

impl fmt::Display for PluginOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PluginOrigin::Standard { name, .. } => f.write_str(name),
            PluginOrigin::File(path) | PluginOrigin::Pinned { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_as_it_is_shown() {
        let text = format!("sha256:{}ff", "0a".repeat(31));
        assert_eq!(Digest::parse(&text).map(|digest| digest.to_string()), Some(text.clone()));
        for wrong in [
            &text[7..],
            &text[..70],
            "sha256:",
            &text.replace("ff", "fg"),
            &text.replace("0a0a", "é0a"),
            &text.replace("0a", "+a"),
        ] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }
}
