//! What a page says of its families, and which family a sample belongs to.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::prometheus::exposition::{Entry, MetricType};
use crate::prometheus::model::{Description, Shape};

/// What a sample is to its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The value itself.
    Value,
    /// One bucket of a histogram; `le` says which.
    Bucket,
    /// One quantile of a summary.
    Quantile,
    Sum,
    Count,
    /// When the series began.
    Created,
    /// A native histogram.
    Native,
}

/// The family of a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Membership<'m> {
    /// The name of the OTLP metric.
    pub(super) name: &'m str,
    pub(super) kind: MetricType,
    pub(super) shape: Shape,
    pub(super) part: Part,
    pub(super) description: Description<'m>,
}

impl Membership<'_> {
    /// The label that tells samples of one series apart: it is no attribute.
    pub(super) fn inner_label(&self) -> &'static str {
        match self.part {
            Part::Bucket => "le",
            Part::Quantile => "quantile",
            _ => "",
        }
    }
}

#[derive(Debug, Default)]
struct Family<'a> {
    kind: MetricType,
    help: Cow<'a, str>,
    unit: Cow<'a, str>,
}

/// The families of a page, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Families<'a>(HashMap<Cow<'a, str>, Family<'a>>);

impl<'a> Families<'a> {
    /// Learns from a line that is no sample.
    pub(super) fn learn(&mut self, entry: Entry<'a>) {
        match entry {
            Entry::Type(name, kind) => self.0.entry(name).or_default().kind = kind,
            Entry::Help(name, help) => self.0.entry(name).or_default().help = help,
            Entry::Unit(name, unit) => self.0.entry(name).or_default().unit = unit,
            Entry::Sample(_) => {}
        }
    }

    /// The family of the native histogram `name`, which has bounds of its own or not.
    pub(super) fn native<'m>(&'m self, name: &'m str, has_bounds: bool) -> Membership<'m> {
        let description = self.0.get(name).map(Family::description).unwrap_or_default();
        let shape = if has_bounds { Shape::Histogram } else { Shape::Exponential };
        Membership { name, kind: MetricType::Histogram, shape, part: Part::Native, description }
    }

    /// The family of the sample `name`.
    pub(super) fn of<'m>(&'m self, name: &'m str) -> Membership<'m> {
        if let Some(family) = self.0.get(name) {
            match family.kind {
                MetricType::Summary => return family.member(name, Part::Quantile),
                // A histogram has no sample of its own name.
                MetricType::Histogram | MetricType::GaugeHistogram => {}
                _ => return family.member(name, Part::Value),
            }
        }
        const SUFFIXES: [(&str, Part); 7] = [
            ("_bucket", Part::Bucket),
            ("_sum", Part::Sum),
            ("_count", Part::Count),
            ("_created", Part::Created),
            ("_total", Part::Value),
            ("_info", Part::Value),
            ("_gcount", Part::Value),
        ];
        for (suffix, part) in SUFFIXES {
            let Some(base) = name.strip_suffix(suffix) else { continue };
            let Some(family) = self.0.get(base) else { continue };
            use MetricType::{Counter, GaugeHistogram, Histogram, Info, Summary};
            match (part, family.kind) {
                (Part::Bucket, Histogram)
                | (Part::Sum | Part::Count, Histogram | Summary)
                | (Part::Created, Histogram | Summary) => return family.member(base, part),
                // The series that it belongs to has the suffix.
                (Part::Created, Counter) => return family.member(base, part),
                (Part::Value, Counter) if suffix == "_total" => return family.member(name, part),
                (Part::Value, Info) if suffix == "_info" => return family.member(name, part),
                (Part::Value | Part::Bucket, GaugeHistogram) => return family.loose(name),
                _ => {}
            }
        }
        Membership {
            name,
            kind: MetricType::Unknown,
            shape: Shape::Gauge,
            part: Part::Value,
            description: Description::default(),
        }
    }
}

impl Family<'_> {
    fn member<'m>(&'m self, name: &'m str, part: Part) -> Membership<'m> {
        let shape = match self.kind {
            MetricType::Counter => Shape::Counter,
            MetricType::Histogram => Shape::Histogram,
            MetricType::Summary => Shape::Summary,
            MetricType::Info | MetricType::StateSet => Shape::UpDown,
            MetricType::Gauge | MetricType::Unknown | MetricType::GaugeHistogram => Shape::Gauge,
        };
        Membership { name, kind: self.kind, shape, part, description: self.description() }
    }

    /// A part of a gauge histogram, which OTLP has nothing for: a gauge of its own.
    fn loose<'m>(&'m self, name: &'m str) -> Membership<'m> {
        let description = self.description();
        Membership { name, kind: MetricType::GaugeHistogram, shape: Shape::Gauge, part: Part::Value, description }
    }

    fn description(&self) -> Description<'_> {
        Description { help: &self.help, unit: &self.unit }
    }
}
