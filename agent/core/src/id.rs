//! Ids of events and reports.

use std::fmt;

use uuid::Uuid;

/// A `UUIDv7` type, which sorts by time.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// Parses an id.
            pub fn read(text: &str) -> Option<Self> {
                Uuid::parse_str(text).ok().map(Self)
            }

            /// Creates a new id.
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
    /// Id of an event; sorts by time.
    EventId
}

id! {
    /// Id of a tool call or an alert; sorts by time.
    ReportId
}
