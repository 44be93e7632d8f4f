//! Metric streams: telling them apart, keeping something of each within bounds, and rewriting their points.
//!
//! A stream is a resource, a scope, a metric and a set of attributes. For the processors that turn one
//! temporality into the other.

mod bounded;
mod identity;
mod point;
mod tracked;
mod walk;

pub(crate) use bounded::{Bounded, Full, HeapSize};
pub(crate) use identity::Identities;
pub(crate) use point::{Measured, Point, put_distribution};
pub(crate) use tracked::{Aging, Tracked};
pub(crate) use walk::{Converter, convert, put_point_without_values};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
