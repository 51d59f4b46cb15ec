//! The C code, the bare target and the pseudo-terminal: what needs a process or a system.

#[cfg(test)]
mod c;
#[cfg(all(test, feature = "std"))]
mod pty;
