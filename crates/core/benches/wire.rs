//! What the wire layer costs a span or point. Run: `cargo bench -p nyquist-core --bench wire`.
//!
//! Figures are the best of many rounds: the machine's noise only ever adds.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a measurement, run by hand")]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use nyquist_core::proto::metrics::v1::{
    Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use nyquist_core::proto::resource::v1::Resource;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData};
use nyquist_core::wire;
use prost::Message;

const SPANS: usize = 500;

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn attributes(index: usize) -> Vec<KeyValue> {
    vec![
        text("http.request.method", "GET"),
        text("http.route", "/api/v1/orders/{id}"),
        attribute("http.response.status_code", any_value::Value::IntValue(200)),
        text("url.path", &format!("/api/v1/orders/{index:05}")),
        text("server.address", "orders.example.com"),
        attribute("server.port", any_value::Value::IntValue(8443)),
        text("user.id", &format!("user-{:04}", index % 977)),
        text("customer.tier", "gold"),
        attribute("cache.hit", any_value::Value::BoolValue(index.is_multiple_of(3))),
        text("deployment.version", "2026.11.3"),
    ]
}

fn resource() -> Option<Resource> {
    Some(Resource {
        attributes: vec![text("service.name", "orders"), text("host.name", "ip-10-0-17-3")],
        ..Default::default()
    })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "bench".into(), version: "1.0".into(), ..Default::default() })
}

fn traces() -> Bytes {
    let spans = (0..SPANS)
        .map(|index| Span {
            trace_id: (1 + (index / 10) as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_0C5F).to_be_bytes().to_vec(),
            span_id: (1 + index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec(),
            parent_span_id: vec![7; 8],
            name: "GET /api/v1/orders/{id}".into(),
            kind: 2,
            start_time_unix_nano: 1_790_000_000_000_000_000 + index as u64,
            end_time_unix_nano: 1_790_000_000_050_000_000 + index as u64,
            attributes: attributes(index),
            status: Some(Status::default()),
            flags: 0x101,
            ..Default::default()
        })
        .collect();
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..Default::default() }];
    let data =
        TracesData { resource_spans: vec![ResourceSpans { resource: resource(), scope_spans, ..Default::default() }] };
    data.encode_to_vec().into()
}

fn metrics() -> Bytes {
    let metrics = (0..50)
        .map(|index| Metric {
            name: format!("http.server.request.size.{index}"),
            unit: "By".into(),
            data: Some(metric::Data::Gauge(Gauge {
                data_points: (0..10)
                    .map(|point| NumberDataPoint {
                        attributes: attributes(point),
                        start_time_unix_nano: 1_790_000_000_000_000_000,
                        time_unix_nano: 1_790_000_010_000_000_000,
                        value: Some(number_data_point::Value::AsInt(point as i64)),
                        ..Default::default()
                    })
                    .collect(),
            })),
            ..Default::default()
        })
        .collect();
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, ..Default::default() }];
    let data = MetricsData {
        resource_metrics: vec![ResourceMetrics { resource: resource(), scope_metrics, ..Default::default() }],
    };
    data.encode_to_vec().into()
}

/// Prints the best time of `run`, divided by `items`.
fn measure(name: &str, items: usize, mut run: impl FnMut()) {
    // `cargo bench --bench wire -- check` runs only what has "check" in its name.
    if std::env::args().skip(1).any(|filter| !filter.starts_with("--") && !name.contains(&filter)) {
        return;
    }
    let mut best = f64::MAX;
    for _ in 0..2000 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_nanos() as f64);
    }
    println!("{name:<44} {:>8.1} ns", best / items as f64);
}

fn main() {
    let requests = traces();
    println!("{} bytes a span", requests.len() / SPANS);
    measure("traces: check", SPANS, || {
        black_box(wire::check(Signal::Traces, black_box(&requests)).unwrap());
    });
    measure("traces: prost decode", SPANS, || {
        black_box(TracesData::decode(black_box(requests.clone())).unwrap());
    });
    measure("traces: fields of every span", SPANS, || {
        for resource in wire::TracesView::new(black_box(&requests)).resource_spans() {
            for scope in resource.scope_spans() {
                for span in scope.spans() {
                    black_box(span.fields());
                }
            }
        }
    });
    measure("traces: every attribute of every span", SPANS, || {
        for resource in wire::TracesView::new(black_box(&requests)).resource_spans() {
            for scope in resource.scope_spans() {
                for span in scope.spans() {
                    for attribute in span.attributes() {
                        black_box(attribute);
                    }
                }
            }
        }
    });

    let keys = wire::KeySet::new(["customer.tier", "http.route", "http.response.status_code", "error.type"]);
    measure("traces: four keys looked up in every span", SPANS, || {
        for resource in wire::TracesView::new(black_box(&requests)).resource_spans() {
            for scope in resource.scope_spans() {
                for span in scope.spans() {
                    let mut found = [None; 4];
                    span.attributes().select(&keys, |index, value| found[index] = Some(value));
                    black_box(found);
                }
            }
        }
    });
    measure("traces: retain, everything kept", SPANS, || {
        black_box(wire::retain_spans(black_box(&requests), |_| true));
    });
    measure("traces: retain, every tenth kept", SPANS, || {
        let mut index = 0;
        black_box(wire::retain_spans(black_box(&requests), |_| {
            index += 1;
            index % 10 == 0
        }));
    });
    measure("traces: split by trace, 10 spans each", SPANS, || {
        black_box(wire::split_by_trace(black_box(&requests)));
    });
    measure("traces: split by size, 100 spans each", SPANS, || {
        black_box(wire::split_by_size(Signal::Traces, black_box(&requests), wire::SizeLimit::items(100)));
    });
    let all: Vec<_> = wire::TracesView::new(&requests)
        .resource_spans()
        .flat_map(|resource| {
            resource
                .scope_spans()
                .flat_map(move |scope| scope.spans().map(move |span| (resource.header(), scope.header(), span.bytes())))
        })
        .collect();
    measure("traces: build, headers hashed", SPANS, || {
        let mut builder = wire::TracesBuilder::new();
        for (index, (resource, scope, span)) in all.iter().enumerate() {
            // Two spellings of one header, so that the last one seen does not serve.
            let resource = if index % 2 == 0 { resource } else { &all[0].0 };
            builder.push(resource, scope, span);
        }
        black_box(builder.finish());
    });

    let requests = metrics();
    println!("{} bytes a point", requests.len() / 500);
    measure("metrics: check", 500, || {
        black_box(wire::check(Signal::Metrics, black_box(&requests)).unwrap());
    });
}
