//! The store in a bucket of an S3-compatible server.
//!
//! Every node of a repository may have it open; between them, two conditions that the server keeps settle everything:
//!
//! ```text
//!   create        PUT, If-None-Match: *      once; refused when the name is taken
//!   sync          nothing                    what the server has answered is durable; HEAD for what this handle
//!                                            has neither created nor seen
//!   swap_pointer  PUT, If-Match: ETag        only from the bytes that the ETag was read with
//! ```
//!
//! A server that ignores one of them would let two nodes publish against each other, so [`S3Store::open`] tries both
//! on an object of its own below `.probe/`, and refuses a server that lacks one. Names of objects never begin with a
//! dot, so what a killed probe leaves there is never seen.
//!
//! # Answers that are lost
//!
//! A PUT that got no answer, or a 5xx, may have acted. It is sent again, for both conditions make that harmless; if it
//! is then refused, what is there decides. [`Store::create`] answers `Same` when its bytes are there. A swap answers
//! `true` when its bytes are there **and** an earlier attempt of the same call may have put them there (a rival's equal
//! bytes are not ours), `false` when no attempt can have acted, and `Indeterminate` when one may have and others have
//! moved the pointer since. That needs to know of every attempt, which is why the retries are here (`retry.rs`) and
//! those of `object_store` are off: it does not tell of them, and takes a connection that broke for one never made.
//!
//! # What is assumed of the server
//!
//! Reads see what was written before at once, as S3 does since 2020. Nothing else writes below the prefix, and no
//! lifecycle rule removes anything there. What an answered PUT wrote stays.
//!
//! # Credentials, bucket, region
//!
//! Needed are s3:GetObject, s3:PutObject, s3:ListBucket, and for the trial s3:DeleteObject below `.probe/`.
//!
//! Found wrong at the start, they are `Invalid`: the operator is there to put them right. Later they are
//! `Unavailable`: an expired token or a policy under repair comes back, the log keeps what is committed meanwhile, and
//! a node that ended itself would have to be started again by hand.

mod open;
mod retry;
mod seen;

use std::sync::Mutex;

use bytes::Bytes;
use futures::future::{BoxFuture, try_join_all};
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};
use tokio::sync::Semaphore;

use self::retry::{Attempt, Failure, Tries};
use self::seen::Seen;
use super::{Created, POINTER, Store, check_creatable, check_name};
use crate::error::{Error, Result};

pub use open::Settings;

/// How many requests that write are under way at a time; as many again that read, so that clients who read do not keep
/// a checkpoint waiting.
const REQUESTS: usize = 32;

/// A store in a bucket.
pub struct S3Store {
    client: AmazonS3,
    /// `s3://bucket/prefix`, for messages.
    url: String,
    /// What stands before every name: empty, or ending with `/`.
    prefix: String,
    reads: Semaphore,
    writes: Semaphore,
    /// The pointer as last read or written.
    pointer: Mutex<Option<Tagged>>,
    seen: Mutex<Seen>,
    read_only: bool,
    /// The server's time when its conditions were tried, in Unix seconds.
    opened_at: Option<u64>,
}

/// An object's bytes, and the ETag that stands for them.
#[derive(Clone)]
struct Tagged {
    bytes: Bytes,
    tag: Option<String>,
}

impl S3Store {
    /// Opens the store and makes sure that the server keeps what the contract needs.
    ///
    /// # Errors
    /// `Invalid` for settings, credentials, bucket or region that are wrong, and for a server that lacks a condition;
    /// `Unavailable` if the server does not answer.
    pub async fn open(settings: &Settings) -> Result<S3Store> {
        let mut store = S3Store::new(settings, false)?;
        store.opened_at = Some(store.probe().await?);
        Ok(store)
    }

    /// Opens the store to read it. Nothing is changed, and whatever would write answers `Invalid`.
    ///
    /// # Errors
    /// As [`S3Store::open`], without the conditions.
    pub async fn open_read_only(settings: &Settings) -> Result<S3Store> {
        let store = S3Store::new(settings, true)?;
        store.look().await?;
        Ok(store)
    }

    fn new(settings: &Settings, read_only: bool) -> Result<S3Store> {
        let (client, prefix) = settings.client()?;
        Ok(S3Store {
            client,
            url: settings.url.trim_end_matches('/').to_owned(),
            prefix,
            reads: Semaphore::new(REQUESTS),
            writes: Semaphore::new(REQUESTS),
            pointer: Mutex::new(None),
            seen: Mutex::new(Seen::default()),
            read_only,
            opened_at: None,
        })
    }

    /// The server's time when it was opened, in Unix seconds; `None` of a store that was opened to read.
    pub fn opened_at(&self) -> Option<u64> {
        self.opened_at
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only { Err(Error::invalid("store", "was opened to read only")) } else { Ok(()) }
    }

    /// The key of a name.
    fn key(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }

    fn tries(&self, doing: String) -> Tries {
        Tries::new(format!("{}: {doing}", self.url))
    }

    /// One PUT. Answers the ETag.
    async fn put(&self, name: &str, bytes: Bytes, mode: PutMode) -> Attempt<Option<String>> {
        let _permit = retry::permit(&self.writes).await;
        let media = if name.ends_with(".json") { "application/json" } else { "application/octet-stream" };
        let attributes = Attributes::from_iter([(Attribute::ContentType, media)]);
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let key = self.key(name);
        match retry::attempt(self.client.put_opts(&key, bytes.into(), options)).await {
            Ok(put) => Ok(put.e_tag),
            Err(Failure::Absent) => Err(Failure::Refused {
                field: retry::URL,
                message: "404 to a PUT: is the bucket there, and the endpoint that of an S3 server?".into(),
            }),
            Err(failure) => Err(failure),
        }
    }

    /// One GET.
    async fn fetch(&self, name: &str) -> Attempt<Option<Tagged>> {
        Ok(self.fetch_dated(name).await?.map(|(found, _)| found))
    }

    /// The same with the time at which the server took it, in Unix seconds.
    async fn fetch_dated(&self, name: &str) -> Attempt<Option<(Tagged, u64)>> {
        let _permit = retry::permit(&self.reads).await;
        let key = self.key(name);
        let fetched = retry::attempt(async {
            let answer = self.client.get(&key).await?;
            let (tag, time) = (answer.meta.e_tag.clone(), answer.meta.last_modified.timestamp());
            Ok((Tagged { bytes: answer.bytes().await?, tag }, u64::try_from(time).unwrap_or(0)))
        });
        match fetched.await {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// An object or the pointer, and what follows from having seen it.
    async fn read(&self, name: &str) -> Result<Option<Tagged>> {
        let mut tries = self.tries(format!("cannot read {name}"));
        let found = loop {
            match self.fetch(name).await {
                Ok(found) => break found,
                Err(failure) => tries.again_read(failure).await?,
            }
        };
        if name == POINTER {
            self.remember_pointer(found.clone());
        } else if found.is_some() {
            self.remember(name);
        }
        Ok(found)
    }

    async fn create_object(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.check_writable()?;
        check_creatable(name)?;
        let mut tries = self.tries(format!("cannot create object {name}"));
        loop {
            let failure = match self.put(name, bytes.clone(), PutMode::Create).await {
                Ok(_) => {
                    self.remember(name);
                    return Ok(Created::New);
                }
                Err(failure) => failure,
            };
            let refused = matches!(failure, Failure::Condition);
            if !refused {
                tries.again(failure).await?;
            }
            // A server may refuse before it has read the body and close: of a large one that is seen as a broken
            // connection, every time. So what is there decides.
            if refused || tries.may_have_acted() {
                match self.read(name).await.map_err(|e| tries.settle(e))? {
                    Some(there) if there.bytes == bytes => return Ok(Created::Same),
                    Some(there) => return Ok(Created::Other(there.bytes)),
                    // A rival is at it, and may fail yet.
                    None if refused => tries.again(Failure::busy("another request for it is under way")).await?,
                    None => {}
                }
            }
        }
    }

    async fn swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<bool> {
        self.check_writable()?;
        let mut tries = self.tries("cannot move the pointer".into());
        loop {
            let mode = match old {
                None => PutMode::Create,
                Some(old) => {
                    let known = match self.known_pointer().filter(|known| known.bytes == *old) {
                        Some(known) => Some(known),
                        None => self.read(POINTER).await.map_err(|e| tries.settle(e))?,
                    };
                    match known {
                        Some(Tagged { bytes, tag: Some(tag) }) if bytes == *old => {
                            PutMode::Update(UpdateVersion { e_tag: Some(tag), version: None })
                        }
                        Some(known) if known.bytes == *old => {
                            return Err(Error::unavailable(format!("{}: the server gives no ETag", self.url)));
                        }
                        there => return self.lost(&tries, there, &new),
                    }
                }
            };
            match self.put(POINTER, new.clone(), mode).await {
                Ok(tag) => {
                    self.remember_pointer(Some(Tagged { bytes: new, tag }));
                    return Ok(true);
                }
                Err(Failure::Condition) => {
                    let there = self.read(POINTER).await.map_err(|e| tries.settle(e))?;
                    if there.as_ref().map(|there| &there.bytes) != old {
                        return self.lost(&tries, there, &new);
                    }
                    tries.again(Failure::busy("another request for it is under way")).await?;
                }
                Err(failure) => tries.again(failure).await?,
            }
        }
    }

    /// What a swap answers when the pointer is not, or no longer, what it was to be moved from.
    fn lost(&self, tries: &Tries, there: Option<Tagged>, new: &Bytes) -> Result<bool> {
        if !tries.may_have_acted() {
            return Ok(false);
        }
        match there {
            Some(there) if there.bytes == *new => Ok(true),
            _ => {
                Err(Error::indeterminate(format!("{}: an answer was lost, and the pointer has moved since", self.url)))
            }
        }
    }

    /// That an object is there.
    async fn expect(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if self.lock_seen().contains(name) {
            return Ok(());
        }
        match self.head(name).await? {
            Some(_) => Ok(()),
            None => Err(Error::corrupt(format!("object {name} was to be made durable but is not there"))),
        }
    }

    /// The length of an object, in bytes.
    async fn head(&self, name: &str) -> Result<Option<u64>> {
        check_name(name)?;
        let mut tries = self.tries(format!("cannot look for {name}"));
        let key = self.key(name);
        loop {
            let permit = retry::permit(&self.reads).await;
            let head = retry::attempt(self.client.head(&key)).await;
            drop(permit);
            match head {
                Ok(found) => {
                    self.remember(name);
                    return Ok(Some(found.size));
                }
                // The answer to HEAD has no body that would tell a missing object from a missing bucket.
                Err(Failure::Absent) => return Ok(self.read(name).await?.map(|found| found.bytes.len() as u64)),
                Err(failure) => tries.again_read(failure).await?,
            }
        }
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut page_token = None;
        loop {
            let mut tries = self.tries("cannot list objects".into());
            let page = loop {
                let permit = retry::permit(&self.reads).await;
                let options = PaginatedListOptions { page_token: page_token.clone(), ..Default::default() };
                let prefix = Some(format!("{}{prefix}", self.prefix)).filter(|p| !p.is_empty());
                let page = retry::attempt(self.client.list_paginated(prefix.as_deref(), options)).await;
                drop(permit);
                match page {
                    Ok(page) => break page,
                    Err(failure) => tries.again_read(failure).await?,
                }
            };
            for object in &page.result.objects {
                if let Some(name) = object.location.as_ref().strip_prefix(&self.prefix)
                    && name.starts_with(prefix)
                    && check_creatable(name).is_ok()
                {
                    names.push(name.to_owned());
                }
            }
            page_token = page.page_token;
            if page_token.is_none() {
                names.sort();
                names.dedup();
                return Ok(names);
            }
        }
    }

    fn remember(&self, name: &str) {
        self.lock_seen().insert(name);
    }

    fn lock_seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn known_pointer(&self) -> Option<Tagged> {
        self.pointer.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn remember_pointer(&self, pointer: Option<Tagged>) {
        *self.pointer.lock().unwrap_or_else(|e| e.into_inner()) = pointer;
    }
}

impl Store for S3Store {
    fn create<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Created>> {
        Box::pin(self.create_object(name, bytes))
    }

    fn sync<'a>(&'a self, names: &'a [String]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.check_writable()?;
            try_join_all(names.iter().map(|name| self.expect(name))).await.map(drop)
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            check_name(name)?;
            Ok(self.read(name).await?.map(|found| found.bytes))
        })
    }

    fn length<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        Box::pin(self.head(name))
    }

    fn swap_pointer<'a>(&'a self, old: Option<&'a Bytes>, new: Bytes) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.swap(old, new))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.names(prefix))
    }
}
