//! The C code, the bare target and the pseudo-terminal: what needs a process or a system.

#[cfg(test)]
mod bare;
#[cfg(test)]
mod c;
#[cfg(test)]
mod pty;
#[cfg(test)]
mod seeds;
