//! Pages and what they say.

use super::*;

/// All entries of a page, a line each; the error if there is one.
fn read(page: &str, format: Format) -> Vec<String> {
    let mut parser = Parser::new(page, format);
    let mut labels = Labels::default();
    let mut out = Vec::new();
    loop {
        match parser.next(&mut labels) {
            Ok(None) => return out,
            Ok(Some(Entry::Sample(sample))) => {
                let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let exemplar = sample.exemplar.map_or(String::new(), |own| {
                    let labels: Vec<String> =
                        own.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    format!(" # {} {} {:?}", labels.join(","), own.value, own.timestamp)
                });
                out.push(format!("{} {} {:?}{exemplar}", shown.join(","), sample.value, sample.timestamp));
            }
            Ok(Some(other)) => out.push(format!("{other:?}")),
            Err(error) => {
                out.push(format!("error: {error}"));
                return out;
            }
        }
    }
}

#[test]
fn the_text_format_is_read() {
    let page = "# A comment.\n\
                # HELP http_requests The \\\\ number\\nof requests.\n\
                # TYPE http_requests counter\n\
                http_requests{code=\"200\",path=\"/a\\\"b\\\\c\\nd\",} 1.5e3 1700000000123\n\
                \n  spaced  {  a = \"1\" , b=\"\" }   +Inf\n\
                nothing NaN -5\r\n\
                {\"utf8.name\", \"a.b\"=\"x\"} 1\n\
                # TYPE \"utf8.name\" gauge";
    let expected = [
        "Help(\"http_requests\", \"The \\\\ number\\nof requests.\")",
        "Type(\"http_requests\", Counter)",
        "__name__=\"http_requests\",code=\"200\",path=\"/a\\\"b\\\\c\\nd\" 1500 Some(1700000000123)",
        "__name__=\"spaced\",a=\"1\" inf None",
        "__name__=\"nothing\" NaN Some(-5)",
        "__name__=\"utf8.name\",a.b=\"x\" 1 None",
        "Type(\"utf8.name\", Gauge)",
    ];
    assert_eq!(read(page, Format::Text), expected);
}

#[test]
fn openmetrics_is_read() {
    let page = "# TYPE foo counter\n# UNIT foo seconds\n# HELP foo Seconds.\n\
                foo_total{a=\"b\"} 17 1520879607.789 # {trace_id=\"0af7\"} 0.67 1520879606.5\n\
                foo_created{a=\"b\"} 1520430000.123\n\
                bar_bucket{le=\"1\"} 2 # {} 0.5\n# EOF\n";
    let expected = [
        "Type(\"foo\", Counter)",
        "Unit(\"foo\", \"seconds\")",
        "Help(\"foo\", \"Seconds.\")",
        "__name__=\"foo_total\",a=\"b\" 17 Some(1520879607789) # trace_id=0af7 0.67 Some(1520879606500)",
        "__name__=\"foo_created\",a=\"b\" 1520430000.123 None",
        "__name__=\"bar_bucket\",le=\"1\" 2 None #  0.5 None",
    ];
    assert_eq!(read(page, Format::OpenMetrics), expected);
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let cases = [
        ("a 1\nb{c=\"d} 2\n", "error: line 2: a text in double quotes that does not end"),
        ("a{b=\"c\"", "error: line 1: expected , or } after a label, found the end of the line"),
        ("a{b=\"c\" d=\"e\"} 1", "error: line 1: expected , or } after a label, found \"d=\\\"e\\\"} 1\""),
        ("a{b=\"1\",b=\"2\"} 1", "error: line 1: label \"b\" is there twice"),
        ("a{1b=\"1\"} 1", "error: line 1: expected the name of a label, found \"=\\\"1\\\"} 1\""),
        ("a one", "error: line 1: expected a number, found \"one\""),
        ("a", "error: line 1: expected a number, found \"\""),
        ("a 1 2 3", "error: line 1: unexpected \"3\""),
        ("a 1 soon", "error: line 1: invalid timestamp \"soon\""),
        ("a 1 # {} 1", "error: line 1: unexpected \"# {} 1\""),
        ("9a 1", "error: line 1: expected the name of a metric, found \" 1\""),
        ("{a=\"b\"} 1", "error: line 1: a sample without a name"),
        ("{\"a\",\"b\"} 1", "error: line 1: two names for one metric"),
        ("# TYPE a thing", "error: line 1: unknown metric type \"thing\""),
    ];
    for (page, error) in cases {
        assert_eq!(read(page, Format::Text).last().map(String::as_str), Some(error), "{page}");
    }
    let cases = [
        ("a 1\n", "error: line 1: the page ends without # EOF: it is cut off, or no OpenMetrics"),
        ("# EOF\na 1\n", "error: line 2: there is more after # EOF"),
        ("\n# EOF\n", "error: line 1: OpenMetrics has no empty lines"),
        ("a 1 # b\n# EOF", "error: line 1: an exemplar must begin with its labels in {}"),
        ("a 1 inf\n# EOF", "error: line 1: invalid timestamp \"inf\""),
    ];
    for (page, error) in cases {
        assert_eq!(read(page, Format::OpenMetrics).last().map(String::as_str), Some(error), "{page}");
    }
}
