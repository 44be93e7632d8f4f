//! nyquist-processors
