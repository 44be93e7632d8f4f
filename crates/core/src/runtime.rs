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

/// The worker runtimes of the process.
#[derive(Debug)]
pub struct Runtimes {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stop: watch::Sender<bool>,
    threads: parking_lot::Mutex<Vec<thread::JoinHandle<()>>>,
    fatal: mpsc::UnboundedSender<String>,
}

impl Runtimes {
    /// Starts `workers` threads (at least one), each with a runtime of its own. `fatal` is told
    /// when a task that is [vital](Self::vital) panics.
    ///
    /// # Errors
    /// If the operating system refuses a thread or a poller.
    pub fn start(workers: usize, fatal: mpsc::UnboundedSender<String>) -> std::io::Result<Arc<Self>> {
        let (stop, stopped) = watch::channel(false);
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        for index in 0..workers.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
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
        Ok(Arc::new(Self { handles, next: AtomicUsize::new(0), stop, threads: threads.into(), fatal }))
    }

    /// The current runtime as the only worker: for tests under `#[tokio::test]`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn current() -> Arc<Self> {
        let (stop, _) = watch::channel(false);
        let (fatal, _) = mpsc::unbounded_channel();
        let handles = vec![Handle::current()];
        Arc::new(Self { handles, next: AtomicUsize::new(0), stop, threads: Vec::new().into(), fatal })
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.handles.len()
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
        self.handles[index % self.handles.len()].spawn(future)
    }

    /// Runs `future` on the next worker in turn.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_on(self.next.fetch_add(1, Ordering::Relaxed), future)
    }

    /// `task`, with which its component stands and falls: a panic in it ends the process in an
    /// orderly way, so that a supervisor starts it again. A gateway that runs on without the task
    /// would hold, or refuse, data for ever.
    pub fn vital<F: Future>(&self, name: &str, task: F) -> impl Future<Output = F::Output> + use<F> {
        let (fatal, name) = (self.fatal.clone(), name.to_owned());
        async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    let _ = fatal.send(format!("{name} panicked; this is a bug, please report it"));
                    resume_unwind(panic)
                }
            }
        }
    }

    /// Ends the workers and waits for their threads; tasks that still run are dropped.
    pub fn stop(&self) {
        let _ = self.stop.send(true);
        for thread in self.threads.lock().drain(..) {
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
        assert_eq!(faults.try_recv().ok().as_deref(), Some("the bad one panicked; this is a bug, please report it"));
        assert!(faults.try_recv().is_err());
        runtimes.stop();
    }
}
