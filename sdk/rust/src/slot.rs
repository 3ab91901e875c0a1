//! The place where an instance of a component keeps its plugin between calls.

use crate::failure::Failure;

/// Implemented by the export macros: one plugin, in a variable of the plugin's own crate.
#[doc(hidden)]
pub trait Slot {
    type Plugin;

    /// Lends out the place. The host never calls an instance twice at once, so it is free.
    fn with<R>(call: impl FnOnce(&mut Option<Self::Plugin>) -> R) -> R;

    /// Fills the place with an opened plugin.
    fn fill(plugin: Self::Plugin) {
        Self::with(|place| *place = Some(plugin));
    }

    /// Calls the plugin.
    fn call<R>(call: impl FnOnce(&mut Self::Plugin) -> Result<R, Failure>) -> Result<R, Failure> {
        Self::with(|place| match place {
            Some(plugin) => call(plugin),
            None => Err(Failure::fatal("called before `open`")),
        })
    }

    /// Closes the plugin and drops it.
    fn close(close: impl FnOnce(&mut Self::Plugin)) {
        if let Some(mut plugin) = Self::with(Option::take) {
            close(&mut plugin);
        }
    }
}

/// Makes the component type of the calling crate and its place. Used by the export macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __component {
    ($plugin:ty) => {
        struct Component;

        impl $crate::slot::Slot for Component {
            type Plugin = $plugin;

            fn with<R>(call: impl FnOnce(&mut Option<$plugin>) -> R) -> R {
                ::std::thread_local! {
                    static PLACE: ::std::cell::RefCell<Option<$plugin>> = const { ::std::cell::RefCell::new(None) };
                }
                PLACE.with_borrow_mut(call)
            }
        }
    };
}

/// Exports `describe` and `check` of the calling crate's component. Used by the export macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __descriptor {
    ($plugin:ty, $kind:path, $traits:expr, $tick:expr) => {
        impl $crate::bindings::descriptor::exports::wasmflow::plugin::descriptor::Guest for Component {
            fn describe() -> $crate::describe::Description {
                $crate::describe::description::<<$plugin as $kind>::Config>(
                    env!("CARGO_PKG_NAME"),
                    env!("CARGO_PKG_VERSION"),
                    <$plugin as $kind>::ABOUT,
                    $traits,
                    $tick,
                )
            }

            fn check(config: String) -> Result<Vec<$crate::describe::Need>, Vec<$crate::describe::Problem>> {
                $crate::describe::check(&config, <$plugin as $kind>::check)
            }
        }

        $crate::bindings::descriptor::export!(Component with_types_in $crate::bindings::descriptor);
    };
}
