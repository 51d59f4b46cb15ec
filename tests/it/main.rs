//! All integration tests in one binary, since each one links libtorch.

#[cfg(test)]
mod parity;
