//! A thread for what blocks. It ends when nobody holds it any more and its work is done.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// A thread that does one job after the other.
pub(super) struct Worker(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Worker {
    pub fn start(name: &str) -> Result<Worker> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .map_err(|e| Error::unavailable(format!("cannot start a thread for the log: {e}")))?;
        Ok(Worker(jobs))
    }

    /// Has `job` done some time.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.0.send(Box::new(job)); // without its thread, what the job holds is dropped here
    }

    /// Has `job` done and answers with what it found.
    pub async fn ask<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let (answer, receiver) = oneshot::channel();
        self.run(move || {
            let _ = answer.send(job()); // it may have stopped waiting
        });
        receiver.await.unwrap_or_else(|_| Err(Error::unavailable("the log's thread has ended")))
    }
}
