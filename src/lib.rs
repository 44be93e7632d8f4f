//! Nyquist.
