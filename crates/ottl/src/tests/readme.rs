//! The README lists what there is.

use crate::functions::{CONVERTERS, NOT_YET};
use crate::traces::{SPAN, SPAN_EVENT};

const README: &str = include_str!("../../README.md");

#[test]
fn every_path_and_converter_is_listed() {
    let listed = |name: &str| README.contains(&format!("`{name}`"));
    for schema in [&SPAN, &SPAN_EVENT] {
        for context in schema.contexts {
            assert!(listed(context.name), "{}", context.name);
            for entry in context.fields {
                assert!(listed(entry.path), "{}.{}", context.name, entry.path);
            }
        }
        for (name, _) in schema.converters {
            assert!(listed(name), "{name}");
        }
    }
    for signature in CONVERTERS {
        assert!(listed(signature.name), "{}", signature.name);
        assert!(
            NOT_YET.iter().all(|(names, _)| !names.contains(&signature.name)),
            "{} is both there and not",
            signature.name
        );
        assert!(signature.parameters.len() <= crate::functions::MAX_ARGUMENTS, "{}", signature.name);
    }
}
