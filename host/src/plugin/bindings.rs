//! The plugin contract as wasmtime sees it, generated from `wit/`.
//!
//! One imaginary world holds what all three kinds import and export, so that their types are made once. A plugin exports
//! only its own kind; each interface is looked up by itself.
//! `events` alone is written by hand, in `capability/events.rs`: columns leave the host without a copy of their own.

wasmtime::component::bindgen!({
    inline: "
        package wasmflow:host;

        world every-kind {
            import wasmflow:plugin/events@0.1.0;
            import wasmflow:plugin/log@0.1.0;
            import wasmflow:plugin/kafka@0.1.0;
            export wasmflow:plugin/descriptor@0.1.0;
            export wasmflow:plugin/source@0.1.0;
            export wasmflow:plugin/interceptor@0.1.0;
            export wasmflow:plugin/sink@0.1.0;
        }
    ",
    path: "../wit",
    world: "wasmflow:host/every-kind",
    imports: {
        "wasmflow:plugin/kafka.[method]consumer.poll": async | trappable,
        "wasmflow:plugin/kafka.[static]consumer.subscribe": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "wasmflow:plugin/events": crate::capability::events,
        "wasmflow:plugin/kafka.producer": crate::capability::kafka::Producer,
        "wasmflow:plugin/kafka.consumer": crate::capability::kafka::Consumer,
    },
});
