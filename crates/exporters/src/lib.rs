//! nyquist-exporters
