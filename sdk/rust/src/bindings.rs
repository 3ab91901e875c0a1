//! The contract of `wit/plugin.wit` as Rust, generated here once for all plugins.
//!
//! What plugins import is generated in [`imports`]; each interface that they export has a module, and an export macro, of
//! its own. A plugin is the union of two of them, `descriptor` and the one of its kind, and that is exactly the
//! `source-plugin`, `interceptor-plugin` or `sink-plugin` world. Cut this way because one crate cannot generate those
//! three worlds side by side: each would define the macro of `descriptor` again.
#![allow(clippy::all, missing_docs, rust_2018_idioms, reason = "generated code")]

/// What any plugin may import. A component only carries the imports it uses.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package wasmflow:sdk;
            world imports {
                import wasmflow:plugin/events@0.1.0;
                import wasmflow:plugin/errors@0.1.0;
                import wasmflow:plugin/positions@0.1.0;
                import wasmflow:plugin/log@0.1.0;
                import wasmflow:plugin/kafka@0.1.0;
            }
        ",
        world: "wasmflow:sdk/imports",
        generate_unused_types: true,
        generate_all,
        additional_type_attributes: {
            "wasmflow:plugin/events@0.1.0/packed": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/events@0.1.0/sparse-values": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/events@0.1.0/column": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/events@0.1.0/header": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/events@0.1.0/event": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/events@0.1.0/rejection": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/errors@0.1.0/retry": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/errors@0.1.0/failure": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/positions@0.1.0/part": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/kafka@0.1.0/header-or": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/kafka@0.1.0/choice": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/kafka@0.1.0/send-options": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/kafka@0.1.0/partition": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/kafka@0.1.0/subscription": [#[derive(PartialEq, Eq)]],
        },
    });
}

/// What every plugin exports to describe itself.
pub mod descriptor {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package wasmflow:sdk;
            world descriptor { export wasmflow:plugin/descriptor@0.1.0; }
        ",
        world: "wasmflow:sdk/descriptor",
        additional_type_attributes: {
            "wasmflow:plugin/descriptor@0.1.0/need": [#[derive(PartialEq, Eq)]],
            "wasmflow:plugin/descriptor@0.1.0/problem": [#[derive(PartialEq, Eq)]],
        },
        pub_export_macro: true,
    });
}

/// What a source exports.
pub mod source {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package wasmflow:sdk;
            world source {
                import wasmflow:plugin/events@0.1.0;
                export wasmflow:plugin/source@0.1.0;
            }
        ",
        world: "wasmflow:sdk/source",
        pub_export_macro: true,
        with: {
            "wasmflow:plugin/events@0.1.0": crate::bindings::imports::wasmflow::plugin::events,
            "wasmflow:plugin/errors@0.1.0": crate::bindings::imports::wasmflow::plugin::errors,
            "wasmflow:plugin/positions@0.1.0": crate::bindings::imports::wasmflow::plugin::positions,
        },
    });
}

/// What an interceptor exports.
pub mod interceptor {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package wasmflow:sdk;
            world interceptor {
                import wasmflow:plugin/events@0.1.0;
                export wasmflow:plugin/interceptor@0.1.0;
            }
        ",
        world: "wasmflow:sdk/interceptor",
        pub_export_macro: true,
        with: {
            "wasmflow:plugin/events@0.1.0": crate::bindings::imports::wasmflow::plugin::events,
            "wasmflow:plugin/errors@0.1.0": crate::bindings::imports::wasmflow::plugin::errors,
        },
    });
}

/// What a sink exports.
pub mod sink {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package wasmflow:sdk;
            world sink {
                import wasmflow:plugin/events@0.1.0;
                export wasmflow:plugin/sink@0.1.0;
            }
        ",
        world: "wasmflow:sdk/sink",
        pub_export_macro: true,
        with: {
            "wasmflow:plugin/events@0.1.0": crate::bindings::imports::wasmflow::plugin::events,
            "wasmflow:plugin/errors@0.1.0": crate::bindings::imports::wasmflow::plugin::errors,
        },
    });
}
