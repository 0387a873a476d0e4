//! Connections: accepting, bounding and ending them.
//!
//! Answers go out at once (`TCP_NODELAY`; without it a POST was seen to take 48 ms longer). A client that sends its
//! request's head or body too slowly is cut off, and so many connections are open at most that none of them can take
//! the node's memory. On shutdown no new ones are taken, and requests that are under way are answered.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{App, router};

/// How many connections may be open at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4_096;
/// How long the head of a request may take to come, and how long a connection may be idle.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long requests that are under way at a shutdown may take.
const END_PATIENCE: Duration = Duration::from_secs(35);
/// The pause after the system could not give another connection (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Serves the API on a listener until `shutdown` completes, then answers what is under way and returns.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) {
    let router = router(app.clone());
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn({
        let (app, ending) = (app, ending.clone());
        async move {
            tokio::select! {
                () = app.watch_published() => {}
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
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true); // it only costs time when it fails
        let (service, ending) = (TowerToHyperService::new(router.clone()), ending.clone());
        tasks.spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_PATIENCE).max_buf_size(MAX_HEAD_BYTES);
            let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
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
    tasks.close();
    if tokio::time::timeout(END_PATIENCE, tasks.wait()).await.is_err() {
        tracing::warn!("some requests were still under way");
    }
}
