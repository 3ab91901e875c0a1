//! A sink that traps in `describe`: the host must refuse it at load, and say so.

#[cfg(target_family = "wasm")]
mod component {
    use wasmflow_sdk::bindings::descriptor::exports::wasmflow::plugin::descriptor::Guest;
    use wasmflow_sdk::describe::{Description, Need, Problem};
    use wasmflow_sdk::prelude::*;

    struct Silent;

    impl Sink for Silent {
        type Config = std::collections::BTreeMap<String, String>;
        const ABOUT: &'static str = "Cannot be described.";

        fn open(_config: Self::Config) -> Result<Self, Failure> {
            Ok(Silent)
        }

        fn deliver(&mut self, _batch: &mut Batch, _delivery: &Delivery) -> Result<Outcome, Failure> {
            Ok(Outcome::Delivered)
        }
    }

    wasmflow_sdk::__component!(Silent);

    impl Guest for Component {
        fn describe() -> Description {
            panic!("cannot say what this is")
        }

        fn check(_config: String) -> Result<Vec<Need>, Vec<Problem>> {
            Ok(Vec::new())
        }
    }

    wasmflow_sdk::bindings::descriptor::export!(Component with_types_in wasmflow_sdk::bindings::descriptor);
    wasmflow_sdk::bindings::sink::export!(Component with_types_in wasmflow_sdk::bindings::sink);
}
