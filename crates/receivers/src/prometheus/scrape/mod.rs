//! The life of one target: a scrape every interval, each of which becomes one batch.
//!
//! Scrapes are spread over the interval by the hash of the target, so that a thousand targets do not answer
//! at once. A scrape that failed says `up` 0 and ends all series. A batch that the pipeline refuses is offered
//! again until the next scrape is due, and then given up, counted.

mod bad;
mod families;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod protobuf_tests;
mod round;
mod series;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use nyquist_core::batch::{Batch, DropReason};
use nyquist_core::clock::Clock;
use nyquist_core::component::Consumer;
use nyquist_core::net::admission::{Admission, Gate};
use tokio::sync::watch;
use tokio::time::Instant;

use super::exposition::{Format, Parser, protobuf};
use super::fetch::{Fetcher, NO_MEMORY, NO_ROOM, Page};
use super::labels::Labels;
use super::stats::Stats;
pub(crate) use bad::BadSample;
use bad::{Bad, Named};
use round::Round;
use series::Series;
pub(crate) use settings::{Limits, Settings, host_and_port};

/// The scope of series that name none.
const SCOPE: &str = "github.com/nyquist-telemetry/nyquist/receiver/prometheus";

/// Other tasks of the worker get a turn after so many lines.
const LINES_A_TURN: usize = 2000;

/// A batch that was refused is offered again after this time at the least.
const MIN_RETRY: Duration = Duration::from_secs(1);

/// What each scrape is charged beside its bytes.
const OVERHEAD: usize = 1 << 10;

/// Why a target's task is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is not.
    Running,
    /// The target is gone: its series end.
    Gone,
    /// The gateway shuts down: another one may go on with the target.
    Shutdown,
}

/// What all targets share.
pub(crate) struct Shared {
    pub(crate) next: Arc<dyn Consumer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) admission: Arc<Admission>,
    /// While one is closed, no page is read.
    pub(crate) gates: Vec<Arc<Gate>>,
    pub(crate) stats: Stats,
}

/// What a target's task needs.
pub(crate) struct Scraper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    pub(crate) fetcher: Fetcher,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Where in the interval it is scraped.
    pub(crate) offset: Duration,
    /// Report what the Collector calls extra scrape metrics.
    pub(crate) reports_more: bool,
    /// Too many targets: each of them fails.
    pub(crate) verdict: Option<String>,
}

/// One target.
struct Life {
    scraper: Scraper,
    series: Series,
    /// Whether the last scrape succeeded; nothing before the first.
    was_up: Option<bool>,
    stop: watch::Receiver<Stop>,
}

impl Scraper {
    /// Scrapes until it is told to stop.
    pub(crate) async fn run(self, stop: watch::Receiver<Stop>) {
        let mut next = Instant::now() + self.first_wait();
        let interval = self.interval;
        let mut life = Life { scraper: self, series: Series::default(), was_up: None, stop };
        while life.sleep_until(next).await == Stop::Running {
            let due = next + interval;
            life.scrape(due).await;
            next = due;
            // What was missed is not made up for.
            while next < Instant::now() {
                next += interval;
            }
        }
        if *life.stop.borrow() == Stop::Gone {
            life.end().await;
        }
    }

    /// How long until the wall clock is at this target's place in the interval.
    fn first_wait(&self) -> Duration {
        let interval = self.interval.as_nanos().max(1);
        let now = u128::from(self.shared.clock.unix_nanos()) % interval;
        let place = self.offset.as_nanos() % interval;
        let wait = (place + interval - now) % interval;
        Duration::from_nanos(u64::try_from(wait).unwrap_or_default())
    }
}

impl Life {
    /// Waits, unless it is told to stop meanwhile.
    async fn sleep_until(&mut self, time: Instant) -> Stop {
        let _ = tokio::time::timeout_at(time, self.stop.wait_for(|stop| *stop != Stop::Running)).await;
        *self.stop.borrow()
    }

    /// One scrape, which must be over by `due`.
    async fn scrape(&mut self, due: Instant) {
        let began = Instant::now();
        let now = i64::try_from(self.scraper.shared.clock.unix_nanos() / 1_000_000).unwrap_or_default();
        let mut room = self.scraper.shared.admission.admit(OVERHEAD);
        let fetching = async {
            if let Some(verdict) = &self.scraper.verdict {
                return Err(verdict.clone());
            }
            if !self.scraper.shared.gates.iter().all(|gate| gate.is_open()) {
                return Err(NO_MEMORY.to_owned());
            }
            let room = room.as_mut().ok_or_else(|| NO_ROOM.to_owned())?;
            let page = tokio::time::timeout(self.scraper.timeout, self.scraper.fetcher.fetch(room)).await;
            page.unwrap_or_else(|_| {
                Err(format!("the page was not there within the scrape_timeout of {:?}", self.scraper.timeout))
            })
        };
        let fetched = tokio::select! {
            fetched = fetching => fetched,
            _ = self.stop.wait_for(|stop| *stop != Stop::Running) => return,
        };
        let Scraper { settings, timeout, reports_more, .. } = &self.scraper;
        let mut round = Round::new(settings, &mut self.series, now);
        let body_size = fetched.as_ref().map_or(0, |page| page.body.len());
        let read = match &fetched {
            Ok(page) => read(&mut round, page).await,
            Err(error) => Err(error.clone()),
        };
        if read.is_err() {
            round = round.failed();
        }
        let tally = round.tally();
        let up = if read.is_ok() { 1.0 } else { 0.0 };
        round.report("up", "", "The scraping was successful", up);
        let seconds = began.elapsed().as_secs_f64();
        round.report("scrape_duration_seconds", "seconds", "Duration of the scrape", seconds);
        let scraped = tally.scraped as f64;
        round.report("scrape_samples_scraped", "", "The number of samples the target exposed", scraped);
        let kept = "The number of samples remaining after metric relabeling was applied";
        round.report("scrape_samples_post_metric_relabeling", "", kept, tally.kept as f64);
        let added = "The approximate number of new series in this scrape";
        round.report("scrape_series_added", "", added, tally.added as f64);
        if *reports_more {
            let limit = settings.limits.samples as f64;
            round.report("scrape_timeout_seconds", "seconds", "The configured timeout", timeout.as_secs_f64());
            round.report("scrape_sample_limit", "", "The configured sample limit", limit);
            round.report("scrape_body_size_bytes", "bytes", "The uncompressed size of the page", body_size as f64);
        }
        let (data, points, bad) = round.finish();
        drop(fetched);
        drop(room);
        self.book_bad(&bad);
        match read {
            Ok(()) => self.book_success(),
            Err(error) => self.book_failure(&error),
        }
        if self.deliver(Batch::from_metrics(data), points, due).await {
            self.series.delivered();
        }
    }

    /// Says that all series have ended.
    async fn end(&mut self) {
        let now = i64::try_from(self.scraper.shared.clock.unix_nanos() / 1_000_000).unwrap_or_default();
        let (data, points, _) = Round::new(&self.scraper.settings, &mut self.series, now).finish();
        if points > 0 {
            let due = Instant::now() + self.scraper.interval;
            self.deliver(Batch::from_metrics(data), points, due).await;
        }
    }

    /// Offers `batch` until it is taken, or refused for good, or `due` has come. Whether it was taken.
    async fn deliver(&mut self, mut batch: Batch, points: usize, due: Instant) -> bool {
        // Encoded once; a clone shares the bytes.
        batch.wire();
        let stats = &self.scraper.shared.stats;
        loop {
            let refusal = match self.scraper.shared.next.consume(batch.clone()).await {
                Ok(()) => {
                    stats.accepted.inc_by(points as u64);
                    return true;
                }
                Err(refusal) => refusal,
            };
            let wait = refusal.retry_delay().unwrap_or_default().max(MIN_RETRY);
            let again = Instant::now() + wait;
            let stopped = *self.stop.borrow() == Stop::Shutdown;
            if !refusal.is_retryable() || again > due || stopped {
                stats.refused.inc_by(points as u64);
                stats.ledger.dropped(DropReason::Rejected, points);
                let instance = self.scraper.settings.labels.get("instance");
                tracing::warn!(receiver = stats.id, instance, points, error = %refusal, "a scrape was refused and is lost");
                return false;
            }
            let _ = tokio::time::timeout_at(again, self.stop.wait_for(|stop| *stop == Stop::Shutdown)).await;
        }
    }

    fn book_bad(&self, bad: &Bad) {
        let stats = &self.scraper.shared.stats;
        for (reason, samples) in bad.counts() {
            stats.bad_samples(reason).inc_by(samples);
        }
        for Named { metric, reason, advice, samples } in bad.named() {
            stats.losses.lost(reason, metric.as_bytes(), *samples, advice);
        }
    }

    fn book_success(&mut self) {
        let stats = &self.scraper.shared.stats;
        stats.scrapes_ok.inc();
        if self.was_up == Some(false) {
            let labels = &self.scraper.settings.labels;
            let (job, instance) = (labels.get("job"), labels.get("instance"));
            tracing::info!(receiver = stats.id, job, instance, "the target can be scraped again");
        }
        stats.outages.note(self.was_up, None);
        self.was_up = Some(true);
    }

    /// Says so in the log when it changes; a target that stays down is counted only.
    fn book_failure(&mut self, error: &str) {
        let stats = &self.scraper.shared.stats;
        stats.scrapes_failed.inc();
        if self.was_up != Some(false) {
            let labels = &self.scraper.settings.labels;
            let (job, instance) = (labels.get("job"), labels.get("instance"));
            tracing::warn!(receiver = stats.id, job, instance, error, "the target cannot be scraped");
        }
        stats.outages.note(self.was_up, Some((self.scraper.settings.labels.get("instance"), error)));
        self.was_up = Some(false);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.scraper.shared.stats.outages.forget(self.was_up);
    }
}

/// Reads a page into `round`.
async fn read<'a, 's: 'a>(round: &mut Round<'a, 's>, page: &'a Page) -> Result<(), String> {
    let mut labels = Labels::default();
    let mut lines = 0;
    if page.format == Format::Protobuf {
        let mut parser = protobuf::Parser::new(&page.body, round.natives());
        while let Some(entry) = parser.next(&mut labels)? {
            round.take(entry, &mut labels)?;
            take_turns(&mut lines).await;
        }
        return Ok(());
    }
    let text = std::str::from_utf8(&page.body).map_err(|error| format!("the page is not UTF-8: {error}"))?;
    let mut parser = Parser::new(text, page.format);
    while let Some(entry) = parser.next(&mut labels).map_err(|error| error.to_string())? {
        round.take(entry, &mut labels)?;
        take_turns(&mut lines).await;
    }
    Ok(())
}

/// Lets others go on from time to time.
async fn take_turns(lines: &mut usize) {
    *lines += 1;
    if lines.is_multiple_of(LINES_A_TURN) {
        tokio::task::yield_now().await;
    }
}
