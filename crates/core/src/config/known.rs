//! Component types of the Collector's world: their spellings, and what to use where one is not built.
//!
//! The table says how a type may be written, whether it is built or not: a registered type answers to
//! every name in its row. The rest are refused with the advice. Which types matter was counted in
//! public configurations.

use super::Section;

/// One type.
pub(super) struct Known {
    pub(super) section: Section,
    /// The Collector's present name first, then older spellings.
    pub(super) names: &'static [&'static str],
    /// What comes nearest, for a type that is not built.
    pub(super) nearest: &'static str,
    /// Whether a configuration that uses it runs without it.
    pub(super) dispensable: bool,
}

/// The row of a type, if there is one.
pub(super) fn find(section: Section, kind: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.section == section && known.names.contains(&kind))
}

/// All spellings of the types of `section`.
pub(super) fn names(section: Section) -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(move |known| known.section == section).flat_map(|known| known.names.iter().copied())
}

const AGENT: &str =
    "an agent beside the source: let a Collector there run it and send OTLP to this gateway's otlp receiver";
const SCRAPE: &str = "the prometheus receiver: list the endpoint under static_configs";
const VENDOR: &str = "the otlp_http exporter with the vendor's OTLP intake as its endpoint";
const QUEUE: &str = "the exporters' own sending_queue in front of the backend, and OTLP between gateways";
const OTTL: &str = "the attributes and resource processors, which set, copy, hash and delete attributes";
const SPANMETRICS: &str = "the span_metrics connector";
const SERVICE_GRAPH: &str = "a Collector with service_graph behind an otlp exporter";
const ENRICH: &str = "the resource processor for fixed attributes, or detection in the SDK or an agent";
const CREDENTIALS: &str = "bearertokenauth with a token file that something else keeps fresh";
const DROP: &str = "tail_sampling for traces, and cardinality_limit for metrics";

const fn known(section: Section, names: &'static [&'static str], nearest: &'static str) -> Known {
    Known { section, names, nearest, dispensable: false }
}

const fn dispensable(names: &'static [&'static str], nearest: &'static str) -> Known {
    Known { section: Section::Extensions, names, nearest, dispensable: true }
}

const fn receiver(names: &'static [&'static str], nearest: &'static str) -> Known {
    known(Section::Receivers, names, nearest)
}

const fn processor(names: &'static [&'static str], nearest: &'static str) -> Known {
    known(Section::Processors, names, nearest)
}

const fn exporter(names: &'static [&'static str], nearest: &'static str) -> Known {
    known(Section::Exporters, names, nearest)
}

const fn connector(names: &'static [&'static str], nearest: &'static str) -> Known {
    known(Section::Connectors, names, nearest)
}

const fn extension(names: &'static [&'static str], nearest: &'static str) -> Known {
    known(Section::Extensions, names, nearest)
}

const KNOWN: &[Known] = &[
    receiver(&["otlp"], ""),
    receiver(&["prometheus"], ""),
    receiver(&["prometheus_remote_write", "prometheusremotewrite"], ""),
    receiver(&["prometheus_simple", "simpleprometheus"], SCRAPE),
    receiver(
        &["jaeger"],
        "the otlp receiver: Jaeger clients are retired in favour of OpenTelemetry SDKs, which send OTLP",
    ),
    receiver(&["zipkin"], "the otlp receiver, with OpenTelemetry SDKs, or a Collector that translates Zipkin to OTLP"),
    receiver(&["opencensus"], "the otlp receiver: OpenCensus is retired in favour of OpenTelemetry SDKs"),
    receiver(&["skywalking"], AGENT),
    receiver(&["datadog"], AGENT),
    receiver(&["kafka"], "the otlp receiver, fed by a Collector with the kafka receiver"),
    receiver(&["kafka_metrics", "kafkametrics"], AGENT),
    receiver(&["host_metrics", "hostmetrics"], AGENT),
    receiver(&["kubelet_stats", "kubeletstats"], AGENT),
    receiver(&["k8s_cluster"], AGENT),
    receiver(&["k8s_events"], AGENT),
    receiver(&["k8s_objects", "k8sobjects"], AGENT),
    receiver(&["kymastats"], AGENT),
    receiver(&["docker_stats"], AGENT),
    receiver(&["file_log", "filelog"], AGENT),
    receiver(&["fluent_forward", "fluentforward"], AGENT),
    receiver(&["journald"], AGENT),
    receiver(&["syslog"], AGENT),
    receiver(&["tcplog", "tcp_log"], AGENT),
    receiver(&["udplog", "udp_log"], AGENT),
    receiver(&["windows_event_log", "windowseventlog"], AGENT),
    receiver(&["statsd"], AGENT),
    receiver(&["carbon"], AGENT),
    receiver(&["collectd"], AGENT),
    receiver(&["influxdb"], AGENT),
    receiver(&["loki"], AGENT),
    receiver(&["splunk_hec"], AGENT),
    receiver(&["signalfx"], AGENT),
    receiver(&["postgresql"], AGENT),
    receiver(&["mysql"], AGENT),
    receiver(&["mongodb"], AGENT),
    receiver(&["redis"], AGENT),
    receiver(&["nginx"], AGENT),
    receiver(&["apache"], AGENT),
    receiver(&["rabbitmq"], AGENT),
    receiver(&["sqlquery", "sql_query"], AGENT),
    receiver(&["http_check", "httpcheck"], AGENT),
    receiver(&["otlp_json_file", "otlpjsonfile"], ""),
    receiver(&["awsxray", "aws_xray"], AGENT),
    receiver(&["awscontainerinsightreceiver"], AGENT),
    receiver(&["receiver_creator"], AGENT),
    receiver(&["smartagent"], AGENT),
    receiver(&["discovery"], AGENT),
    receiver(&["nop"], "no receiver at all: leave the pipeline out"),
    processor(&["batch"], "the batch block of the exporters' sending_queue"),
    processor(&["memory_limiter"], ""),
    processor(&["tail_sampling"], ""),
    processor(&["cardinality_limit"], ""),
    processor(&["resource"], "the attributes processor"),
    processor(&["attributes"], "the resource processor"),
    processor(&["transform"], OTTL),
    processor(&["filter"], DROP),
    processor(&["probabilistic_sampler"], "tail_sampling with a rule of that sampling_percentage"),
    processor(&["resource_detection", "resourcedetection"], ENRICH),
    processor(&["k8s_attributes", "k8sattributes"], ENRICH),
    processor(&["metrics_transform", "metricstransform"], OTTL),
    processor(&["cumulative_to_delta", "cumulativetodelta"], ""),
    processor(&["delta_to_cumulative", "deltatocumulative"], ""),
    processor(&["delta_to_rate", "deltatorate"], "rate() in the backend"),
    processor(&["metric_start_time", "metricstarttime"], "start times as the SDKs set them"),
    processor(&["metrics_generation", "experimental_metricsgeneration"], "recording rules in the backend"),
    processor(&["interval"], "a longer export interval in the SDKs"),
    processor(&["span"], OTTL),
    processor(&["redaction"], "the attributes processor: delete or hash what must not leave"),
    processor(&["group_by_attrs", "groupbyattrs"], "sending resources as the SDKs build them"),
    processor(&["group_by_trace", "groupbytrace"], "tail_sampling, which groups by trace itself"),
    processor(&["routing"], "a pipeline for each destination"),
    processor(&["log_dedup", "logdedup"], DROP),
    processor(&["log_transform", "logstransform"], OTTL),
    processor(&["remote_tap", "remotetap"], "the debug exporter"),
    processor(&["servicegraph", "service_graph"], SERVICE_GRAPH),
    processor(&["spanmetrics", "span_metrics"], SPANMETRICS),
    processor(&["queuebatch", "queue_batch"], "the batch processor"),
    processor(&["gen_ai_normalizer"], OTTL),
    processor(&["service_enrichment"], ENRICH),
    processor(&["istio_noise_filter"], DROP),
    processor(&["signozllmpricing"], OTTL),
    processor(&["signozspanmapper"], OTTL),
    processor(&["signozspanmetrics"], SPANMETRICS),
    exporter(&["otlp_grpc", "otlp"], ""),
    exporter(&["otlp_http", "otlphttp"], ""),
    exporter(
        &["prometheus_remote_write", "prometheusremotewrite"],
        "the otlp_http exporter to Prometheus's own OTLP intake",
    ),
    exporter(&["prometheus"], "the prometheus_remote_write exporter"),
    exporter(&["load_balancing", "loadbalancing"], ""),
    exporter(&["debug"], ""),
    exporter(&["logging"], "the debug exporter"),
    exporter(&["file"], ""),
    exporter(&["jaeger"], "the otlp exporter: Jaeger takes OTLP on port 4317"),
    exporter(&["jaeger_thrift"], "the otlp exporter: Jaeger takes OTLP on port 4317"),
    exporter(&["zipkin"], "the otlp_http exporter: Zipkin-compatible backends take OTLP"),
    exporter(&["kafka"], QUEUE),
    exporter(&["pulsar"], QUEUE),
    exporter(&["rabbitmq"], QUEUE),
    exporter(&["nop"], "the debug exporter with verbosity basic"),
    exporter(&["opencensus"], "the otlp exporter"),
    exporter(&["otelarrow"], "the otlp exporter with zstd compression"),
    exporter(&["loki"], "the otlp_http exporter: Loki takes OTLP at /otlp"),
    exporter(&["clickhouse"], "the otlp exporter to a Collector with the clickhouse exporter"),
    exporter(&["clickhousetraces"], "the otlp exporter to a Collector with that exporter"),
    exporter(&["signozclickhousemetrics"], "the otlp exporter to a Collector with that exporter"),
    exporter(&["clickhouselogsexporter"], "the otlp exporter to a Collector with that exporter"),
    exporter(&["metadataexporter"], "the otlp exporter to a Collector with that exporter"),
    exporter(&["elasticsearch"], "the otlp exporter to the backend's OTLP intake"),
    exporter(&["opensearch"], "the otlp exporter to the backend's OTLP intake"),
    exporter(&["influxdb"], "the prometheus_remote_write exporter"),
    exporter(&["carbon"], "the prometheus_remote_write exporter"),
    exporter(&["statsd"], "the prometheus exporter"),
    exporter(&["syslog"], "the otlp exporter to a Collector with the syslog exporter"),
    exporter(&["jaeger_storage_exporter"], "the otlp exporter to Jaeger, on port 4317"),
    exporter(&["awsxray", "aws_xray"], VENDOR),
    exporter(&["awsemf", "aws_emf"], VENDOR),
    exporter(&["awscloudwatchlogs"], VENDOR),
    exporter(&["awss3"], VENDOR),
    exporter(&["azuremonitor", "azure_monitor"], VENDOR),
    exporter(&["azuredataexplorer"], VENDOR),
    exporter(&["coralogix"], VENDOR),
    exporter(&["datadog"], VENDOR),
    exporter(&["dynatrace"], VENDOR),
    exporter(&["googlecloud"], VENDOR),
    exporter(&["googlemanagedprometheus"], VENDOR),
    exporter(&["googlecloudpubsub"], VENDOR),
    exporter(&["honeycombmarker"], VENDOR),
    exporter(&["logzio"], VENDOR),
    exporter(&["sapm"], VENDOR),
    exporter(&["sentry"], VENDOR),
    exporter(&["signalfx"], VENDOR),
    exporter(&["splunk_hec"], VENDOR),
    exporter(&["sumologic"], VENDOR),
    connector(&["span_metrics", "spanmetrics"], ""),
    connector(&["service_graph", "servicegraph"], SERVICE_GRAPH),
    connector(&["forward"], ""),
    connector(&["routing"], "a pipeline for each destination"),
    connector(&["count"], SPANMETRICS),
    connector(&["sum"], "a Collector with the sum connector behind an otlp exporter"),
    connector(&["exceptions"], SPANMETRICS),
    connector(&["failover"], "two exporters, each with its own sending_queue"),
    connector(&["round_robin", "roundrobin"], "one exporter behind a load balancer"),
    connector(&["datadog"], VENDOR),
    connector(&["grafanacloud"], SPANMETRICS),
    connector(&["signaltometrics", "signal_to_metrics"], SPANMETRICS),
    connector(&["otlp_json", "otlpjson"], AGENT),
    connector(&["nop"], "no connector at all"),
    extension(&["health_check", "healthcheckv2", "health_check_v2"], ""),
    dispensable(&["zpages"], "the metrics page (service.telemetry.metrics) and the debug exporter"),
    dispensable(&["pprof"], "perf, or any other profiler of native programs"),
    dispensable(&["memory_ballast"], "nothing: there is no garbage collector to calm"),
    dispensable(&["cgroup_runtime", "cgroupruntime"], "nothing: cgroup limits are read at start"),
    extension(&["file_storage"], ""),
    extension(&["db_storage"], "the file_storage extension"),
    extension(&["redis_storage"], "the file_storage extension"),
    extension(&["basicauth", "basic_auth"], "bearertokenauth"),
    extension(&["bearertokenauth", "bearer_token_auth"], "basicauth"),
    extension(&["headers_setter"], ""),
    extension(&["oauth2client", "oauth2_client"], CREDENTIALS),
    extension(&["oidc"], ""),
    extension(&["sigv4auth"], CREDENTIALS),
    extension(&["googleclientauth", "google_client_auth"], CREDENTIALS),
    extension(&["azureauth", "azure_auth"], CREDENTIALS),
    extension(&["asapclient"], CREDENTIALS),
    extension(&["mysecretprovider"], "environment variables: ${env:NAME}"),
    extension(&["jaeger_storage"], "a Jaeger that stores, behind the otlp exporter"),
    extension(&["jaeger_query"], "a Jaeger that answers queries, behind the otlp exporter"),
    extension(&["jaegerremotesampling", "jaeger_remote_sampling"], "sampling in tail_sampling"),
    extension(&["remote_sampling"], "sampling in tail_sampling"),
    extension(&["opamp"], "configuration files that your deployment keeps"),
    extension(&["k8s_leader_elector"], "one replica where one is needed"),
    extension(&["k8s_observer"], AGENT),
    extension(&["host_observer"], AGENT),
    extension(&["docker_observer"], AGENT),
    extension(&["ecs_observer"], AGENT),
    extension(&["http_forwarder"], "a reverse proxy"),
    extension(&["memory_limiter"], "the memory_limiter processor"),
    extension(&["ack"], "the answers of the otlp receiver: an accepted request is acknowledged"),
    extension(&["datadog"], VENDOR),
    extension(&["sumologic"], VENDOR),
    extension(&["smartagent"], AGENT),
];
