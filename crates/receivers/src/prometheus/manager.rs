//! Which targets there are, and their tasks.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::runtime::Runtimes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::config::{Global, RelabelConfig, ScrapeConfig};
use super::discovery::Files;
use super::fetch::{Fetcher, Requests};
use super::scrape::{Limits, Scraper, Settings, Shared, Stop};
use super::target::{Target, target};

/// How often files with targets are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What was made ready of one scrape configuration.
pub(crate) struct Job {
    pub(crate) config: ScrapeConfig,
    global: Global,
    requests: Arc<Requests>,
    external: Arc<[(String, String)]>,
    metric_relabel: Arc<[RelabelConfig]>,
    trim_suffixes: bool,
    reports_more: bool,
}

impl Job {
    pub(crate) fn new(
        config: &ScrapeConfig,
        global: &Global,
        trim_suffixes: bool,
        reports_more: bool,
    ) -> Result<Self, String> {
        let external: Vec<(String, String)> = global.external_labels.clone().into_iter().collect();
        Ok(Self {
            requests: Arc::new(Requests::new(config, global)?),
            external: external.into(),
            metric_relabel: config.metric_relabel_configs.clone().into(),
            trim_suffixes,
            reports_more: reports_more || config.extra_scrape_metrics,
            config: config.clone(),
            global: global.clone(),
        })
    }

    /// Reads certificates, where it is known that they are needed.
    pub(crate) fn load_tls(&self) -> Result<(), String> {
        if self.config.scheme == "https" { self.requests.load_tls() } else { Ok(()) }
    }

    /// The targets that there are now, and why all of them fail, if they do.
    fn targets(&self, files: &Files) -> (Vec<Target>, Option<String>) {
        let mut targets = Vec::new();
        let from_files = files.groups();
        for group in self.config.static_configs.iter().chain(&from_files) {
            for address in &group.targets {
                match target(&self.config, &self.global, address, &group.labels) {
                    Ok(found) => targets.extend(found),
                    Err(error) => {
                        let job = self.config.job_name.as_str();
                        tracing::warn!(job, target = address, error, "a target cannot be used");
                    }
                }
            }
        }
        let limit = self.config.target_limit.unwrap_or(self.global.target_limit);
        let is_over = limit > 0 && targets.len() as u64 > limit;
        let verdict = format!("target_limit exceeded: there are {} targets, and the limit is {limit}", targets.len());
        (targets, is_over.then_some(verdict))
    }

    fn scraper(&self, target: &Target, verdict: Option<String>, shared: &Arc<Shared>) -> Scraper {
        let (own, global) = (&self.config, &self.global);
        let limits = Limits {
            samples: own.sample_limit.unwrap_or(global.sample_limit),
            labels: own.label_limit.unwrap_or(global.label_limit),
            label_name: own.label_name_length_limit.unwrap_or(global.label_name_length_limit),
            label_value: own.label_value_length_limit.unwrap_or(global.label_value_length_limit),
        };
        let settings = Settings {
            labels: target.labels.clone(),
            scheme: target.location.scheme().to_owned(),
            external: Arc::clone(&self.external),
            metric_relabel: Arc::clone(&self.metric_relabel),
            honor_labels: own.honor_labels,
            honor_timestamps: own.honor_timestamps,
            track_timestamps: own.track_timestamps_staleness,
            trim_suffixes: self.trim_suffixes,
            limits,
            natives: own.natives(global),
        };
        let mut hasher = DefaultHasher::new();
        target.hash(&mut hasher);
        Scraper {
            shared: Arc::clone(shared),
            settings,
            fetcher: Fetcher::new(Arc::clone(&self.requests), target),
            interval: target.interval,
            timeout: target.timeout,
            offset: Duration::from_nanos(hasher.finish()),
            reports_more: self.reports_more,
            verdict,
        }
    }
}

/// What tells targets apart: the job, the target, and whether there are too many of them.
type Identity = (usize, Target, Option<String>);

/// Starts and ends the targets' tasks.
pub(crate) struct Manager {
    pub(crate) jobs: Arc<[Job]>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) stop: watch::Receiver<bool>,
}

struct Running {
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
}

impl Manager {
    /// Keeps the tasks in step with the targets until it is told to stop, and then until all have ended.
    pub(crate) async fn run(mut self) {
        let mut files: Vec<Files> = self.jobs.iter().map(|_| Files::default()).collect();
        let mut running: HashMap<Identity, Running> = HashMap::new();
        let mut ending: Vec<JoinHandle<()>> = Vec::new();
        let reads_files = self.jobs.iter().any(|job| !job.config.file_sd_configs.is_empty());
        let mut is_first = true;
        loop {
            let changed;
            (files, changed) = self.refresh(files).await;
            if changed || is_first {
                self.apply(&files, &mut running, &mut ending);
                is_first = false;
            }
            ending.retain(|task| !task.is_finished());
            let stopping = self.stop.wait_for(|stop| *stop);
            if reads_files {
                if tokio::time::timeout_at(Instant::now() + LOOK, stopping).await.is_ok() {
                    break;
                }
            } else {
                let _ = stopping.await;
                break;
            }
        }
        for (_, target) in running {
            let _ = target.stop.send(Stop::Shutdown);
            ending.push(target.task);
        }
        for task in ending {
            let _ = task.await;
        }
    }

    /// Reads files, on a thread that may block.
    async fn refresh(&self, mut files: Vec<Files>) -> (Vec<Files>, bool) {
        let jobs = Arc::clone(&self.jobs);
        let reading = tokio::task::spawn_blocking(move || {
            let mut changed = false;
            for (job, files) in jobs.iter().zip(&mut files) {
                let discoveries = &job.config.file_sd_configs;
                let patterns: Vec<String> = discoveries.iter().flat_map(|files| files.files.clone()).collect();
                changed |= files.refresh(&patterns);
            }
            (files, changed)
        });
        // A panic in there is a bug; the next look begins from nothing.
        reading.await.unwrap_or_else(|_| (self.jobs.iter().map(|_| Files::default()).collect(), false))
    }

    fn apply(&self, files: &[Files], running: &mut HashMap<Identity, Running>, ending: &mut Vec<JoinHandle<()>>) {
        let mut wanted: HashMap<Identity, ()> = HashMap::new();
        for (index, (job, files)) in self.jobs.iter().zip(files).enumerate() {
            let (targets, verdict) = job.targets(files);
            wanted.extend(targets.into_iter().map(|target| ((index, target, verdict.clone()), ())));
        }
        let gone: Vec<Identity> = running.keys().filter(|identity| !wanted.contains_key(*identity)).cloned().collect();
        for identity in gone {
            if let Some(target) = running.remove(&identity) {
                let _ = target.stop.send(Stop::Gone);
                ending.push(target.task);
            }
        }
        for (identity, ()) in wanted {
            if running.contains_key(&identity) {
                continue;
            }
            let (index, target, verdict) = &identity;
            let Some(job) = self.jobs.get(*index) else { continue };
            let scraper = job.scraper(target, verdict.clone(), &self.shared);
            let (stop, stopped) = watch::channel(Stop::Running);
            let task = self.runtimes.spawn(scraper.run(stopped));
            running.insert(identity, Running { stop, task });
        }
        self.shared.stats.targets.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
    }
}
