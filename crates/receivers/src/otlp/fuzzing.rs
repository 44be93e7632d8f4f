//! What holds for every input: the body of the fuzz target, which ordinary tests run too. Panics are findings.

use nyquist_core::batch::Signal;

use super::json;

/// The most that a message may come to in this test, in bytes.
const LIMIT: usize = 64 << 10;

/// Reads `data` as OTLP/JSON of the signal that its first byte chooses: what comes of it is within the limit, and
/// is OTLP that the ingress check takes.
pub fn otlp_json(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let Some(&signal) = Signal::ALL.get(usize::from(choice) % Signal::ALL.len()) else { return };
    let Ok(message) = json::to_wire(signal, text, LIMIT) else { return };
    assert!(message.len() <= LIMIT, "{} bytes", message.len());
    let checked = nyquist_core::wire::check(signal, &message);
    assert!(checked.is_ok(), "{checked:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUESTS: [&str; 3] = [
        r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a\u00e9\n"}}]},"scopeSpans":[{"scope":{"name":"s"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"n","kind":"SPAN_KIND_SERVER","startTimeUnixNano":"1700000000000000000","attributes":[{"key":"k","value":{"arrayValue":{"values":[{"intValue":"-7"},{"doubleValue":"NaN"},{"bytesValue":"AQID"},{"kvlistValue":{"values":[{"key":"x","value":{"boolValue":true}}]}}]}}}],"events":[{"timeUnixNano":1,"name":"e"}],"links":[{"traceId":"","spanId":""}],"status":{"code":2}}]}]}]}"#,
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","unit":"s","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{"asInt":"5","timeUnixNano":"1"},{"as_double":1.5e300}]}},{"histogram":{"dataPoints":[{"count":"3","sum":2.5,"bucketCounts":["1",2],"explicitBounds":[0.5]}]}},{"exponentialHistogram":{"dataPoints":[{"scale":-3,"positive":{"offset":-1,"bucketCounts":[1,2]}}]}}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":9,"body":{"stringValue":"text"},"traceId":"5B8EFFF798038103D269B633813FC60C","unknown":{"a":[1,{"b":null}]}}]}]}]}"#,
    ];

    #[test]
    fn the_requests_themselves_are_taken() {
        for (signal, text) in Signal::ALL.into_iter().zip(REQUESTS) {
            assert!(json::to_wire(signal, text.as_bytes(), LIMIT).is_ok(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Requests with bytes changed, parts repeated and parts cut out.
        #[test]
        fn damaged_requests(
            choice in 0..3u8,
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            splice in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>())),
        ) {
            let mut text = REQUESTS[usize::from(choice)].as_bytes().to_vec();
            for (index, byte) in flips {
                let at = index.index(text.len());
                text[at] = byte;
            }
            if let Some((from, to, at)) = splice {
                let (from, to) = (from.index(text.len()), to.index(text.len()));
                let part = text[from.min(to)..from.max(to)].to_vec();
                let at = at.index(text.len());
                if from < to {
                    text.splice(at..at, part);
                } else {
                    text.drain(to..from);
                }
            }
            otlp_json(&[&[choice], text.as_slice()].concat());
        }
    }
}
