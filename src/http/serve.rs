//! Connections: accepting, bounding and ending them.
//!
//! Answers go out at once (`TCP_NODELAY`; without it a POST was seen to take 48 ms longer). A client that sends its
//! request's head or body too slowly, or does not take its answer, is cut off, and only so many connections are open
//! that they take neither the node's memory nor the files that log and state need. On shutdown no new ones are taken,
//! and requests that are under way are answered.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{App, router};
use crate::clock::Stopwatch;

/// How many connections may be open at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4_096;
/// How many file descriptors are kept for log, state and store; each connection may need two.
const FILES_KEPT: u64 = 896;
/// How long an answer may find no reader.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// How long the head of a request may take to come, and how long a connection may be idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long requests that are under way at a shutdown may take.
const END_PATIENCE: Duration = Duration::from_secs(35);
/// The pause after the system could not give another connection (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How many open files are few, and how many are enough for [`MAX_CONNECTIONS`].
pub fn open_files() -> (u64, u64) {
    (FILES_KEPT + 32, FILES_KEPT + 2 * MAX_CONNECTIONS as u64)
}

/// Raises the limit of open files as far as it goes, and answers how many connections that leaves room for.
fn max_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (_, wanted) = open_files();
    let raised = limit.maximum.map_or(wanted, |max| max.min(wanted)).max(limit.current.unwrap_or(wanted));
    let files = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(wanted),
    };
    (files.saturating_sub(FILES_KEPT) / 2).clamp(16, MAX_CONNECTIONS as u64) as usize
}

/// Serves the API on a listener until `shutdown` completes, then answers what is under way and returns.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let router = router(app.clone());
    let connections = Arc::new(Semaphore::new(max_connections()));
    let mut warned: Option<Stopwatch> = None;
    let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn({
        let (app, ending) = (app.clone(), ending.clone());
        async move {
            tokio::select! {
                () = app.watch_published() => {}
                () = app.record_rates() => {}
                () = ending.cancelled() => {}
            }
        }
    });
    let mut shutdown = pin!(shutdown);
    loop {
        let accept = async {
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                if warned.as_ref().is_none_or(|w| w.seconds() > 10.0) {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    warned = Some(Stopwatch::start());
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // it only costs time when it fails
        let (service, ending) = (TowerToHyperService::new(router.clone()), ending.clone());
        tasks.spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(MAX_HEAD_BYTES);
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(WRITE_PATIENCE));
            let mut connection = pin!(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(e) = ended {
                tracing::debug!(error = %e, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    ending.cancel();
    app.ending.cancel();
    tasks.close();
    if tokio::time::timeout(END_PATIENCE, tasks.wait()).await.is_err() {
        tracing::warn!("some requests were still under way");
    }
}
