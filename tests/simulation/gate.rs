//! The gates: a process's log and store, wrapped so that every operation may be interrupted before and after it takes
//! effect. A step that stands at a gate is resumed when the scheduler polls it again, or dies there with its process.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use futures::future::BoxFuture;
use tuflog::error::Result;
use tuflog::log::memory::MemoryLog;
use tuflog::log::{Log, Offset, Partition, Reader, Record};

use crate::dice::Dice;

/// The gates of one process.
pub struct Gate {
    dice: Dice,
    /// At which gates steps of this process stand now.
    at: Mutex<BTreeMap<&'static str, usize>>,
}

/// Takes a mark back even if the step dies at the gate.
struct Mark<'a>(&'a Gate, &'static str);

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        let mut at = self.0.at.lock().expect("one thread");
        if let Some(count) = at.get_mut(self.1) {
            *count -= 1;
        }
    }
}

impl Gate {
    pub fn new(dice: Dice) -> Arc<Gate> {
        Arc::new(Gate { dice, at: Mutex::new(BTreeMap::new()) })
    }

    /// Lets the scheduler interrupt here.
    pub async fn pass(&self, point: &'static str) {
        let times = match self.dice.below(20) {
            0..=10 => return,
            11..=17 => 1,
            18 => 2,
            _ => 5,
        };
        *self.at.lock().expect("one thread").entry(point).or_insert(0) += 1;
        let _mark = Mark(self, point);
        for _ in 0..times {
            let mut polled = false;
            poll_fn(|cx| match std::mem::replace(&mut polled, true) {
                true => Poll::Ready(()),
                false => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            })
            .await;
        }
    }

    /// The gates at which something stands.
    pub fn standing(&self) -> Vec<&'static str> {
        let at = self.at.lock().expect("one thread");
        at.iter().filter(|(_, count)| **count > 0).map(|(point, _)| *point).collect()
    }
}

/// A process's view of the log.
pub struct GatedLog {
    pub log: MemoryLog,
    pub gate: Arc<Gate>,
}

impl Log for GatedLog {
    fn append(&self, to: Partition, payload: Bytes) -> BoxFuture<'static, Result<Offset>> {
        let (log, gate) = (self.log.clone(), self.gate.clone());
        Box::pin(async move {
            gate.pass("before append").await;
            let answer = log.append(to, payload).await;
            gate.dice.trace(|| format!("append {to:?}: {answer:?}"));
            gate.pass("after append").await;
            answer
        })
    }

    fn reader(&self, of: Partition, from: Offset) -> Box<dyn Reader> {
        Box::new(GatedReader { reader: self.log.reader(of, from), gate: self.gate.clone() })
    }

    fn fetch(&self, of: Partition, at: Offset) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move {
            self.gate.pass("before fetch").await;
            let answer = self.log.fetch(of, at).await;
            self.gate.dice.hit("segments fetched by offset");
            answer
        })
    }

    fn end(&self, of: Partition) -> BoxFuture<'_, Result<Offset>> {
        Box::pin(async move {
            let answer = self.log.end(of).await;
            self.gate.pass("after end").await;
            answer
        })
    }
}

struct GatedReader {
    reader: Box<dyn Reader>,
    gate: Arc<Gate>,
}

impl Reader for GatedReader {
    fn read(&mut self, max_bytes: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move {
            let records = self.reader.read(max_bytes).await?;
            if !records.is_empty() {
                self.gate.pass("after read").await;
            }
            Ok(records)
        })
    }

    fn ready(&mut self) -> BoxFuture<'_, Result<()>> {
        self.reader.ready()
    }

    fn seek(&mut self, at: Offset) {
        self.reader.seek(at);
    }
}
