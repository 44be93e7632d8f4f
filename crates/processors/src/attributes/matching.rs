//! `include` and `exclude`: which spans, data points or log records are worked on.

use nyquist_core::batch::Signal;
use nyquist_core::config::Check;
use nyquist_core::wire::{
    Field, Fields, KeyValue, LogRecordView, ResourceSpansView, ScopeSpansView, SpanView, Value as Wire,
};
use regex::bytes::RegexSet;
use serde::Deserialize;

use super::value::{ConfigValue, put_any, text};

/// Properties to match, as written. All that are set must match; within a list of names one is
/// enough, while every attribute and every resource attribute must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MatchConfig {
    /// `strict` or `regexp`.
    pub match_type: String,
    /// The Collector's cache of regular expressions; accepted, without effect.
    pub regexp: Option<RegexpConfig>,
    /// The resource's `service.name`.
    pub services: Vec<String>,
    /// Span names.
    pub span_names: Vec<String>,
    /// Span kinds: `SPAN_KIND_SERVER`, ...
    pub span_kinds: Vec<String>,
    /// Log bodies that are text.
    pub log_bodies: Vec<String>,
    /// Severity texts.
    pub log_severity_texts: Vec<String>,
    /// The lowest severity.
    pub log_severity_number: Option<SeverityConfig>,
    /// Metric names.
    pub metric_names: Vec<String>,
    /// Attributes of the span, data point or log record.
    pub attributes: Vec<AttributeConfig>,
    /// Attributes of the resource.
    pub resources: Vec<AttributeConfig>,
    /// Instrumentation scopes.
    pub libraries: Vec<LibraryConfig>,
}

/// The Collector's cache of regular expressions.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RegexpConfig {
    /// Accepted, without effect.
    pub cacheenabled: bool,
    /// Accepted, without effect.
    pub cachemaxnumentries: usize,
}

/// A severity threshold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SeverityConfig {
    /// The lowest severity number that matches: 1 (TRACE) to 24 (FATAL4).
    pub min: i32,
    /// Whether a record without a severity number matches.
    pub match_undefined: bool,
}

/// An attribute to match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AttributeConfig {
    /// The key.
    pub key: String,
    /// The value; without one it is enough that the key exists.
    pub value: Option<ConfigValue>,
}

/// An instrumentation scope to match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LibraryConfig {
    /// Its name.
    pub name: String,
    /// Its version; any if not given.
    pub version: Option<String>,
}

/// What is wrong: which field, and why.
type Problem = (&'static str, String);

/// `include` and `exclude`, ready.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

/// What a filter has found out from resource and scope, before it sees an item.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// Nothing below is worked on.
    None,
    /// Everything below is worked on.
    All,
    /// It depends on what is below.
    Depends {
        /// The include still may match.
        include: bool,
        /// The exclude still may match.
        exclude: bool,
    },
}

impl Filter {
    /// Makes the two ready for `signal`.
    ///
    /// # Errors
    /// Which of them, which field, and why.
    pub(crate) fn compile(
        include: Option<&MatchConfig>,
        exclude: Option<&MatchConfig>,
        signal: Signal,
    ) -> Result<Self, (&'static str, Problem)> {
        let compile = |name, config: Option<&MatchConfig>| {
            config.map(|config| Matcher::compile(config, signal)).transpose().map_err(|problem| (name, problem))
        };
        Ok(Self { include: compile("include", include)?, exclude: compile("exclude", exclude)? })
    }

    fn verdict(include: Option<bool>, exclude: Option<bool>) -> Verdict {
        match (include, exclude) {
            (Some(false), _) => Verdict::None,
            (include, exclude) => {
                let (include, exclude) = (include.is_some(), exclude.unwrap_or(false));
                if include || exclude { Verdict::Depends { include, exclude } } else { Verdict::All }
            }
        }
    }

    /// Looks at a `ResourceSpans`, `ResourceMetrics` or `ResourceLogs`.
    pub(crate) fn resource(&self, message: &[u8]) -> Verdict {
        // The three signals have the same fields on this level.
        let may_match = |matcher: &Matcher| matcher.resource_matches(ResourceSpansView::new(message));
        Self::verdict(self.include.as_ref().map(may_match), self.exclude.as_ref().map(may_match))
    }

    /// Looks at a `ScopeSpans`, `ScopeMetrics` or `ScopeLogs` below.
    pub(crate) fn scope(&self, above: Verdict, message: &[u8]) -> Verdict {
        self.refine(above, |matcher| matcher.scope_matches(ScopeSpansView::new(message)))
    }

    /// Looks at a `Metric` below.
    pub(crate) fn metric(&self, above: Verdict, name: &[u8]) -> Verdict {
        self.refine(above, |matcher| matcher.metric_names.matches(name))
    }

    fn refine(&self, above: Verdict, may_match: impl Fn(&Matcher) -> bool) -> Verdict {
        let Verdict::Depends { include, exclude } = above else { return above };
        let included = self.include.as_ref().filter(|_| include).map(&may_match);
        let excluded = self.exclude.as_ref().filter(|_| exclude).map(&may_match);
        Self::verdict(included, excluded)
    }

    /// Is the span, data point or log record, whose attributes are in field `attributes`, worked
    /// on?
    pub(crate) fn item(&self, above: Verdict, signal: Signal, message: &[u8], attributes: u32) -> bool {
        let matches = |matcher: &Matcher| matcher.item_matches(signal, message, attributes);
        match above {
            Verdict::None => false,
            Verdict::All => true,
            Verdict::Depends { include, exclude } => {
                let included = !include || self.include.as_ref().is_none_or(matches);
                included && !(exclude && self.exclude.as_ref().is_some_and(matches))
            }
        }
    }
}

#[derive(Debug)]
struct Matcher {
    services: Names,
    span_names: Names,
    span_kinds: Names,
    log_bodies: Names,
    log_severity_texts: Names,
    log_severity_number: Option<SeverityConfig>,
    metric_names: Names,
    attributes: Vec<AttributeMatcher>,
    resources: Vec<AttributeMatcher>,
    libraries: Vec<(Names, Option<Names>)>,
}

/// A list of names or patterns; matches everything if there is none.
#[derive(Debug)]
enum Names {
    Any,
    Strict(Vec<String>),
    Regexp(RegexSet),
}

impl Names {
    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Strict(names) => names.iter().any(|name| name.as_bytes() == text),
            Self::Regexp(patterns) => patterns.is_match(text),
        }
    }

    fn is_set(&self) -> bool {
        !matches!(self, Self::Any)
    }
}

#[derive(Debug)]
struct AttributeMatcher {
    key: Vec<u8>,
    value: AttributeValue,
}

#[derive(Debug)]
enum AttributeValue {
    Any,
    /// Equal to this `AnyValue` message.
    Strict(Vec<u8>),
    Regexp(RegexSet),
}

impl AttributeMatcher {
    fn matches(&self, attribute: &KeyValue<'_>) -> bool {
        match &self.value {
            AttributeValue::Any => true,
            AttributeValue::Strict(wanted) => {
                let mut encoded = Vec::new();
                put_any(attribute.value, &mut encoded);
                encoded == *wanted
            }
            AttributeValue::Regexp(pattern) => pattern.is_match(&text(attribute.value)),
        }
    }
}

/// Does every matcher find its attribute? Where a key occurs twice the first one counts.
fn all_match<'a>(matchers: &[AttributeMatcher], attributes: impl Iterator<Item = KeyValue<'a>> + Clone) -> bool {
    matchers.iter().all(|matcher| {
        let found = attributes.clone().find(|attribute| attribute.key == matcher.key);
        found.is_some_and(|attribute| matcher.matches(&attribute))
    })
}

impl MatchConfig {
    /// Reports what is wrong whatever the signal.
    pub(crate) fn validate(&self, name: &str, check: &mut Check<'_>) {
        if let Err((field, message)) = Matcher::ready(self) {
            check.error(&[name, field], message);
        }
    }
}

impl Matcher {
    fn compile(config: &MatchConfig, signal: Signal) -> Result<Self, Problem> {
        let matcher = Self::ready(config)?;
        let only = |field, signals: &[Signal], is_set: bool| {
            if is_set && !signals.contains(&signal) {
                let message = format!("{field} should not be specified in a pipeline of {}", signal.name());
                return Err((field, message));
            }
            Ok(())
        };
        only("span_names", &[Signal::Traces], !config.span_names.is_empty())?;
        only("span_kinds", &[Signal::Traces], !config.span_kinds.is_empty())?;
        only("log_bodies", &[Signal::Logs], !config.log_bodies.is_empty())?;
        only("log_severity_texts", &[Signal::Logs], !config.log_severity_texts.is_empty())?;
        only("log_severity_number", &[Signal::Logs], config.log_severity_number.is_some())?;
        only("metric_names", &[Signal::Metrics], !config.metric_names.is_empty())?;
        Ok(matcher)
    }

    fn ready(config: &MatchConfig) -> Result<Self, Problem> {
        let is_regexp = match config.match_type.as_str() {
            "strict" => false,
            "regexp" => true,
            "" => return Err(("match_type", "must be set: valid types are strict and regexp".to_owned())),
            other => {
                let message = format!("unrecognized match_type {other:?}: valid types are strict and regexp");
                return Err(("match_type", message));
            }
        };
        let patterns = |field, patterns: &[&str]| {
            RegexSet::new(patterns).map_err(|error| (field, format!("invalid regular expression: {error}")))
        };
        let names = |field, list: &[String]| {
            if list.is_empty() {
                return Ok(Names::Any);
            }
            if is_regexp {
                let list: Vec<&str> = list.iter().map(String::as_str).collect();
                return Ok(Names::Regexp(patterns(field, &list)?));
            }
            Ok(Names::Strict(list.to_vec()))
        };
        let attributes = |field, list: &[AttributeConfig]| {
            let ready = |attribute: &AttributeConfig| {
                if attribute.key.is_empty() {
                    return Err((field, "each entry needs a key".to_owned()));
                }
                let value = match &attribute.value {
                    None => AttributeValue::Any,
                    Some(ConfigValue::String(pattern)) if is_regexp => {
                        AttributeValue::Regexp(patterns(field, &[pattern])?)
                    }
                    Some(_) if is_regexp => {
                        let message =
                            format!("with match_type regexp the value of {:?} must be a string", attribute.key);
                        return Err((field, message));
                    }
                    Some(value) => AttributeValue::Strict(value.encode()),
                };
                Ok(AttributeMatcher { key: attribute.key.clone().into_bytes(), value })
            };
            list.iter().map(ready).collect::<Result<Vec<_>, Problem>>()
        };
        let library = |library: &LibraryConfig| {
            let one = |text: &String| names("libraries", std::slice::from_ref(text));
            Ok((one(&library.name)?, library.version.as_ref().map(one).transpose()?))
        };
        let matcher = Self {
            services: names("services", &config.services)?,
            span_names: names("span_names", &config.span_names)?,
            span_kinds: names("span_kinds", &config.span_kinds)?,
            log_bodies: names("log_bodies", &config.log_bodies)?,
            log_severity_texts: names("log_severity_texts", &config.log_severity_texts)?,
            log_severity_number: config.log_severity_number.clone(),
            metric_names: names("metric_names", &config.metric_names)?,
            attributes: attributes("attributes", &config.attributes)?,
            resources: attributes("resources", &config.resources)?,
            libraries: config.libraries.iter().map(library).collect::<Result<_, Problem>>()?,
        };
        if !matcher.is_set() {
            let message = "at least one property to match must be specified: services, span_names, span_kinds, \
                           metric_names, log_bodies, log_severity_texts, log_severity_number, attributes, resources \
                           or libraries";
            return Err(("match_type", message.to_owned()));
        }
        Ok(matcher)
    }

    fn is_set(&self) -> bool {
        let lists = [
            &self.services,
            &self.span_names,
            &self.span_kinds,
            &self.log_bodies,
            &self.log_severity_texts,
            &self.metric_names,
        ];
        lists.into_iter().any(Names::is_set)
            || self.log_severity_number.is_some()
            || !(self.attributes.is_empty() && self.resources.is_empty() && self.libraries.is_empty())
    }

    fn resource_matches(&self, resource: ResourceSpansView<'_>) -> bool {
        if self.services.is_set() {
            let is_service = |attribute: &KeyValue<'_>| attribute.key == b"service.name";
            let Some(service) = resource.resource_attributes().find(is_service) else { return false };
            if !self.services.matches(&text(service.value)) {
                return false;
            }
        }
        self.resources.is_empty() || {
            let attributes: Vec<_> = resource.resource_attributes().collect();
            all_match(&self.resources, attributes.iter().copied())
        }
    }

    fn scope_matches(&self, scope: ScopeSpansView<'_>) -> bool {
        self.libraries.is_empty()
            || self.libraries.iter().any(|(name, version)| {
                name.matches(scope.scope_name())
                    && version.as_ref().is_none_or(|version| version.matches(scope.scope_version()))
            })
    }

    fn item_matches(&self, signal: Signal, message: &[u8], attributes: u32) -> bool {
        let item_matches = match signal {
            Signal::Traces => self.span_matches(message),
            Signal::Logs => self.log_matches(LogRecordView::new(message)),
            Signal::Metrics => true,
        };
        item_matches && all_match(&self.attributes, nyquist_core::wire::Attributes::new(message, attributes))
    }

    fn span_matches(&self, message: &[u8]) -> bool {
        let name_matches = !self.span_names.is_set() || self.span_names.matches(SpanView::new(message).name());
        name_matches && (!self.span_kinds.is_set() || self.span_kinds.matches(span_kind(message)))
    }

    fn log_matches(&self, record: LogRecordView<'_>) -> bool {
        if self.log_bodies.is_set() {
            let nyquist_core::wire::AnyValue::String(body) = record.body() else { return false };
            if !self.log_bodies.matches(body) {
                return false;
            }
        }
        if !self.log_severity_texts.is_set() && self.log_severity_number.is_none() {
            return true;
        }
        let fields = record.fields();
        let severe = self.log_severity_number.as_ref().is_none_or(|wanted| match fields.severity_number {
            0 => wanted.match_undefined,
            number => number >= wanted.min,
        });
        severe && self.log_severity_texts.matches(fields.severity_text)
    }
}

fn span_kind(message: &[u8]) -> &'static [u8] {
    let mut kind = 0;
    for field in Fields::new(message) {
        if let Field { number: 6, value: Wire::Varint(number) } = field {
            kind = number;
        }
    }
    match kind {
        1 => b"SPAN_KIND_INTERNAL",
        2 => b"SPAN_KIND_SERVER",
        3 => b"SPAN_KIND_CLIENT",
        4 => b"SPAN_KIND_PRODUCER",
        5 => b"SPAN_KIND_CONSUMER",
        _ => b"SPAN_KIND_UNSPECIFIED",
    }
}
