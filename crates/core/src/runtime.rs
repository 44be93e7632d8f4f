//! One single-threaded runtime per core.
//!
//! Work that belongs together (a connection and what it carries) stays on one core; components
//! are shared between cores and `Send`. Measured: a work-stealing runtime costs 40 % more per
//! request.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures_util::FutureExt;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Asks the kernel for small pages only, for the whole process. Memory that grows by the gigabyte is touched for the first time by
/// the workers; with transparent huge pages that stops a worker for 2 MiB at a time, which was measured to take up to
/// 88 ms on a virtual machine, and bought no processor time (docs/decisions/2026-11-23-allocator.md).
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages stay on");
    }
}

/// Something after which the process must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The component to which it happened, as the board names it: `processor:tail_sampling`.
    pub component: Option<Arc<str>>,
    /// What happened.
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.component {
            Some(component) => write!(out, "{component}: {}", self.message),
            None => out.write_str(&self.message),
        }
    }
}

/// After how many tasks a worker looks at its sockets and timers, if it does not run out of tasks before: so many
/// requests of one client are answered, at the most, before the worker sees that there is another client. Tokio's 61 are
/// a millisecond for somebody who only has a small question; to look costs half a microsecond.
const EVENT_INTERVAL: u32 = 13;

/// The worker runtimes of the process, in the hands of one component.
#[derive(Debug)]
pub struct Runtimes {
    workers: Arc<Workers>,
    fatal: mpsc::UnboundedSender<Fault>,
    component: Option<Arc<str>>,
}

#[derive(Debug)]
struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stop: watch::Sender<bool>,
    threads: parking_lot::Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Workers {
    fn new(handles: Vec<Handle>, stop: watch::Sender<bool>, threads: Vec<thread::JoinHandle<()>>) -> Arc<Self> {
        Arc::new(Self { handles, next: AtomicUsize::new(0), stop, threads: threads.into() })
    }
}

impl Runtimes {
    /// Starts `workers` threads (at least one), each with a runtime of its own. `fatal` is told
    /// when a task that is [vital](Self::vital) panics.
    ///
    /// # Errors
    /// If the operating system refuses a thread or a poller.
    pub fn start(workers: usize, fatal: mpsc::UnboundedSender<Fault>) -> std::io::Result<Arc<Self>> {
        let (stop, stopped) = watch::channel(false);
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        for index in 0..workers.max(1) {
            let runtime = Builder::new_current_thread().enable_all().event_interval(EVENT_INTERVAL).build()?;
            handles.push(runtime.handle().clone());
            let mut stopped = stopped.clone();
            let body = move || {
                INDEX.set(index);
                runtime.block_on(async move {
                    let _ = stopped.wait_for(|&stop| stop).await;
                });
            };
            threads.push(thread::Builder::new().name(format!("nyquist-{index}")).spawn(body)?);
        }
        Ok(Arc::new(Self { workers: Workers::new(handles, stop, threads), fatal, component: None }))
    }

    /// The current runtime as the only worker: for tests under `#[tokio::test]`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn current() -> Arc<Self> {
        let (stop, _) = watch::channel(false);
        let (fatal, _) = mpsc::unbounded_channel();
        let workers = Workers::new(vec![Handle::current()], stop, Vec::new());
        Arc::new(Self { workers, fatal, component: None })
    }

    /// The same for `component`: what becomes fatal to it is told under its name.
    #[must_use]
    pub fn of(&self, component: &str) -> Arc<Self> {
        let (workers, fatal) = (Arc::clone(&self.workers), self.fatal.clone());
        Arc::new(Self { workers, fatal, component: Some(component.into()) })
    }

    /// Asks the process to shut down, since the component cannot go on and no retry mends that: its status is
    /// `StatusFatalError`, and the exit code 1.
    pub fn fail(&self, message: impl Into<String>) {
        // Nobody listens where the process ends already.
        let _ = self.fatal.send(Fault { component: self.component.clone(), message: message.into() });
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.handles.len()
    }

    /// The worker whose thread this is; 0 on any other thread.
    #[must_use]
    pub fn current_index() -> usize {
        INDEX.get()
    }

    /// Runs `future` on worker `index` (modulo their number).
    pub fn spawn_on<F>(&self, index: usize, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.workers.handles[index % self.workers.handles.len()].spawn(future)
    }

    /// Runs `future` on the next worker in turn.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_on(self.workers.next.fetch_add(1, Ordering::Relaxed), future)
    }

    /// `task`, with which its component stands and falls: a panic in it ends the process in an
    /// orderly way, so that a supervisor starts it again. A gateway that runs on without the task
    /// would hold, or refuse, data for ever.
    pub fn vital<F: Future>(&self, name: &str, task: F) -> impl Future<Output = F::Output> + use<F> {
        let (fatal, component, name) = (self.fatal.clone(), self.component.clone(), name.to_owned());
        async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    let message = format!("{name} panicked; this is a bug, please report it");
                    let _ = fatal.send(Fault { component, message });
                    resume_unwind(panic)
                }
            }
        }
    }

    /// Ends the workers and waits for their threads; tasks that still run are dropped.
    pub fn stop(&self) {
        let _ = self.workers.stop.send(true);
        for thread in self.workers.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vital_task_that_panics_is_told_of() {
        let (fatal, mut faults) = mpsc::unbounded_channel();
        let runtimes = Runtimes::start(1, fatal).expect("threads");
        let fine = runtimes.spawn(runtimes.vital("the fine one", async { 7 }));
        let bad = runtimes.spawn(runtimes.vital("the bad one", async { panic!("as the test wants it") }));
        let waiting = Builder::new_current_thread().build().expect("a runtime");
        let (fine, bad): (_, Result<(), _>) = waiting.block_on(async { tokio::join!(fine, bad) });
        assert_eq!(fine.ok(), Some(7));
        assert!(bad.is_err_and(|error| error.is_panic()));
        let message = "the bad one panicked; this is a bug, please report it".to_owned();
        assert_eq!(faults.try_recv().ok(), Some(Fault { component: None, message }));
        assert!(faults.try_recv().is_err());
        runtimes.stop();
    }

    #[test]
    fn a_fault_is_told_under_the_name_of_its_component() {
        let (fatal, mut faults) = mpsc::unbounded_channel();
        let runtimes = Runtimes::start(1, fatal).expect("threads");
        runtimes.of("exporter:otlp").fail("no more");
        let fault = faults.try_recv().expect("a fault");
        assert_eq!(fault.component.as_deref(), Some("exporter:otlp"));
        assert_eq!(fault.to_string(), "exporter:otlp: no more");
        runtimes.stop();
    }
}
