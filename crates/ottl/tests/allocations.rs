//! The usual conditions allocate nothing. A program of its own, because it counts for the whole of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nyquist_ottl::{Condition, SpanContext, traces};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status};
use prost::Message;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// Sound because every call is handed to the system's allocator as it is; the counter is a plain
// `Cell` without a destructor, so touching it neither allocates nor re-enters.
#[allow(unsafe_code, reason = "an allocator is an unsafe trait; this one only counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[test]
fn the_usual_conditions_allocate_nothing() {
    let span = Span {
        name: "GET /cart".to_owned(),
        kind: 2,
        start_time_unix_nano: 1,
        end_time_unix_nano: 2_000_000_000,
        attributes: vec![
            attribute("user.id", Value::StringValue("u1".to_owned())),
            attribute("http.response.status_code", Value::IntValue(503)),
        ],
        status: Some(Status { code: 2, ..Status::default() }),
        events: vec![Event { name: "exception".to_owned(), ..Event::default() }],
        ..Span::default()
    };
    let service = attribute("service.name", Value::StringValue("pay".to_owned()));
    let resource = Resource { attributes: vec![service], ..Resource::default() };
    let resource_spans = ResourceSpans { resource: Some(resource), ..ResourceSpans::default() }.encode_to_vec();
    let span = span.encode_to_vec();
    let conditions = [
        r#"attributes["user.id"] == "u1" and span.attributes["missing"] == nil"#,
        r#"attributes["http.response.status_code"] >= 500"#,
        r#"resource.attributes["service.name"] == "pay""#,
        r#"name == "GET /cart" and kind == SPAN_KIND_SERVER and status.code == STATUS_CODE_ERROR"#,
        r#"IsMatch(name, "^GET /c") and IsMatch(attributes["user.id"], "u[0-9]")"#,
        r#"end_time_unix_nano - start_time_unix_nano > 1000000000"#,
        r#"end_time - start_time > Duration("1s") and IsRootSpan()"#,
        r#"ContainsValue(["u1", "u2"], attributes["user.id"]) and HasPrefix(name, "GET")"#,
        r#"IsString(attributes["user.id"]) and Len(name) > 3 and Len(events) == 1"#,
        r#"not (attributes["user.id"]["z"] == 1)"#,
    ];
    let compiled = conditions.map(|source| Condition::compile(source, &traces::SPAN).unwrap());
    let events = Condition::compile(r#"name == "exception""#, &traces::SPAN_EVENT).unwrap();
    let all = || {
        let context = SpanContext::new(&span, &resource_spans, &[]);
        let answers = compiled.each_ref().map(|condition| condition.eval(&context).unwrap_or(true));
        (answers, context.events().all(|event| events.eval(&event) == Ok(true)))
    };
    // The first time, patterns make their caches.
    all();
    let before = ALLOCATIONS.with(Cell::get);
    let answers = all();
    let allocations = ALLOCATIONS.with(Cell::get) - before;
    assert_eq!(answers, ([true; 10], true));
    assert_eq!(allocations, 0);
    // And the counter counts.
    drop(vec![0; answers.0.len()]);
    assert!(ALLOCATIONS.with(Cell::get) > before);
}
