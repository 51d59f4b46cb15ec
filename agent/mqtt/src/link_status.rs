//! The state of the connection, as others see it.

/// State of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStatus {
    /// Connecting.
    Connecting,
    /// Connected.
    Up,
    /// Lost or failed; retried with back-off.
    Down(String),
    /// Rejected by the broker; retried rarely, since somebody has to fix it.
    Refused(String),
}
