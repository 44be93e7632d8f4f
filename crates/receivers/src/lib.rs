//! nyquist-receivers
