//! Pages, scraped twice.

use super::round::Round;
use super::series::Series;
use super::settings::Settings;
use crate::prometheus::exposition::protobuf::{self, Natives};
use crate::prometheus::exposition::{Format, Parser};
use crate::prometheus::labels::Labels;

/// Scrapes `page`, then an empty page: every series that was there ends, and then nothing is remembered.
pub(crate) fn page(page: &str) {
    let settings = Settings::default();
    let mut series = Series::default();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut round = Round::new(&settings, &mut series, 1_700_000_000_000);
        let mut parser = Parser::new(page, format);
        let mut labels = Labels::default();
        let mut has_failed = false;
        while !has_failed {
            has_failed = match parser.next(&mut labels) {
                Ok(None) => break,
                Ok(Some(entry)) => round.take(entry, &mut labels).is_err(),
                Err(_) => true,
            };
        }
        if has_failed {
            round = round.failed();
        }
        let _ = round.finish();
        end(&settings, &mut series);
    }
}

/// The same with a page of protobuf messages.
pub(crate) fn families(page: &[u8]) {
    for natives in [Natives::Ignored, Natives::Instead, Natives::Beside] {
        let settings = Settings { natives, ..Settings::default() };
        let mut series = Series::default();
        let mut round = Round::new(&settings, &mut series, 1_700_000_000_000);
        let mut parser = protobuf::Parser::new(page, natives);
        let mut labels = Labels::default();
        let mut entries = 0;
        let mut has_failed = false;
        while !has_failed {
            has_failed = match parser.next(&mut labels) {
                Ok(None) => break,
                Ok(Some(entry)) => round.take(entry, &mut labels).is_err(),
                Err(_) => true,
            };
            entries += 1;
            // A metric of a few bytes tells of a count, a sum, a bucket and a native histogram.
            assert!(entries <= 4 + 4 * page.len(), "more entries than a page can hold");
        }
        if has_failed {
            round = round.failed();
        }
        let _ = round.finish();
        end(&settings, &mut series);
    }
}

/// Delivers the last round and scrapes an empty page: every series ends, and nothing is remembered.
fn end(settings: &Settings, series: &mut Series) {
    series.delivered();
    let _ = Round::new(settings, series, 1_700_000_060_000).finish();
    series.delivered();
    assert_eq!(series.len(), 0, "series are remembered that are gone");
}
