//! What the runs came to, as text and as JSON.

use serde_json::{Value as Json, json};

use super::measure::{Load, Measured, Run};
use super::subject::Subject;

/// Median, least and greatest.
struct Spread([f64; 3]);

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        Self([at(sorted.len() / 2), at(0), at(sorted.len().saturating_sub(1))])
    }

    fn text(&self, unit: &str) -> String {
        let [median, least, greatest] = self.0.map(shown);
        format!("{median} {unit} ({least}..{greatest})")
    }

    fn json(&self) -> Json {
        let [median, min, max] = self.0;
        json!({ "median": median, "min": min, "max": max })
    }
}

struct Figures {
    rate: Spread,
    cpu: Spread,
    call: Spread,
    nothing: Spread,
    copy: Spread,
    /// How many times the copy's time the plugin took, in the same round.
    times_the_copy: Spread,
}

impl Figures {
    fn of(measured: &Measured) -> Self {
        let runs = || measured.plugin.iter();
        let rate = |run: &Run| run.passed.events as f64 / run.wall.as_secs_f64();
        Self {
            rate: Spread::of(runs().map(rate)),
            cpu: Spread::of(runs().map(|run| run.cpu.as_secs_f64() * 1e6 / run.passed.events as f64)),
            call: Spread::of(runs().map(|run| run.wall.as_secs_f64() * 1e6 / run.passed.calls as f64)),
            nothing: Spread::of(measured.nothing.iter().copied()),
            copy: Spread::of(measured.copy.iter().copied()),
            times_the_copy: Spread::of(runs().zip(&measured.copy).map(|(run, copy)| copy / rate(run))),
        }
    }
}

pub fn text(subject: &Subject, load: &Load, measured: &Measured) -> String {
    let (description, figures) = (subject.plugin.description(), Figures::of(measured));
    let last = measured.plugin.last().map(|run| run.passed).unwrap_or_default();
    let mut text = format!("{} {} {}\n", subject.plugin.kind(), description.name, description.version);
    text += &match subject.plugin.kind() {
        wasmflow::plugin::PluginKind::Source => {
            format!("  {} runs of {} events, at most {} a call\n\n", measured.plugin.len(), last.events, load.count())
        }
        _ => format!(
            "  {} runs of {} events in batches of {}; bodies: {}\n\n",
            measured.plugin.len(),
            last.events,
            load.count(),
            load.bodies
        ),
    };
    text += &format!("  events           {}\n", figures.rate.text("a second"));
    text += &format!("  processor        {}\n", figures.cpu.text("s a million events"));
    text += &format!("  a call           {}\n", figures.call.text("µs"));
    text += &format!("  calls            {} a run\n", last.calls);
    text += &format!("  linear memory    {} KiB\n", last.memory_bytes / 1024);
    if last.rejected > 0 {
        text += &format!(
            "  rejected         {} of {} events: this is no measure of the work it should do\n",
            last.rejected, last.events
        );
    }
    text += "\nReferences, native, in the same rounds:\n";
    text += &format!("  copy of the bodies   {}\n", figures.copy.text("events a second"));
    text += &format!("  nothing at all       {}\n", figures.nothing.text("events a second"));
    let [median, least, greatest] = figures.times_the_copy.0;
    text + &format!("\nThe plugin takes {median:.2} times as long as the copy ({least:.2}..{greatest:.2}).\n")
}

pub fn json(subject: &Subject, load: &Load, measured: &Measured) -> Json {
    let (description, figures) = (subject.plugin.description(), Figures::of(measured));
    let last = measured.plugin.last().map(|run| run.passed).unwrap_or_default();
    json!({
        "kind": subject.plugin.kind().to_string(),
        "name": description.name,
        "version": description.version,
        "digest": format!("sha256:{}", subject.plugin.digest()),
        "runs": measured.plugin.len(),
        "batch_events": load.count(),
        "batch_bytes": load.bytes(),
        "events": last.events,
        "calls": last.calls,
        "rejected": last.rejected,
        "memory_bytes": last.memory_bytes,
        "events_per_second": figures.rate.json(),
        "cpu_seconds_per_million": figures.cpu.json(),
        "call_microseconds": figures.call.json(),
        "references": {
            "copy": { "events_per_second": figures.copy.json() },
            "nothing": { "events_per_second": figures.nothing.json() },
        },
        "times_the_copy": figures.times_the_copy.json(),
    })
}

/// Three digits that count.
fn shown(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.1}G", value / 1e9),
        v if v >= 1e6 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_its_median_and_its_ends() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).0, [2.0, 1.0, 3.0]);
        assert_eq!(Spread::of([44e6, 43e6, 45e6]).text("a second"), "44.0M a second (43.0M..45.0M)");
    }
}
