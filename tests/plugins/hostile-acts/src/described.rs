//! What happens in `describe`, where there is no configuration yet: a test has changed four letters of the component.

use wasmflow_sdk::prelude::*;

/// The last four letters are the act: `well`, `trap` or `loop`.
static ACT: &[u8; 18] = b"described and well";

/// Runs while the schema of [`Config`](crate::Config) is made.
pub fn act(_schema: &mut schemars::Schema) {
    // Not the constant that the compiler knows: a test may have changed it since.
    let last = std::hint::black_box(ACT)[14];
    match last {
        b't' => panic!("described as told"),
        b'l' => loop {
            std::hint::black_box(());
        },
        _ => log::trace("described"),
    }
}
