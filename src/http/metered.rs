//! A store that counts and times what is asked of it, and what is created in it.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::metrics::{Metrics, Object, StoreOp, StoreRequest};
use crate::clock::Stopwatch;
use crate::error::Result;
use crate::store::{Created, Store};

/// Passes everything on to another store.
pub struct MeteredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl MeteredStore {
    /// Counts what is created in `inner`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> MeteredStore {
        MeteredStore { inner, metrics }
    }
}

/// The kind of an object, from its name.
fn kind(name: &str) -> &'static str {
    let role = name.strip_prefix("metadata/").and_then(|rest| rest.split_once('.')).map(|(_, role)| role);
    match role {
        Some(role) if role.starts_with("bins-") => "bin",
        Some("snapshot.json") => "snapshot",
        Some("targets.json") => "targets",
        Some("root.json") => "root",
        _ => "state",
    }
}

impl MeteredStore {
    /// Counts and times a request.
    async fn metered<T>(&self, op: &'static str, request: BoxFuture<'_, Result<T>>) -> Result<T> {
        let started = Stopwatch::start();
        let answer = request.await;
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        self.metrics.store_requests.get_or_create(&StoreRequest { op, outcome }).inc();
        self.metrics.store_seconds.get_or_create(&StoreOp { op }).observe(started.seconds());
        answer
    }
}

impl Store for MeteredStore {
    fn create<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Created>> {
        Box::pin(async move {
            let length = bytes.len() as u64;
            let created = self.metered("create", self.inner.create(name, bytes)).await?;
            if created == Created::New {
                let object = Object { object: kind(name) };
                self.metrics.objects.get_or_create(&object).inc();
                self.metrics.object_bytes.get_or_create(&object).inc_by(length);
            }
            Ok(created)
        })
    }

    fn sync<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.metered("sync", self.inner.sync(names)))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(self.metered("get", self.inner.get(name)))
    }

    fn length<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.metered("length", self.inner.length(name)))
    }

    fn swap_pointer<'a>(&'a self, old: Option<&'a Bytes>, new: Bytes) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.metered("swap", self.inner.swap_pointer(old, new)))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.metered("list", self.inner.list(prefix)))
    }
}
