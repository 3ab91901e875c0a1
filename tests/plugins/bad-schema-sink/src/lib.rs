//! A sink whose config schema is JSON but no JSON Schema: the host must refuse it before anything starts, and say so.

#[cfg(target_family = "wasm")]
mod component {
    use wasmflow_sdk::bindings::descriptor::exports::wasmflow::plugin::descriptor::Guest;
    use wasmflow_sdk::describe::{Description, Need, Problem, Traits};
    use wasmflow_sdk::prelude::*;

    struct Odd;

    impl Sink for Odd {
        type Config = std::collections::BTreeMap<String, String>;
        const ABOUT: &'static str = "Has a schema that is none.";

        fn open(_config: Self::Config) -> Result<Self, Failure> {
            Ok(Odd)
        }

        fn deliver(&mut self, _batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
            Ok(Outcome::Delivered)
        }
    }

    wasmflow_sdk::__component!(Odd);

    impl Guest for Component {
        fn describe() -> Description {
            Description {
                name: "bad-schema".into(),
                version: "0.1.0".into(),
                about: Odd::ABOUT.into(),
                config_schema: r#"{ "type": 5 }"#.into(),
                traits: Traits::empty(),
                tick_ms: None,
            }
        }

        fn check(_config: String) -> Result<Vec<Need>, Vec<Problem>> {
            Ok(Vec::new())
        }
    }

    wasmflow_sdk::bindings::descriptor::export!(Component with_types_in wasmflow_sdk::bindings::descriptor);
    wasmflow_sdk::bindings::sink::export!(Component with_types_in wasmflow_sdk::bindings::sink);
}
