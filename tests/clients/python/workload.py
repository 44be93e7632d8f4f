"""Sends a known workload with the real OpenTelemetry SDK and prints what it sent, as JSON.

The classes of traces are those of the composite sampler: each trace belongs to exactly one, so that
the test can say for each what must arrive.
"""

import argparse
import json
import random
import time

from opentelemetry import trace
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

IMPORTANT_USERS = ["user-vip-1", "user-vip-2"]
IMPORTANT_OPERATION = "POST /checkout/pay"
MILLISECOND = 1_000_000


def trace_exporter(protocol, port):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"http://127.0.0.1:{port}/v1/traces")


def metric_exporter(protocol, port):
    # Batches of 20,000 points keep a request under gRPC's default limit of 4 MiB.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True, max_export_batch_size=20_000)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=f"http://127.0.0.1:{port}/v1/metrics")


def provider(service, arguments):
    resource = Resource({"service.name": service, "service.instance.id": f"{service}-1", "deployment.environment": "test"})
    made = TracerProvider(resource=resource)
    exporter = trace_exporter(arguments.protocol, arguments.port)
    # A queue with room for everything: the SDK drops silently when it is full.
    made.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=1_000_000, schedule_delay_millis=200))
    return made


def send_traces(arguments):
    front = provider(arguments.service, arguments)
    back = provider(f"{arguments.service}-backend", arguments)
    front_tracer = front.get_tracer("workload.front", "1.0")
    back_tracer = back.get_tracer("workload.back", "2.0")
    classes = ["error", "user", "operation", "slow", "rest"]
    work = [name for name in classes for _ in range(getattr(arguments, name))]
    random.Random(7).shuffle(work)
    sent = {}
    for number, kind in enumerate(work):
        trace_id, spans = one_trace(front_tracer, back_tracer, kind, number)
        sent[trace_id] = {"class": kind, "spans": spans}
    front.shutdown()
    back.shutdown()
    return sent


def one_trace(front, back, kind, number):
    """A root with two children, the second of which has a child in another service."""
    now = time.time_ns()
    duration = 2_500 * MILLISECOND if kind == "slow" else 30 * MILLISECOND
    start = now - duration
    user = IMPORTANT_USERS[number % 2] if kind == "user" else f"user-{number}"
    root = front.start_span(
        IMPORTANT_OPERATION if kind == "operation" else f"GET /products/{number % 20}",
        context=trace.set_span_in_context(trace.INVALID_SPAN),
        kind=SpanKind.SERVER,
        start_time=start,
        attributes={
            "http.request.method": "GET",
            "http.route": "/products/{id}",
            "http.response.status_code": 200,
            "user.id": user,
            "cart.total": 12.5,
            "flags": ["a", "b"],
        },
    )
    inside = trace.set_span_in_context(root)
    cache = front.start_span("cache.get", context=inside, kind=SpanKind.INTERNAL, start_time=start + MILLISECOND)
    cache.end(start + 2 * MILLISECOND)
    call = front.start_span("inventory.call", context=inside, kind=SpanKind.CLIENT, start_time=start + 3 * MILLISECOND)
    served = back.start_span(
        "inventory.serve",
        context=trace.set_span_in_context(call),
        kind=SpanKind.SERVER,
        start_time=start + 4 * MILLISECOND,
        attributes={"db.system": "postgresql", "db.query.text": "SELECT * FROM inventory WHERE id = $1"},
    )
    if kind == "error":
        mark_as_error(root, served, number)
    served.end(start + 10 * MILLISECOND)
    call.end(start + 11 * MILLISECOND)
    root.end(start + duration)
    spans = [f"{span.get_span_context().span_id:016x}" for span in (root, cache, call, served)]
    return f"{root.get_span_context().trace_id:032x}", spans


def mark_as_error(root, served, number):
    """Errors look different from library to library: all of them count."""
    variant = number % 5
    if variant == 0:
        root.set_status(Status(StatusCode.ERROR, "payment refused"))
    elif variant == 1:
        served.record_exception(ValueError("no such product"))
    elif variant == 2:
        served.set_attribute("error", True)
    elif variant == 3:
        root.set_attribute("error", "true")
    else:
        served.set_attribute("error", 1)


def send_metrics(arguments):
    attributes = {"service.name": arguments.service, "service.instance.id": f"{arguments.service}-1", "cloud.region": "r1"}
    resource = Resource(attributes)
    # The SDK's own limit of 2,000 series would hide what the gateway's does.
    reader = PeriodicExportingMetricReader(
        metric_exporter(arguments.protocol, arguments.port),
        export_interval_millis=3_600_000,
        export_timeout_millis=60_000,
        cardinality_limits={Counter: 1_000_000},
    )
    meters = MeterProvider(resource=resource, metric_readers=[reader])
    meter = meters.get_meter("workload", "1.0")
    orders = meter.create_counter("shop.orders", unit="1", description="Orders placed")
    duration = meter.create_histogram("shop.request.duration", unit="s", description="Time to answer")
    queue = meter.create_up_down_counter("shop.queue.length", unit="{item}")
    temperature = meter.create_gauge("shop.temperature", unit="Cel")
    logins = meter.create_counter("shop.logins", description="One series for each user: too many")
    expected = {"orders": 0, "orders_eu": 0, "duration_count": 0, "duration_sum": 0.0, "queue": 0, "logins": 0}
    # Two exports: the second must add to the first, not replace it.
    for round_number in range(2):
        for number in range(300):
            region = "eu" if number % 3 == 0 else "us"
            orders.add(number, {"region": region, "method": "card"})
            expected["orders"] += number
            expected["orders_eu"] += number if region == "eu" else 0
            seconds = (number % 10) / 8
            duration.record(seconds, {"region": region})
            expected["duration_count"] += 1
            expected["duration_sum"] += seconds
            queue.add(2 if number % 2 == 0 else -1, {"queue": "orders"})
            expected["queue"] += 2 if number % 2 == 0 else -1
        temperature.set(20.5 + round_number, {"room": "north"})
        for number in range(arguments.values):
            logins.add(1 + number % 3, {"user.id": f"user-{number}", "method": "password"})
            expected["logins"] += 1 + number % 3
        if not meters.force_flush(60_000):
            raise SystemExit("failed to export metrics")
    expected["temperature"] = 21.5
    meters.shutdown(timeout_millis=60_000)
    return expected


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--protocol", choices=["grpc", "http"], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--service", required=True)
    parser.add_argument("--signal", choices=["traces", "metrics"], required=True)
    parser.add_argument("--values", type=int, default=0, help="distinct users in shop.logins")
    for name in ["error", "user", "operation", "slow", "rest"]:
        parser.add_argument(f"--{name}", type=int, default=0)
    arguments = parser.parse_args()
    summary = {"traces": {}, "metrics": {}}
    if arguments.signal == "traces":
        summary["traces"] = send_traces(arguments)
    else:
        summary["metrics"] = send_metrics(arguments)
    print(json.dumps(summary))


main()
