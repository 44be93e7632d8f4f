//! Parsers of what targets expose: the Prometheus text format 0.0.4 (and 1.0.0, which quotes UTF-8 names),
//! OpenMetrics 1.0, and Prometheus' protobuf messages (`protobuf`), which alone have native histograms.
//!
//! Text is read line by line, borrowing from the page; only escaped text is copied. A page with one line
//! that cannot be read is refused as a whole, as Prometheus does: half a histogram is worse than none.

mod line;
pub(crate) mod protobuf;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::labels::{Labels, NAME};
use super::native::Histogram;
use line::Line;

/// What a page is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics.
    OpenMetrics,
    /// `io.prometheus.client.MetricFamily`, each with its length in front.
    Protobuf,
}

/// The type of a family of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub(crate) enum MetricType {
    /// `untyped`, `unknown`, or nothing is said.
    #[default]
    Unknown,
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
}

impl MetricType {
    const ALL: [(&'static str, Self); 9] = [
        ("unknown", Self::Unknown),
        ("untyped", Self::Unknown),
        ("counter", Self::Counter),
        ("gauge", Self::Gauge),
        ("histogram", Self::Histogram),
        ("gaugehistogram", Self::GaugeHistogram),
        ("summary", Self::Summary),
        ("info", Self::Info),
        ("stateset", Self::StateSet),
    ];

    /// The type that a `# TYPE` line names.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// The type whose discriminant is `byte`.
    pub(crate) fn from_byte(byte: u8) -> Self {
        Self::ALL.iter().find(|(_, kind)| *kind as u8 == byte).map(|(_, kind)| *kind).unwrap_or_default()
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("unknown", |(name, _)| name)
    }
}

/// What one line says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry<'a> {
    Type(Cow<'a, str>, MetricType),
    Help(Cow<'a, str>, Cow<'a, str>),
    Unit(Cow<'a, str>, Cow<'a, str>),
    Sample(Sample<'a>),
}

/// A sample; its labels, `__name__` among them, are where the caller wanted them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(crate) value: f64,
    /// In milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
    pub(crate) exemplar: Option<Box<Exemplar<'a>>>,
    /// When its series began, in nanoseconds since 1970; text says so in samples of their own.
    pub(crate) created: Option<u64>,
    /// Instead of the value.
    pub(crate) native: Option<Box<Native<'a>>>,
}

impl Sample<'_> {
    /// A sample that is a value and nothing else.
    pub(crate) fn of(value: f64) -> Self {
        Self { value, timestamp: None, exemplar: None, created: None, native: None }
    }
}

/// A native histogram.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Native<'a> {
    pub(crate) histogram: Histogram,
    pub(crate) exemplars: Vec<Exemplar<'a>>,
}

/// An exemplar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exemplar<'a> {
    pub(crate) labels: Labels<'a>,
    pub(crate) value: f64,
    /// In milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
}

/// Why a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub(crate) struct ParseError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// Reads a page.
#[derive(Debug)]
pub(crate) struct Parser<'a> {
    rest: &'a str,
    line: usize,
    format: Format,
    ended: bool,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(page: &'a str, format: Format) -> Self {
        Self { rest: page, line: 0, format, ended: false }
    }

    /// What the next line says; `None` at the end. The labels of a sample are put into `labels`.
    pub(crate) fn next(&mut self, labels: &mut Labels<'a>) -> Result<Option<Entry<'a>>, ParseError> {
        let entry = self.entry(labels);
        entry.map_err(|message| ParseError { line: self.line, message })
    }

    fn entry(&mut self, labels: &mut Labels<'a>) -> Result<Option<Entry<'a>>, String> {
        while !self.rest.is_empty() {
            let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.rest = rest;
            self.line += 1;
            if self.ended {
                return Err("there is more after # EOF".to_owned());
            }
            let line = match self.format {
                Format::Text => line.trim_matches([' ', '\t', '\r']),
                _ => line,
            };
            if line.is_empty() {
                match self.format {
                    Format::Text => continue,
                    _ => return Err("OpenMetrics has no empty lines".to_owned()),
                }
            }
            match line.strip_prefix('#') {
                None => return self.sample(line, labels).map(|sample| Some(Entry::Sample(sample))),
                Some(comment) => {
                    if let Some(entry) = self.comment(comment)? {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        if self.format == Format::OpenMetrics && !self.ended {
            return Err("the page ends without # EOF: it is cut off, or no OpenMetrics".to_owned());
        }
        Ok(None)
    }

    /// What stands after `#`. What is not about a family is a comment.
    fn comment(&mut self, text: &'a str) -> Result<Option<Entry<'a>>, String> {
        if self.format == Format::OpenMetrics && text == " EOF" {
            self.ended = true;
            return Ok(None);
        }
        let mut line = Line::new(text);
        if !line.skip_blanks() {
            return Ok(None);
        }
        let keyword = line.word();
        if !matches!(keyword, "TYPE" | "HELP" | "UNIT") || !line.skip_blanks() {
            return Ok(None);
        }
        let family = if line.peek() == Some(b'"') { line.quoted()? } else { Cow::Borrowed(line.name()?) };
        line.skip_blanks();
        let text = line.rest();
        match keyword {
            "HELP" => Ok(Some(Entry::Help(family, line::unescaped(text)))),
            "UNIT" => Ok((self.format == Format::OpenMetrics).then_some(Entry::Unit(family, Cow::Borrowed(text)))),
            _ => {
                let kind = MetricType::from_name(text).ok_or_else(|| format!("unknown metric type {text:?}"))?;
                Ok(Some(Entry::Type(family, kind)))
            }
        }
    }

    fn sample(&self, text: &'a str, labels: &mut Labels<'a>) -> Result<Sample<'a>, String> {
        let mut line = Line::new(text);
        labels.clear();
        let mut name = None;
        if line.peek() != Some(b'{') {
            name = Some(Cow::Borrowed(line.name()?));
        }
        line.skip_blanks();
        if line.eat(b'{') {
            line.labels(labels, &mut name)?;
        }
        let name = name.filter(|name| !name.is_empty()).ok_or("a sample without a name")?;
        labels.push(Cow::Borrowed(NAME), name);
        labels.settle()?;
        let value = line.number()?;
        let is_open = self.format == Format::OpenMetrics;
        let timestamp = match line.optional_word() {
            None => None,
            Some(word) => Some(timestamp(word, is_open)?),
        };
        let exemplar = if is_open && line.eat(b'#') { Some(Box::new(exemplar(&mut line)?)) } else { None };
        line.end()?;
        Ok(Sample { timestamp, exemplar, ..Sample::of(value) })
    }
}

fn exemplar<'a>(line: &mut Line<'a>) -> Result<Exemplar<'a>, String> {
    line.skip_blanks();
    if !line.eat(b'{') {
        return Err("an exemplar must begin with its labels in {}".to_owned());
    }
    let mut labels = Labels::default();
    line.labels(&mut labels, &mut None)?;
    labels.settle()?;
    let value = line.number()?;
    let timestamp = match line.optional_word() {
        None => None,
        Some(word) => Some(timestamp(word, true)?),
    };
    Ok(Exemplar { labels, value, timestamp })
}

/// Milliseconds: what the text format writes; OpenMetrics writes seconds.
fn timestamp(word: &str, is_seconds: bool) -> Result<i64, String> {
    let invalid = || format!("invalid timestamp {word:?}");
    if !is_seconds {
        return word.parse().map_err(|_| invalid());
    }
    let seconds: f64 = word.parse().map_err(|_| invalid())?;
    let millis = seconds * 1000.0;
    if millis.is_finite() && millis.abs() < 9e18 { Ok(millis as i64) } else { Err(invalid()) }
}
