//! The `nyquist` binary.
fn main() {}
