//! Which format a scraper gets.
//!
//! <https://prometheus.io/docs/instrumenting/content_negotiation/>: of what `Accept` lists the format
//! with the highest weight that we have, and text to everybody else.

/// How a page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily` messages: the only format with native histograms.
    Protobuf,
}

/// What the scraper reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) encoding: Encoding,
    /// Names may be any UTF-8.
    pub(super) utf8_names: bool,
    /// Samples have times.
    pub(super) timestamps: bool,
}

/// One entry of an `Accept` header.
struct Offer<'a> {
    media_type: &'a str,
    /// In thousandths.
    weight: u32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Offer<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, &str)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let mut offer = Self { media_type, weight: 1000, parameters };
        if let Some(weight) = offer.parameter("q").and_then(|weight| weight.parse::<f64>().ok()) {
            // Saturates: whatever is written there.
            offer.weight = (weight.clamp(0.0, 1.0) * 1000.0) as u32;
        }
        offer
    }

    fn parameter(&self, wanted: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    }

    /// The encoding it asks for, if we have it.
    fn encoding(&self, open_metrics: bool) -> Option<Encoding> {
        match self.media_type.to_ascii_lowercase().as_str() {
            "application/vnd.google.protobuf" => {
                let is_ours = self.parameter("proto") == Some("io.prometheus.client.MetricFamily")
                    && self.parameter("encoding") == Some("delimited");
                is_ours.then_some(Encoding::Protobuf)
            }
            "application/openmetrics-text" if open_metrics => {
                let is_ours = matches!(self.parameter("version"), None | Some("" | "0.0.1" | "1.0.0"));
                is_ours.then_some(Encoding::OpenMetrics)
            }
            "text/plain" => {
                let is_ours = matches!(self.parameter("version"), None | Some("" | "0.0.4" | "1.0.0"));
                is_ours.then_some(Encoding::Text)
            }
            "text/*" | "*/*" => Some(Encoding::Text),
            _ => None,
        }
    }
}

impl Format {
    /// What `accept` asks for.
    pub(super) fn negotiate(accept: &str, enable_open_metrics: bool, timestamps: bool) -> Self {
        let offers: Vec<Offer<'_>> = accept.split(',').map(Offer::parse).filter(|offer| offer.weight > 0).collect();
        let allows_utf8 = |offer: &Offer<'_>| offer.parameter("escaping") == Some("allow-utf-8");
        let known = offers.iter().filter_map(|offer| Some((offer.encoding(enable_open_metrics)?, offer)));
        // Of equal weights the first one.
        let best = known.reduce(|best, next| if next.1.weight > best.1.weight { next } else { best });
        let Some((encoding, offer)) = best else {
            return Self { encoding: Encoding::Text, utf8_names: false, timestamps };
        };
        // Prometheus says it of the text formats only, but reads such names in any format.
        let utf8_names = match encoding {
            Encoding::Protobuf => offers.iter().any(allows_utf8),
            Encoding::Text | Encoding::OpenMetrics => allows_utf8(offer),
        };
        Self { encoding, utf8_names, timestamps }
    }

    pub(super) fn is_open_metrics(self) -> bool {
        self.encoding == Encoding::OpenMetrics
    }

    pub(super) fn content_type(self) -> &'static str {
        match (self.encoding, self.utf8_names) {
            (Encoding::OpenMetrics, false) => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            (Encoding::OpenMetrics, true) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Encoding::Text, false) => "text/plain; version=0.0.4; charset=utf-8",
            (Encoding::Text, true) => "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
            (Encoding::Protobuf, false) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            (Encoding::Protobuf, true) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; \
                 escaping=allow-utf-8"
            }
        }
    }
}
