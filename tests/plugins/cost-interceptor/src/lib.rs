//! An interceptor that does one thing of the contract to each batch and nothing else: what that costs is measured.

use std::hint::black_box;

use wasmflow_sdk::prelude::*;

/// What is done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    mode: Mode,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Nothing.
    Empty,
    /// Sets a header that is the same for all.
    Header,
    /// Asks for the bodies.
    Read,
    /// Puts a byte before and behind each body.
    Rewrite,
    /// As `read`, in row form.
    ReadRows,
    /// As `rewrite`, in row form.
    RewriteRows,
}

/// The interceptor.
pub struct Cost(Mode);

impl Interceptor for Cost {
    type Config = Config;
    const ABOUT: &'static str = "Does one thing to each batch.";

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Cost(config.mode))
    }

    fn intercept(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        match self.0 {
            Mode::Empty => {}
            Mode::Header => batch.set_header("site", Column::constant("north"))?,
            Mode::Read => drop(black_box(batch.bodies())),
            Mode::Rewrite => batch.map_bodies_adding(2, |body, out| {
                out.push(b'<');
                out.extend_from_slice(body);
                out.push(b'>');
            })?,
            Mode::ReadRows => drop(black_box(batch.events())),
            Mode::RewriteRows => {
                let mut events = batch.events();
                for event in &mut events {
                    event.body.insert(0, b'<');
                    event.body.push(b'>');
                }
                batch.set_events(&events);
            }
        }
        Ok(())
    }
}

wasmflow_sdk::export_interceptor!(Cost);

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(mode: Mode) -> Vec<Vec<u8>> {
        let mut batch = Batch::from_bodies(["a", "", "bc"]);
        Cost(mode).intercept(&mut batch).unwrap();
        batch.bodies().iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn both_forms_rewrite_alike() {
        assert_eq!(bodies(Mode::Rewrite), [&b"<a>"[..], b"<>", b"<bc>"]);
        assert_eq!(bodies(Mode::RewriteRows), bodies(Mode::Rewrite));
    }

    #[test]
    fn the_others_leave_bodies_alone() {
        for mode in [Mode::Empty, Mode::Header, Mode::Read, Mode::ReadRows] {
            assert_eq!(bodies(mode), [&b"a"[..], b"", b"bc"]);
        }
    }
}
