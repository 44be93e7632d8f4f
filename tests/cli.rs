//! The command line: what it prints and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;
