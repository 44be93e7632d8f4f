//! Work that takes long, done so that the other connections of its worker do not wait for it.
//!
//! A worker runs one task at a time. What can be done in slices (decompression) takes one [`slice()`]
//! a turn, so that a small request waits for one slice at the most, however many large ones there
//! are. What cannot be (a JSON document) is done [`aside`], on a thread of its own, which stands back when the workers
//! need its core.

use std::num::NonZero;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, coop};

/// Bytes that a task may work through before the others get their turn: some 50 µs. A turn more costs a microsecond.
pub const SLICE: usize = 64 << 10;

/// What cannot be done in slices is done in place up to here, and beyond it [`aside`].
pub const IN_PLACE: usize = 128 << 10;

thread_local! {
    /// Who of this worker's long tasks may run: one, the others in the order in which they came.
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// The threads for work aside: as many as there are cores.
static ASIDE: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let mut builder = Builder::new_current_thread();
    builder.max_blocking_threads(cores).thread_name("nyquist-aside").on_thread_start(stand_back);
    builder.build().inspect_err(|error| tracing::error!(%error, "large requests cannot be read")).ok()
});

/// Lets the workers go first on the core of this thread: a tenth of it is what it gets while they need all of it.
/// Nobody takes that back, so it is for threads of our own.
fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the threads for large requests run like the others");
    }
}

/// How much less urgent work aside is than the workers' own.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// The units of a turn: tokio lets a task do so many things with sockets, channels and timers.
pub const TURN: usize = 128;

/// Takes `units` from what the task that runs may do in this turn. When nothing is left its sockets are
/// pending, until the others have had their turn.
pub fn spend(units: usize) {
    for _ in 0..units.min(TURN) {
        if !coop::has_budget_remaining() {
            return;
        }
        if let Poll::Ready(unit) = coop::poll_proceed(&mut Context::from_waker(Waker::noop())) {
            unit.made_progress();
        }
    }
}

/// Does `work`, a slice of something larger, when it is this task's turn among the long tasks of
/// its worker; then lets everybody else go first.
///
/// The turn is kept until the sockets have been looked at: handed on at once, it would go round
/// among the long tasks while nobody reads.
pub async fn slice<T>(work: impl FnOnce() -> T) -> T {
    let turns = TURNS.with(Arc::clone);
    let turn = turns.acquire().await;
    let done = work();
    tokio::task::yield_now().await;
    drop(turn);
    done
}

/// Does `work` on a thread for such work, when one is free. `None` if it panics.
///
/// It runs to its end even if the caller's future is dropped; if it has not begun it is not done.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let mut task = Queued(ASIDE.as_ref()?.spawn_blocking(work));
    (&mut task.0).await.ok()
}

/// Work that nobody wants any longer when this is dropped.
struct Queued<T>(JoinHandle<T>);

impl<T> Drop for Queued<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn long_tasks_take_turns_and_short_ones_wait_for_one_slice() {
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let long = |name: char| {
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                for _ in 0..3 {
                    slice(|| order.lock().push(name)).await;
                }
            })
        };
        let tasks = [long('a'), long('b'), long('c')];
        let short = tokio::spawn({
            let order = Arc::clone(&order);
            async move { order.lock().push('!') }
        });
        short.await.expect("no panic");
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(order.lock().iter().collect::<String>(), "a!bcabcabc");
    }

    #[tokio::test]
    async fn who_has_spent_its_turn_waits_for_the_next() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
        (0..4).for_each(|number| sender.try_send(number).expect("there is room"));
        spend(TURN - 2);
        let mut next = || {
            let mut context = Context::from_waker(Waker::noop());
            receiver.poll_recv(&mut context).is_ready()
        };
        assert_eq!([next(), next(), next()], [true, true, false]);
        tokio::task::yield_now().await;
        assert!(next());
    }

    #[tokio::test]
    async fn as_many_things_as_there_are_cores_are_done_aside_at_once() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let work = || {
            let running = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
            std::thread::yield_now();
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            running
        };
        let tasks: Vec<_> = (0..100).map(|_| tokio::spawn(aside(work))).collect();
        for task in tasks {
            assert!(task.await.expect("no panic").is_some_and(|running| running <= cores));
        }
        assert_eq!(aside(|| -> usize { panic!("as the test wants it") }).await, None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn work_aside_is_less_urgent_than_the_workers() {
        let nice = || rustix::process::getpriority_process(None).expect("the priority of this thread");
        assert_eq!(aside(nice).await, Some((nice() + NICE).min(19)));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_not_begun() {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(parking_lot::Mutex::new(held));
        let busy: Vec<_> = (0..cores)
            .map(|_| {
                let held = Arc::clone(&held);
                tokio::spawn(aside(move || held.lock().recv().is_err()))
            })
            .collect();
        let begun = Arc::new(AtomicUsize::new(0));
        let unwanted = tokio::spawn(aside({
            let begun = Arc::clone(&begun);
            move || begun.fetch_add(1, Ordering::SeqCst)
        }));
        tokio::task::yield_now().await;
        unwanted.abort();
        assert!(unwanted.await.is_err_and(|error| error.is_cancelled()));
        drop(release);
        for task in busy {
            assert_eq!(task.await.expect("no panic"), Some(true));
        }
        assert_eq!(aside(move || begun.load(Ordering::SeqCst)).await, Some(0));
    }
}
