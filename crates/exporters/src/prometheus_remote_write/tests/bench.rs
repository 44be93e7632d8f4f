//! A push through configuration, translation and encoding in both versions of the protocol, without a socket.

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::telemetry::Telemetry;
use prost::Message;

use super::prompb::{TimeSeries, WriteRequest};
use super::prompb_v2;
use crate::prometheus_mapping::{HashSeed, Partition, TargetInfo, Translator};
use crate::prometheus_remote_write::LeFormat;
use crate::prometheus_remote_write::clashes::Clashes;
use crate::prometheus_remote_write::encode::{EncodeScratch, SeriesSink};
use crate::prometheus_remote_write::metadata::MetadataLog;
use crate::prometheus_remote_write::outgoing::{Limits, Outgoing, Waiting};
use crate::prometheus_remote_write::pending::Pending;
use crate::prometheus_remote_write::stats::Stats;
use crate::prometheus_remote_write::{v1, v2};
use crate::testing::*;

/// Translates pushes with one state, as the exporter does.
pub(super) struct Bench {
    translator: Translator,
    target_info: TargetInfo,
    metadata: Option<MetadataLog>,
    clashes: Clashes,
    le_format: LeFormat,
    telemetry: Arc<Telemetry>,
    stats: Stats,
    /// The metadata of the last request of 2.0.
    pub(super) described: Vec<prompb_v2::Described>,
    pub(super) now: Duration,
    pub(super) untranslatable: usize,
}

impl Bench {
    pub(super) fn new(config: &str) -> Self {
        let config = super::read("http://unused/", config);
        let le_format = config.le_format;
        let settings = Arc::new(config.mapping());
        let seed = HashSeed::default();
        let telemetry = Telemetry::new();
        Self {
            target_info: TargetInfo::new(&settings.namespace, &seed),
            clashes: Clashes::new(seed.clone()),
            translator: Translator::new(settings, seed),
            metadata: config.send_metadata.then(MetadataLog::new),
            stats: Stats::new(&telemetry, "rw", 1),
            telemetry,
            le_format,
            described: Vec::new(),
            now: Duration::from_secs(1000),
            untranslatable: 0,
        }
    }

    pub(super) fn request(&mut self, data: &MetricsData) -> WriteRequest {
        let mut scratch = EncodeScratch::new(self.le_format);
        let metadata = self.metadata.as_ref().map(|log| (log, self.now));
        let mut sink = SeriesSink { metadata, ..SeriesSink::new(1, &mut scratch, &self.stats) };
        self.translator.translate(&data.encode_to_vec(), &mut sink);
        for target in std::mem::take(&mut sink.targets) {
            self.target_info.note(&target.view(), self.now);
        }
        self.target_info.emit(self.now, T, &mut sink);
        self.untranslatable += sink.untranslatable;
        let mut untranslatable = 0;
        if sink.has_neighbours {
            self.clashes.settle(&mut sink.segments, Partition::default(), self.now, |metric, points| {
                untranslatable += points;
                self.stats.clashing(metric, points);
            });
        }
        self.untranslatable += untranslatable;
        let segment = sink.segments.pop().unwrap();
        let pending = Arc::new(Pending::new(segment.chunks.len()));
        let mut waiting = [Waiting::new(segment, Arc::default(), pending)].into_iter().collect();
        let mut outgoing = Outgoing::take(&mut waiting, Limits { bytes: usize::MAX, samples: usize::MAX });
        outgoing.put_in_order(|metric, other, points| self.stats.replaced(metric, other, points));
        let mut message = Vec::new();
        outgoing.chunks().for_each(|(chunk, row, metric)| v1::put_chunk(&mut message, chunk, row, metric));
        assert_eq!(message.len(), outgoing.v1_len());
        let v1 = WriteRequest::decode(message.as_slice()).unwrap();
        if v1.timeseries.is_empty() {
            return v1;
        }
        let mut buffers = v2::Buffers::new();
        let mut request = v2::Message::new(&mut buffers);
        outgoing.chunks().for_each(|(chunk, row, metric)| request.put_chunk(chunk, row, metric));
        let mut message = Vec::new();
        request.finish(&mut message);
        let (v2, described) = prompb_v2::resolve(&message);
        // As text, because a NaN differs from itself.
        let lines =
            |request: &WriteRequest| -> Vec<Vec<String>> { request.timeseries.iter().map(TimeSeries::lines).collect() };
        assert_eq!(lines(&v2), lines(&v1), "2.0 says the same");
        self.described = described;
        WriteRequest { metadata: v1.metadata, ..v2 }
    }

    pub(super) fn lines(&mut self, data: &MetricsData) -> Vec<String> {
        let mut lines: Vec<String> = self.request(data).timeseries.iter().flat_map(|series| series.lines()).collect();
        lines.sort();
        lines
    }

    pub(super) fn dropped(&self, reason: &str) -> u64 {
        let name = "otelcol_exporter_prometheusremotewrite_dropped_points";
        self.telemetry.sum(name, &[("reason", reason)])
    }

    pub(super) fn counted(&self, what: &str) -> u64 {
        self.telemetry.sum(&format!("otelcol_exporter_prometheusremotewrite_{what}"), &[])
    }
}

/// `B` of the cases: the labels that the resource gives.
pub(super) const B: &str = r#"instance="i-1",job="shop/cart""#;

/// Translates one push and compares: `%B` stands for the base labels, `%T` for the time.
#[track_caller]
pub(super) fn check_with(config: &str, case: &str, data: &MetricsData, expected: &[&str]) -> Bench {
    let mut bench = Bench::new(config);
    let mut expected: Vec<String> =
        expected.iter().map(|line| line.replace("%B", B).replace("%T", &T.to_string())).collect();
    expected.sort();
    assert_eq!(bench.lines(data), expected, "{case}");
    bench
}

#[track_caller]
pub(super) fn check(case: &str, data: &MetricsData, expected: &[&str]) -> Bench {
    check_with("{}", case, data, expected)
}
