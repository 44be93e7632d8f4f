//! What the three signals share.

use std::fmt::Write;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use nyquist_core::proto::resource::v1::Resource;

/// Lines that grow. Writing to a `String` does not fail, so `line` ignores the result.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    pub(super) fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        let _ = self.0.write_fmt(arguments);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    pub(super) fn resource(&mut self, schema_url: &str, resource: Option<&Resource>) {
        self.line(format_args!("Resource SchemaURL: {schema_url}"));
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        self.attributes("Resource attributes:", "     ", attributes);
    }

    pub(super) fn scope(&mut self, what: &str, schema_url: &str, scope: Option<&InstrumentationScope>) {
        self.line(format_args!("{what} SchemaURL: {schema_url}"));
        let Some(scope) = scope else {
            self.line(format_args!("InstrumentationScope  "));
            return;
        };
        self.line(format_args!("InstrumentationScope {} {}", scope.name, scope.version));
        self.attributes("InstrumentationScope attributes:", "     ", &scope.attributes);
    }

    /// A heading and a line for each attribute; nothing if there are none.
    pub(super) fn attributes(&mut self, heading: &str, indent: &str, attributes: &[KeyValue]) {
        if attributes.is_empty() {
            return;
        }
        self.line(format_args!("{heading}"));
        for attribute in attributes {
            let typed = typed(attribute.value.as_ref());
            self.line(format_args!("{indent}-> {}: {typed}", attribute.key));
        }
    }
}

/// `Str(text)`, `Int(1)`.
pub(super) fn typed(value: Option<&AnyValue>) -> String {
    let plain = plain(value);
    match value.and_then(|value| value.value.as_ref()) {
        None => "Empty()".to_owned(),
        Some(Value::StringValue(_)) => format!("Str({plain})"),
        Some(Value::BoolValue(_)) => format!("Bool({plain})"),
        Some(Value::IntValue(_)) => format!("Int({plain})"),
        Some(Value::DoubleValue(_)) => format!("Double({plain})"),
        Some(Value::ArrayValue(_)) => format!("Slice({plain})"),
        Some(Value::KvlistValue(_)) => format!("Map({plain})"),
        Some(Value::BytesValue(_)) => format!("Bytes({plain})"),
        Some(_) => format!("({plain})"),
    }
}

/// The value alone; collections as JSON.
pub(super) fn plain(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(_) => json(value).to_string(),
        None => String::new(),
    }
}

fn json(value: Option<&AnyValue>) -> serde_json::Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone().into(),
        Some(Value::BoolValue(truth)) => (*truth).into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(Value::ArrayValue(array)) => array.values.iter().map(|value| json(Some(value))).collect(),
        Some(Value::KvlistValue(map)) => {
            map.values.iter().map(|entry| (entry.key.clone(), json(entry.value.as_ref()))).collect()
        }
        Some(Value::BytesValue(bytes)) => hex::encode(bytes).into(),
        _ => serde_json::Value::Null,
    }
}

/// ` key=value` for each attribute.
pub(super) fn inline(attributes: &[KeyValue]) -> String {
    attributes.iter().map(|attribute| format!(" {}={}", attribute.key, plain(attribute.value.as_ref()))).collect()
}

/// ` name@version` and its attributes.
pub(super) fn inline_scope(scope: Option<&InstrumentationScope>) -> String {
    let Some(scope) = scope else { return String::new() };
    let mut text = String::new();
    if !scope.name.is_empty() {
        text = format!(" {}", scope.name);
    }
    if !scope.version.is_empty() {
        text = format!("{text}@{}", scope.version);
    }
    text + &inline(&scope.attributes)
}

/// ` key=value` for each attribute of the resource.
pub(super) fn inline_resource(resource: Option<&Resource>) -> String {
    resource.map(|resource| inline(&resource.attributes)).unwrap_or_default()
}

/// `2020-02-11 20:26:12.000000321 +0000 UTC`, as Go writes it.
pub(super) fn time(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = match nanos % 1_000_000_000 {
        0 => String::new(),
        fraction => format!(".{fraction:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
}

/// Days since 1970 to a date: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}
