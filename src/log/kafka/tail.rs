//! One consumer of the ledger for all its readers of this process that stand near its end.
//!
//! Every room reads the ledger. With a consumer each, a record would cross the network once for every room and wake
//! the threads of them all. So the first reader that meets the end gives its consumer to a thread, which keeps a window
//! of the newest records; a reader whose place is in the window reads there. One that is behind has a consumer of its
//! own until it gets there, and whatever goes wrong here sends the readers back to consumers of their own: they find
//! out, and say, what it is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::consumer::{Cursor, Event};
use super::{Shared, lock};
use crate::error::{Error, Result};
use crate::log::{Offset, Record};

/// How many bytes of records the window holds at most.
const WINDOW_BYTES: usize = 16 << 20;
/// How many records it holds at most.
const WINDOW_RECORDS: usize = 8_192;

/// How many events are taken before the readers are told.
const AT_ONCE: usize = 64;

/// See the module.
pub(super) struct Tail {
    window: Mutex<Window>,
    /// Where the window ends: whoever waits for records is woken by it.
    end: watch::Sender<Offset>,
}

struct Window {
    records: VecDeque<Record>,
    bytes: usize,
    /// The first place from which the window has everything.
    start: Offset,
    /// One past the newest record.
    end: Offset,
    /// Its thread has ended.
    over: bool,
}

impl Window {
    fn push(&mut self, record: Record) {
        if record.offset < self.end {
            return; // read already
        }
        self.end = record.offset + 1;
        self.bytes += record.payload.len();
        self.records.push_back(record);
        while self.records.len() > WINDOW_RECORDS || self.bytes > WINDOW_BYTES {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.payload.len();
            self.start = oldest.offset + 1;
        }
    }

    fn holds(&self, at: Offset) -> bool {
        !self.over && (self.start..=self.end).contains(&at)
    }
}

impl Tail {
    /// Takes over the consumer of a reader that has met the end of the ledger at `at`.
    pub fn start(shared: &Arc<Shared>, cursor: Cursor, at: Offset) -> Result<Arc<Tail>> {
        let window = Window { records: VecDeque::new(), bytes: 0, start: at, end: at, over: false };
        let tail = Arc::new(Tail { window: Mutex::new(window), end: watch::Sender::new(at) });
        let failed = |e| Error::unavailable(format!("cannot start a thread for the log: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(failed)?;
        let (own, closed) = (tail.clone(), shared.closed.clone());
        let follow = async move {
            loop {
                let event = tokio::select! {
                    event = cursor.next() => event,
                    () = closed.cancelled() => break,
                };
                if !own.take(event, &cursor) {
                    break;
                }
            }
            lock(&own.window).over = true;
            own.end.send_modify(|_| ()); // nobody waits for it any more
        };
        std::thread::Builder::new()
            .name("kafka-tail".into())
            .spawn(move || runtime.block_on(follow))
            .map_err(failed)?;
        Ok(tail)
    }

    /// Takes an event and those behind it; answers false when it cannot go on.
    fn take(&self, event: Event, cursor: &Cursor) -> bool {
        let end = {
            let mut window = lock(&self.window);
            for event in std::iter::once(event).chain(std::iter::from_fn(|| cursor.now())).take(AT_ONCE) {
                match event {
                    Event::Record(record) => window.push(record),
                    Event::End => {}
                    Event::Trouble(_) | Event::Broken(_) => return false,
                }
            }
            window.end
        };
        self.end.send_if_modified(|was| std::mem::replace(was, end) != end);
        true
    }

    /// Whether a reader that stands at `at` can read here.
    pub fn holds(&self, at: Offset) -> bool {
        lock(&self.window).holds(at)
    }

    /// Whether it has come to its end.
    pub fn is_over(&self) -> bool {
        lock(&self.window).over
    }

    /// The records from `at` on, at most about `max_bytes` but at least one, empty when there is none now; `None` when
    /// it does not hold that place.
    pub fn read(&self, at: Offset, max_bytes: usize) -> Option<Vec<Record>> {
        let window = lock(&self.window);
        if !window.holds(at) {
            return None;
        }
        let first = window.records.partition_point(|record| record.offset < at);
        let (mut records, mut bytes) = (Vec::new(), 0);
        for record in window.records.range(first..) {
            bytes += record.payload.len();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }
        Some(records)
    }

    /// Completes when there may be a record at or after `at`, or when it does not hold that place. Cancel-safe.
    pub async fn ready(&self, at: Offset) {
        let mut end = self.end.subscribe();
        loop {
            let passed = *end.borrow_and_update() > at;
            if passed || !self.holds(at) || end.changed().await.is_err() {
                return;
            }
        }
    }
}
