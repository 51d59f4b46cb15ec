//! Names of what happened and of what was said of it.

use std::fmt;

use uuid::Uuid;

/// A type of UUIDs of version 7, which sort by time.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// The id that a text names.
            pub fn read(text: &str) -> Option<Self> {
                Uuid::parse_str(text).ok().map(Self)
            }

            /// A fresh id.
            #[expect(
                clippy::new_without_default,
                reason = "each id is different, which `default` would hide"
            )]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Names an event; sorts by time.
    EventId
}

id! {
    /// Names a tool invocation or an alert; sorts by time.
    ReportId
}
