//! nyquist-processors

pub mod tail_sampling;
