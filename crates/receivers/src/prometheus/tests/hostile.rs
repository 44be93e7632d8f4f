//! Any page has an answer.

use proptest::prelude::*;

use crate::prometheus::fuzzing;

/// Pages that are almost right.
fn pages() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "# TYPE ",
        "# HELP ",
        "# UNIT ",
        "# EOF",
        "\n",
        "a",
        "a_bucket",
        "a_sum",
        "a_count",
        "a_total",
        "a_created",
        "target_info",
        "counter",
        "gauge",
        "histogram",
        "summary",
        "info",
        "gaugehistogram",
        "{",
        "}",
        "le=",
        "quantile=",
        "otel_scope_name=",
        "job=",
        "\"1\"",
        "\"+Inf\"",
        "\"x\\\"",
        "\"",
        ",",
        " ",
        " 1",
        " -1",
        " NaN",
        " 1e400",
        " # {",
        " 1700000000",
        " 99999999999999999999",
        "ä",
        "\\n",
        "\r",
        "\t",
    ];
    proptest::collection::vec(proptest::sample::select(WORDS), 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_order_of_words_has_an_answer(page in pages()) {
        fuzzing::exposition(page.as_bytes());
    }

    #[test]
    fn any_bytes_have_an_answer(page in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::exposition(&page);
    }
}
