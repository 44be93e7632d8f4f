//! What holds for every input: the bodies of the fuzz targets, which ordinary tests run too. Panics are
//! findings.

use super::exposition::{Format, Parser};
use super::labels::Labels;

/// Reads `data` as a page in all formats: no more entries than lines, labels in order, and the line of an
/// error is one of the page.
pub fn exposition(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for format in [Format::Text, Format::OpenMetrics] {
        let mut parser = Parser::new(&text, format);
        let mut labels = Labels::default();
        let lines = text.lines().count();
        let mut entries = 0;
        loop {
            match parser.next(&mut labels) {
                Ok(None) => break,
                Ok(Some(_)) => {
                    entries += 1;
                    assert!(entries <= lines, "more entries than lines");
                    let names: Vec<&str> = labels.iter().map(|(name, _)| name).collect();
                    assert!(names.is_sorted_by(|left, right| left < right), "{names:?}");
                }
                Err(error) => {
                    assert!(error.line <= lines, "{error} of {lines}");
                    break;
                }
            }
        }
    }
    super::scrape::fuzzing::page(&text);
    super::scrape::fuzzing::families(data);
}
