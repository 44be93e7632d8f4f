// Sends a known workload with the real OpenTelemetry SDK over OTLP/HTTP with JSON and prints what it
// sent, as JSON. The same classes of traces as in ../python/workload.py.

const { parseArgs } = require('node:util');
const { context, trace, ROOT_CONTEXT, SpanKind, SpanStatusCode } = require('@opentelemetry/api');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { MeterProvider, PeriodicExportingMetricReader } = require('@opentelemetry/sdk-metrics');
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-http');
const { OTLPMetricExporter } = require('@opentelemetry/exporter-metrics-otlp-http');
const { resourceFromAttributes } = require('@opentelemetry/resources');

const CLASSES = ['error', 'user', 'operation', 'slow', 'rest'];
const IMPORTANT_USERS = ['user-vip-1', 'user-vip-2'];
const IMPORTANT_OPERATION = 'POST /checkout/pay';

function provider(service, port) {
  const exporter = new OTLPTraceExporter({ url: `http://127.0.0.1:${port}/v1/traces` });
  const processor = new BatchSpanProcessor(exporter, { maxQueueSize: 1_000_000, scheduledDelayMillis: 200 });
  const resource = resourceFromAttributes({ 'service.name': service, 'service.instance.id': `${service}-1` });
  return new BasicTracerProvider({ resource, spanProcessors: [processor] });
}

async function sendTraces(options) {
  const front = provider(options.service, options.port);
  const back = provider(`${options.service}-backend`, options.port);
  const sent = {};
  let number = 0;
  for (const kind of CLASSES) {
    for (let i = 0; i < Number(options[kind]); i += 1) {
      const { traceId, spans } = oneTrace(front.getTracer('front', '1.0'), back.getTracer('back'), kind, number);
      sent[traceId] = { class: kind, spans };
      number += 1;
    }
  }
  await front.shutdown();
  await back.shutdown();
  return sent;
}

function oneTrace(front, back, kind, number) {
  const end = Date.now();
  const start = end - (kind === 'slow' ? 2500 : 30);
  const user = kind === 'user' ? IMPORTANT_USERS[number % 2] : `user-${number}`;
  const name = kind === 'operation' ? IMPORTANT_OPERATION : `GET /products/${number % 20}`;
  const attributes = { 'http.request.method': 'GET', 'user.id': user, 'cart.total': 12.5, flags: ['a', 'b'] };
  const root = front.startSpan(name, { kind: SpanKind.SERVER, startTime: start, attributes }, ROOT_CONTEXT);
  const inside = trace.setSpan(ROOT_CONTEXT, root);
  const cache = front.startSpan('cache.get', { startTime: start + 1 }, inside);
  cache.end(start + 2);
  const call = front.startSpan('inventory.call', { kind: SpanKind.CLIENT, startTime: start + 3 }, inside);
  const served = back.startSpan('inventory.serve', { kind: SpanKind.SERVER, startTime: start + 4 }, trace.setSpan(ROOT_CONTEXT, call));
  if (kind === 'error') markAsError(root, served, number);
  served.end(start + 10);
  call.end(start + 11);
  root.end(end);
  const spans = [root, cache, call, served].map((span) => span.spanContext().spanId);
  return { traceId: root.spanContext().traceId, spans };
}

// Errors look different from library to library: all of them count.
function markAsError(root, served, number) {
  const variant = number % 5;
  if (variant === 0) root.setStatus({ code: SpanStatusCode.ERROR, message: 'payment refused' });
  else if (variant === 1) served.recordException(new Error('no such product'));
  else if (variant === 2) served.setAttribute('error', true);
  else if (variant === 3) root.setAttribute('error', 'true');
  else served.setAttribute('error', 1);
}

async function sendMetrics(options) {
  const exporter = new OTLPMetricExporter({ url: `http://127.0.0.1:${options.port}/v1/metrics` });
  const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 });
  const resource = resourceFromAttributes({ 'service.name': options.service, 'service.instance.id': `${options.service}-1` });
  const meters = new MeterProvider({ resource, readers: [reader] });
  const meter = meters.getMeter('workload');
  const visits = meter.createCounter('shop.visits', { unit: '1' });
  const size = meter.createHistogram('shop.basket.size', { unit: 'By' });
  const expected = { visits: 0, size_count: 0, size_sum: 0 };
  for (let round = 0; round < 2; round += 1) {
    for (let number = 0; number < 100; number += 1) {
      visits.add(number, { page: `page-${number % 4}` });
      expected.visits += number;
      size.record(number * 10);
      expected.size_count += 1;
      expected.size_sum += number * 10;
    }
    await meters.forceFlush();
  }
  await meters.shutdown();
  return expected;
}

async function main() {
  const text = (fallback) => ({ type: 'string', default: fallback });
  const { values: options } = parseArgs({
    options: {
      port: text(undefined), service: text(undefined), signal: text(undefined),
      error: text('0'), user: text('0'), operation: text('0'), slow: text('0'), rest: text('0'),
    },
  });
  const summary = { traces: {}, metrics: {} };
  if (options.signal === 'traces') summary.traces = await sendTraces(options);
  else summary.metrics = await sendMetrics(options);
  // Data that did not arrive is reported by the SDK's diagnostics and by the test's own count.
  process.stdout.write(`${JSON.stringify(summary)}\n`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
