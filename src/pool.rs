//! The bounded CPU pool that rooms hand their heavy pieces of work to.
//!
//! Inline in the simulator, so that one seed gives one run; threads in a node, so that a long render never holds up
//! the tasks that answer producers.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Work on less than this is done well within a millisecond, parsing of JSON included.
const INLINE_BYTES: usize = 64 << 10;

/// Where CPU work runs.
#[derive(Clone)]
pub enum Pool {
    /// At once, in the calling task.
    Inline,
    /// On blocking threads, at most as many pieces at a time as there are permits.
    Threads(Arc<Semaphore>),
}

impl Pool {
    /// A pool that runs at most `width` pieces at a time.
    pub fn threads(width: usize) -> Pool {
        Pool::Threads(Arc::new(Semaphore::new(width.max(1))))
    }

    /// Runs work on so many bytes: at once when they are few, for then handing it over would take longer.
    pub async fn run_on<T: Send + 'static>(&self, bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        if bytes < INLINE_BYTES { work() } else { self.run(work).await }
    }

    /// Runs `work` to its end and answers its result. A panic in it goes on in the caller.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Pool::Threads(permits) = self else { return work() };
        let permit = permits.clone().acquire_owned().await.ok(); // never closed
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        match task.await {
            Ok(done) => done,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
}
