//! nyquist-extensions
