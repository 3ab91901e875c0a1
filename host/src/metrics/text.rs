//! The text that Prometheus reads.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::Snapshot;
use super::histogram::Observed;

/// The two dialects that a scraper may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Version 0.0.4: what everything reads.
    Plain,
    OpenMetrics,
}

impl Format {
    /// The dialect that an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Plain }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Everything there is to tell.
pub fn encode(snapshot: Snapshot, format: Format) -> String {
    let mut registry = Registry::with_prefix("wasmflow");
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes everything");
    match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    }
}

/// OpenMetrics names a counter's family without the `_total` of its series, and ends with a mark; 0.0.4 knows neither.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + text.len() / 50);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let family = |line: &str, lead: &str| line.strip_prefix(lead)?.split_once(' ').map(|(name, _)| name.to_owned());
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let name = match family(line, "# HELP ") {
            Some(name) if lines.peek().is_some_and(|next| is_counter(next)) => Some(name),
            _ => family(line, "# TYPE ").filter(|_| is_counter(line)),
        };
        match name {
            Some(name) => {
                let end = 7 + name.len();
                plain.extend([&line[..end], "_total", &line[end..], "\n"]);
            }
            None if line == "# EOF" => {}
            None => plain.extend([line, "\n"]),
        }
    }
    plain
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_all(&mut Families(encoder))
    }
}

/// Labels of one series, in the order of their names as metrics.md has them.
pub type Labels = Vec<(&'static str, Arc<str>)>;

/// Writes families one after the other; those without series are left out.
pub struct Families<'e>(DescriptorEncoder<'e>);

impl Families<'_> {
    pub fn counter(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (Labels, u64)>) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// A counter of seconds.
    pub fn seconds(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (Labels, f64)>) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |encoder, value| {
            encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    pub fn gauge(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (Labels, f64)>) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, series, |encoder, value| encoder.encode_gauge(&value))
    }

    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, Observed)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, series, |encoder, observed| {
            encoder.encode_histogram::<NoLabelSet>(observed.sum, observed.count, &observed.buckets, None)
        })
    }

    fn family<T>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl IntoIterator<Item = (Labels, T)>,
        write: impl Fn(&mut MetricEncoder<'_>, T) -> fmt::Result,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in series {
            match labels.is_empty() {
                true => write(&mut family, value)?,
                false => write(&mut family.encode_family(&labels)?, value)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_s_family_is_named_like_its_series_in_the_plain_format() {
        let text = "# HELP wasmflow_x Help.\n# TYPE wasmflow_x counter\nwasmflow_x_total{a=\"b\"} 1\n# HELP wasmflow_y Y.\n# TYPE wasmflow_y gauge\nwasmflow_y 2\n# EOF\n";
        assert_eq!(
            plain(text),
            "# HELP wasmflow_x_total Help.\n# TYPE wasmflow_x_total counter\nwasmflow_x_total{a=\"b\"} 1\n# HELP wasmflow_y Y.\n# TYPE wasmflow_y gauge\nwasmflow_y 2\n"
        );
    }
}
