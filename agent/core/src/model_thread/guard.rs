//! The panic boundary, and what is left to do behind it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use outpost_runtime::Error;
use tracing::{error, warn};

use super::{Model, ModelError};

/// Runs a call into the runtime; turns a panic into an error.
pub(super) fn guarded<T>(
    run: impl FnOnce() -> outpost_runtime::Result<T>,
) -> Result<T, ModelError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => Ok(result?),
        Err(panic) => {
            let message = panic_message(panic.as_ref());
            error!(message, "the model panicked");
            Err(match Error::out_of_memory(&message) {
                Some(refused) => refused.into(),
                None => ModelError::Internal(message),
            })
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

/// Drops what a fault may have damaged, or what memory is short for. False if the device is lost.
pub(super) fn recover<T>(model: &mut dyn Model, result: &Result<T, ModelError>) -> bool {
    let Err(fault) = result else { return true };
    if !fault.is_fault() {
        return true;
    }
    warn!(%fault, "kept sessions are forgotten");
    guarded(|| {
        model.synchronize();
        model.forget();
        Ok(())
    })
    .is_ok()
}
