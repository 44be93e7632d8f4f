//! `Time` and `FormatTime`: the examples of contrib's function reference, and more of the kind.

use super::{fails, holds};
use crate::Condition;
use crate::functions::ctime::Format;
use crate::traces::SPAN;

/// 2 March 2024, 12:00 UTC.
const NOW: i64 = 1_709_380_800_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn read(text: &str, format: &str) -> Result<i64, String> {
    let format = Format::compile(format).unwrap_or_else(|problem| panic!("{format}: {problem}"));
    format.parse(text.as_bytes(), NOW).map_err(|error| error.to_string())
}

/// The seconds since the epoch that `date -u -d .. +%s` gives.
#[test]
fn texts_are_read_as_times() {
    for (text, format, seconds) in [
        ("2023-04-12", "%Y-%m-%d", 1_681_257_600),
        ("11/11/11", "%d/%m/%y", 1_320_969_600),
        ("02/04/2023", "%m/%d/%Y", 1_675_468_800),
        ("July 31, 1993", "%B %d, %Y", 744_076_800),
        ("Mar 14 2023 17:02:59", "%b %d %Y %H:%M:%S", 1_678_813_379),
        ("Monday, May 01, 2023", "%A, %B %d, %Y", 1_682_899_200),
        ("SAT, may 20, 2023", "%a, %b %d, %Y", 1_684_540_800),
        ("2023-05-26 12:34:56 HST", "%Y-%m-%d %H:%M:%S %Z", 1_685_140_496),
        ("2023-05-26T12:34:56 GMT", "%Y-%m-%dT%H:%M:%S %Z", 1_685_104_496),
        ("2012-11-01T22:08:41+0000 EST", "%Y-%m-%dT%H:%M:%S%z %Z", 1_351_807_721),
        ("1986-10-01T00:17:33 MST", "%Y-%m-%dT%H:%M:%S %Z", 528_535_053),
        ("2023-01-01T00:00:00-07:30", "%FT%T%j", 1_672_558_200),
        ("2023-01-01T00:00:00Z", "%Y-%m-%dT%H:%M:%SZ", 1_672_531_200),
        ("2023-01-01T00:00:00Z", "%FT%T%z", 1_672_531_200),
        ("2023-01-01T00:00:00+01", "%FT%T%i", 1_672_527_600),
        ("2023-01-01T00:00:00+01:00:01", "%FT%T%k", 1_672_527_599),
        ("2023-01-01T00:00:00-010001", "%FT%T%w", 1_672_534_801),
        ("12/31/1969 11:59:59 pm", "%D %r", -1),
        ("12:00:00 am 01/01/1970", "%r %x", 0),
        ("12:30 PM 01/01/1970", "%I:%M %p %D", 45_000),
        ("Thu Jan 01 00:00:07 1970", "%c", 7),
        ("1970-1-2 3:04", "%Y-%q-%g %H:%M", 97_440),
        ("1970- 1- 2", "%Y-%o-%e", 86_400),
        ("69 68", "%y 68", -31_536_000),
        ("100%\t2024-02-29\n", "100%%%t%F%n", 1_709_164_800),
        // No time of day: midnight. No day: the first. No year: the last that fits. No date: today.
        ("2024", "%Y", 1_704_067_200),
        ("Mar 09", "%b %d", 1_709_942_400),
        ("Mar 10", "%b %d", 1_678_406_400),
        ("Feb 29 10:00", "%b %d %H:%M", 1_709_200_800),
        ("10:00", "%H:%M", 1_709_373_600),
    ] {
        assert_eq!(read(text, format), Ok(seconds * SECOND), "{text:?} as {format:?}");
    }
    for (text, format, nanos) in [
        ("1970-01-01 00:00:00.5", "%F %T.%L", 500_000_000),
        ("1970-01-01 00:00:00,123456789123", "%F %T,%s", 123_456_789),
        ("1970-01-01 00:00:00", "%F %T.%f", 0),
        ("1970-01-01 00:00:00.25Z", "%F %TZ", 250_000_000),
        ("1970-01-01 00:00:00042", "%F %T%L", 42_000_000),
        ("2262-04-11 23:47:16.854775807", "%F %T.%s", i64::MAX),
        ("1677-09-21 00:12:43.145224192", "%F %T.%s", i64::MIN),
    ] {
        assert_eq!(read(text, format), Ok(nanos), "{text:?} as {format:?}");
    }
}

#[test]
fn texts_that_are_no_times_are_refused() {
    const OTHER: &str = "the text is not a time in this format";
    const NONE: &str = "the text is not a time that there is, or not one from 1678 to 2261";
    for (text, format, message) in [
        ("11/11/11", "%Y/%m/%d", OTHER),
        ("", "%Y", OTHER),
        ("2023-1-1", "%F", OTHER),
        ("2023-13-01", "%F", NONE),
        ("2023-02-29", "%F", NONE),
        ("2023-00-01", "%F", NONE),
        ("2300-01-01", "%F", NONE),
        ("1677-09-21 00:12:43.145224191", "%F %T.%s", NONE),
        ("24:00", "%R", OTHER),
        ("23:60", "%R", OTHER),
        ("13:00:00 am", "%r", OTHER),
        ("01:00:00 AM", "%r", OTHER),
        ("2023-01-01T", "%F", "the text goes on after a time in this format"),
        ("+25:00", "%j", OTHER),
        ("2023 IST", "%Y %Z", "this abbreviation of a time zone is not known; an offset (%z) is clearer"),
        ("2023 utc", "%Y %Z", OTHER),
        ("Augustus", "%b", "the text goes on after a time in this format"),
        ("Aug 12, 20233", "%b %d, %Y", "the text goes on after a time in this format"),
    ] {
        assert_eq!(read(text, format), Err(message.to_owned()), "{text:?} as {format:?}");
    }
    assert_eq!(read(&"1".repeat(5000), "%Y"), Err(OTHER.to_owned()));
}

#[test]
fn times_are_written_as_texts() {
    let write = |nanos: i64, format: &str| String::from_utf8(Format::compile(format).unwrap().write(nanos)).unwrap();
    // Saturday, 3 February 2024, 04:05:06.007008009.
    let time = 1_706_933_106_007_008_009;
    for (format, expected) in [
        ("%Y-%m-%dT%H:%M:%S.%LZ", "2024-02-03T04:05:06.007Z"),
        ("%f|%s", "007008|007008009"),
        ("%a %A %b %h %B", "Sat Saturday Feb Feb February"),
        ("%y %o %q %e %g", "24  2 2  3 3"),
        ("%I %l %p %P", "04 4 AM am"),
        ("%z %i %j %k %w %Z", "+0000 +00 +00:00 +00:00:00 +000000 UTC"),
        ("%D %x %F %T %X %r %R", "02/03/2024 02/03/2024 2024-02-03 04:05:06 04:05:06 04:05:06 am 04:05"),
        ("%c%n%t%%", "Sat Feb 03 04:05:06 2024\n\t%"),
    ] {
        assert_eq!(write(time, format), expected, "{format}");
    }
    assert_eq!(write(-1, "%FT%T.%s %I %p"), "1969-12-31T23:59:59.999999999 11 PM");
    assert_eq!(write(43_200 * SECOND, "%I %l %P"), "12 12 pm");
    assert_eq!(write(i64::MIN, "%F %T.%s"), "1677-09-21 00:12:43.145224192");
    // What is written can be read, whatever the time.
    for format in ["%FT%T.%s%z", "%D %r.%s", "%A, %e %B %Y %H:%M:%S,%s %Z", "%y%m%d%H%M%S%s"] {
        let format = Format::compile(format).unwrap();
        for time in [0, time, -86_400 * SECOND + 1, 4_000_000_000 * SECOND / 2 + 59] {
            assert_eq!(format.parse(&format.write(time), NOW), Ok(time), "{format:?}");
        }
    }
}

#[test]
fn formats_are_checked_at_the_start() {
    for (format, message) in [
        ("", "the format is empty; write one such as \"%Y-%m-%dT%H:%M:%S\""),
        ("%Y %", "`%` at the end: write %% for the character itself"),
        ("%Q", "there is no directive %Q; common ones are %Y %m %d %H %M %S %L %z, and %% for %"),
    ] {
        assert_eq!(Format::compile(format), Err(message.to_owned()), "{format}");
    }
    assert!(Format::compile(&"%Y".repeat(200)).unwrap_err().contains("longer than 256 bytes"));
    for (expression, message) in [
        (r#"Time(name, kind) == nil"#, r#"the format has to be a text in double quotes, such as "%Y-%m-%d""#),
        (r#"Time(name) == nil"#, "the argument `format` is missing; it is Time(target, format, location, locale)"),
        (
            r#"Time(name, "%Y", "Europe/Berlin") == nil"#,
            "`Europe/Berlin` is not available yet: times without a zone are UTC; say the offset in the text (%z)",
        ),
        (
            r#"Time(name, "%Y", locale="de") == nil"#,
            "`de` is not available yet: names of months and days are read in English",
        ),
        (
            r#"start_time > Time("2023-02-30", "%F")"#,
            "the text is not a time that there is, or not one from 1678 to 2261",
        ),
        (
            r#"FormatTime(start_time, "%O") == """#,
            "there is no directive %O; common ones are %Y %m %d %H %M %S %L %z, and %% for %",
        ),
        (
            r#"ExtractPatterns(name, "(a)")["a"] == "a""#,
            "the pattern has no named group, such as (?P<name>..), so it would extract nothing",
        ),
    ] {
        assert_eq!(Condition::compile(expression, &SPAN).unwrap_err().message, message, "{expression}");
    }
}

/// The span began on 14 November 2023 at 22:13:20 and took 1.5 seconds.
#[test]
fn times_stand_in_conditions() {
    holds(&[
        r#"start_time > Time("2023-11-14", "%Y-%m-%d") and start_time < Time("2023-11-15", "%Y-%m-%d", "UTC", "en")"#,
        r#"start_time - Time("2023-11-14", "%F") == Duration("22h13m20s")"#,
        r#"Time(FormatTime(start_time, "%FT%T"), "%FT%T") == start_time and Now() > Time("2023", "%Y")"#,
        r#"FormatTime(end_time, "%Y-%m-%d %H:%M:%S.%L") == "2023-11-14 22:13:21.500""#,
        r#"FormatTime(start_time + Duration("1h"), "%A") == "Tuesday" and FormatTime(Unix(0), "%R") == "00:00""#,
        r#"UnixMilli(Time("02/04/2023", "%m/%d/%Y")) == 1675468800000"#,
        r#"TruncateTime(start_time, Duration("24h")) == Time("2023-11-14", "%F")"#,
        r#"Now() - Time(FormatTime(Now(), "%H:%M:%S"), "%H:%M:%S") < Duration("25h")"#,
        r#"Hours(Time("2023-11-15", "%F") - Time("2023-11-14", "%F")) == 24"#,
        r#"not (Time("2023", "%Y") == 1672531200) and Time("2023", "%Y") != nil"#,
    ]);
    fails(&[
        (r#"Time(attributes["text"], "%Y") == nil"#, "the text is not a time in this format"),
        (r#"Time(attributes["int"], "%Y") == nil"#, "a text is expected; found an integer"),
        (r#"Time(attributes["missing"], "%Y") == nil"#, "a text is expected; found nil"),
        (
            r#"FormatTime(start_time_unix_nano, "%Y") == """#,
            "a time is expected, such as span.start_time or Now(); found an integer",
        ),
    ]);
}
