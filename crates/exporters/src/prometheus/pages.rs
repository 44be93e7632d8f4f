//! What pages may take in memory: one is made at a time, one is for all who wait for the same, and those that are being
//! sent are bounded.
//!
//! A page is made from a copy of all series. Scrapers that come meanwhile wait; a page that was begun after a scraper
//! came is as new as one that is made for it alone, so that it serves all who wait for its form.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;

use super::negotiate::Format;

/// The form of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) format: Format,
    /// It may be compressed.
    pub(super) gzip: bool,
}

/// A page, whose bytes others may send, too.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) bytes: Bytes,
    pub(super) is_compressed: bool,
}

/// Why there is no page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPage {
    #[error("pages that other scrapers are slow to read take all that max_size allows: set write_timeout\n")]
    TooManyUnread,
    #[error("the page could not be made\n")]
    Failed,
}

/// The pages of an exporter.
#[derive(Debug)]
pub(super) struct Pages {
    /// The newest one, while somebody waits.
    newest: Arc<Mutex<Option<Made>>>,
    begun: AtomicU64,
    waiting: AtomicUsize,
    /// Bytes of pages that are not sent yet.
    unread: Arc<AtomicUsize>,
    max_unread: usize,
}

#[derive(Debug)]
struct Made {
    number: u64,
    form: Form,
    page: Page,
}

/// Somebody waits, until this is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A page that counts as unread until nobody sends it any more.
struct Unread {
    bytes: Vec<u8>,
    unread: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.unread.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

impl Pages {
    /// Pages that are not sent yet may take `max_unread` bytes together, and the newest one more.
    pub(super) fn new(max_unread: usize) -> Self {
        Self {
            newest: Arc::default(),
            begun: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            unread: Arc::default(),
            max_unread,
        }
    }

    /// A page of this form that was begun after this call. `make` makes one, and says whether it is compressed.
    ///
    /// # Errors
    /// If too much is unread, or `make` panics.
    pub(super) async fn get(
        self: &Arc<Self>,
        form: Form,
        make: impl FnOnce() -> (Vec<u8>, bool) + Send + 'static,
    ) -> Result<Page, NoPage> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let waiting = Waiting(&self.waiting);
        let mut newest = Arc::clone(&self.newest).lock_owned().await;
        drop(waiting);
        if let Some(made) = newest.as_ref().filter(|made| made.number > begun_before && made.form == form) {
            let page = made.page.clone();
            self.keep_if_awaited(&mut newest);
            return Ok(page);
        }
        *newest = None;
        if self.unread.load(Ordering::SeqCst) > self.max_unread {
            return Err(NoPage::TooManyUnread);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let pages = Arc::clone(self);
        // Large pages take long: not on a worker. Nor is the lock given up when the scraper leaves.
        let made = tokio::task::spawn_blocking(move || {
            let (bytes, is_compressed) = make();
            pages.unread.fetch_add(bytes.len(), Ordering::SeqCst);
            let bytes = Bytes::from_owner(Unread { bytes, unread: Arc::clone(&pages.unread) });
            let page = Page { bytes, is_compressed };
            *newest = Some(Made { number, form, page: page.clone() });
            pages.keep_if_awaited(&mut newest);
            page
        });
        made.await.map_err(|_| NoPage::Failed)
    }

    fn keep_if_awaited(&self, newest: &mut Option<Made>) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            *newest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::negotiate::Encoding;
    use super::*;

    const TEXT: Form =
        Form { format: Format { encoding: Encoding::Text, utf8_names: false, timestamps: false }, gzip: false };
    const GZIP: Form = Form { gzip: true, ..TEXT };

    /// Scenario: many scrapers come while a page is made. Guarantee: they share one that is begun after they came, and
    /// nothing is kept once nobody waits.
    #[tokio::test]
    async fn those_who_wait_share_a_page() {
        let pages = Arc::new(Pages::new(1000));
        let (begins, begun) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let first = pages.get(TEXT, move || {
            let _ = begins.send(());
            let _ = may_go_on.recv();
            (b"first".to_vec(), false)
        });
        let others = async {
            begun.await.unwrap();
            let get = |form: Form| pages.get(form, || (b"second".to_vec(), false));
            let all = futures_util::future::join_all([TEXT, TEXT, TEXT, GZIP].map(get));
            let release = async {
                tokio::task::yield_now().await;
                assert_eq!(pages.waiting.load(Ordering::SeqCst), 4);
                go_on.send(()).unwrap();
            };
            tokio::join!(all, release).0
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(first.unwrap().bytes, "first");
        let others: Vec<Bytes> = others.into_iter().map(|page| page.unwrap().bytes).collect();
        assert!(others.iter().all(|bytes| bytes == "second"), "the first was begun before they came");
        assert!(others[1..3].iter().all(|bytes| bytes.as_ptr() == others[0].as_ptr()), "one for all");
        assert_ne!(others[3].as_ptr(), others[0].as_ptr(), "another form");
        assert_eq!(pages.begun.load(Ordering::SeqCst), 3);
        assert!(pages.newest.lock().await.is_none());
        drop(others);
        assert_eq!(pages.unread.load(Ordering::SeqCst), 0);
    }

    /// Scenario: scrapers that do not read what they have asked for. Guarantee: their pages stay within the bounds; once
    /// they are gone there are pages again.
    #[tokio::test]
    async fn unread_pages_are_bounded() {
        let pages = Arc::new(Pages::new(1000));
        let get = || pages.get(TEXT, || (vec![b'x'; 400], false));
        let mut unread = Vec::new();
        for _ in 0..3 {
            unread.push(get().await.unwrap());
        }
        assert_eq!(get().await.unwrap_err(), NoPage::TooManyUnread);
        unread.pop();
        assert_eq!(get().await.unwrap().bytes.len(), 400);
        drop(unread);
        assert_eq!(pages.unread.load(Ordering::SeqCst), 0);
        let failing = pages.get(TEXT, || panic!("as a test"));
        assert_eq!(failing.await.unwrap_err(), NoPage::Failed);
        assert_eq!(get().await.unwrap().bytes.len(), 400, "the others go on");
    }
}
