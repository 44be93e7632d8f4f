//! Keys of Prometheus that are known and not built: each is refused by name, with what to use instead.

use nyquist_core::config::Check;

pub(super) const SCRAPE_ONLY: &str = "remove it: of Prometheus' configuration only global and scrape_configs are used";
pub(super) const NATIVE: &str = "remove it: histograms are taken as targets expose them";
pub(super) const FAILURE_LOG: &str = "remove it: failed scrapes are in the gateway's own log";

/// Refuses `key` if it is set.
pub(super) fn refuse(check: &mut Check<'_>, key: &str, is_set: bool, instead: &str) {
    if is_set {
        check.error_with(&[key], format!("{key} is not supported"), instead);
    }
}

/// Warns of `keep_dropped_targets`, which does nothing.
pub(super) fn keep_dropped_targets(check: &mut Check<'_>) {
    check.without_effect(&["keep_dropped_targets"], "there is no page that shows dropped targets");
}

/// The two keys about names. Names are taken as they come, UTF-8 included.
pub(super) fn naming(check: &mut Check<'_>, validation: &str, escaping: &str) {
    match validation {
        "" | "utf8" => {}
        "legacy" => {
            let message = "names are taken as targets send them; metric_name_escaping_scheme: underscores asks targets \
                           for classic names";
            check.warning(&["metric_name_validation_scheme"], message);
        }
        other => {
            let message = format!("unknown value {other:?}: accepted are utf8 and legacy");
            check.error(&["metric_name_validation_scheme"], message);
        }
    }
    if !matches!(escaping, "" | "allow-utf-8" | "underscores" | "dots" | "values") {
        let message = format!("unknown value {escaping:?}: accepted are allow-utf-8, underscores, dots, values");
        check.error(&["metric_name_escaping_scheme"], message);
    }
}

pub(super) const DISCOVERY: &str =
    "use static_configs, or file_sd_configs with a file that something else keeps up to date";
pub(super) const KUBERNETES: &str = "use file_sd_configs with a file that something else keeps up to date, or scrape with an \
                          agent in the cluster (a Collector or Prometheus) and send OTLP or remote write here";
