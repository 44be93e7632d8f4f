//! What a sample costs. Not a test of anything: run it with
//! `cargo test --profile bench -p nyquist-exporters -- --ignored --nocapture cost_of`.

use std::sync::Arc;

use nyquist_core::proto::metrics::v1::{MetricsData, metric::Data};
use nyquist_core::telemetry::Telemetry;
use prost::Message;

use crate::prometheus_mapping::{HashSeed, Settings, Translator};
use crate::prometheus_remote_write::encode::{EncodeScratch, SeriesSink};
use crate::prometheus_remote_write::outgoing::{Limits, Outgoing, Waiting};
use crate::prometheus_remote_write::pending::Pending;
use crate::prometheus_remote_write::protocol::Version;
use crate::prometheus_remote_write::rows::Segment;
use crate::prometheus_remote_write::stats::Stats;
use crate::prometheus_remote_write::{v1, v2};
use crate::testing::*;

const SHARDS: usize = 5;

/// Five attributes in OpenTelemetry's spelling.
fn labels(n: usize) -> Vec<(&'static str, String)> {
    vec![
        ("http.request.method", "GET".to_owned()),
        ("http.response.status_code", (200 + n % 5).to_string()),
        ("http.route", format!("/api/v1/things/{n}")),
        ("server.address", "cart.shop.svc.cluster.local".to_owned()),
        ("url.scheme", "https".to_owned()),
    ]
}

fn numbers(count: usize) -> MetricsData {
    let points = (0..count).map(|n| {
        let labels = labels(n);
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        number(n as f64 + 0.25, T, &labels)
    });
    push(vec![sum("http.server.requests", "{request}", true, CUMULATIVE, points.collect())])
}

fn histograms(count: usize) -> MetricsData {
    let mut metric = histogram(histogram_point());
    if let Some(Data::Histogram(histogram)) = &mut metric.data {
        let points = (0..count).map(|n| {
            let labels = labels(n);
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut point = histogram_point();
            point.attributes = attributes(&labels);
            point.explicit_bounds =
                vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
            point.bucket_counts = (0..15).collect();
            point
        });
        histogram.data_points = points.collect();
    }
    push(vec![metric])
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_sample() {
    for (what, data) in [("counters, 5 attributes", numbers(500)), ("histograms of 15 buckets", histograms(50))] {
        let bytes = data.encode_to_vec();
        let stats = Stats::new(&Telemetry::new(), "rw", SHARDS);
        let mut translator = Translator::new(Arc::new(Settings::default()), HashSeed::default());
        let mut scratch = EncodeScratch::default();
        let mut encoder = snap::raw::Encoder::new();
        let (mut samples, mut body_bytes) = (0, 0);
        let mut message = Vec::new();
        let mut buffers = v2::Buffers::new();
        let mut cost = |version: Option<Version>| {
            let begun = cpu_nanos();
            (samples, body_bytes) = (0, 0);
            for _ in 0..2000 {
                let mut sink = SeriesSink {
                    segments: (0..SHARDS).map(|_| Segment::default()).collect(),
                    scratch: &mut scratch,
                    stats: &stats,
                    targets: Vec::new(),
                    metadata: None,
                    metric: None,
                    untranslatable: 0,
                    series: 0,
                };
                translator.translate(&bytes, &mut sink);
                samples += sink.series;
                let Some(version) = version else { continue };
                for segment in sink.segments {
                    let pending = Arc::new(Pending::new(segment.chunks.len()));
                    let mut waiting = [Waiting::new(segment, Arc::default(), pending)].into_iter().collect();
                    let mut outgoing = Outgoing::take(&mut waiting, Limits { bytes: 3_000_000, samples: 2000 });
                    outgoing.put_in_order();
                    message.clear();
                    match version {
                        Version::V1 => outgoing
                            .chunks()
                            .for_each(|(chunk, row, metric)| v1::put_chunk(&mut message, chunk, row, metric)),
                        Version::V2 => {
                            let mut request = v2::Message::new(&mut buffers);
                            outgoing.chunks().for_each(|(chunk, row, metric)| request.put_chunk(chunk, row, metric));
                            request.finish(&mut message);
                        }
                    }
                    body_bytes += encoder.compress_vec(&message).unwrap().len();
                }
            }
            ((cpu_nanos() - begun) / samples, body_bytes / samples as usize)
        };
        let (translating, _) = cost(None);
        for version in [Version::V1, Version::V2] {
            let (all, on_the_wire) = cost(Some(version));
            println!(
                "{what}, {version:?}: {translating} ns CPU to translate and {} ns to cut, check, write and compress a \
                 sample; {on_the_wire} bytes on the wire",
                all.saturating_sub(translating),
            );
        }
    }
}

/// CPU time of this thread: the machine may be busy with other things.
fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}
