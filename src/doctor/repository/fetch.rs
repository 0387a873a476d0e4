//! Where the files of a repository come from: a folder, or a web server. Every answer is
//! bounded in size and time, and all of them together in time.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{StatusCode, Url};

use crate::client::cause;
use crate::clock::Clock;
use crate::{Error, Result};

/// The most bytes of a file that are read: twice the snapshot of 65,536 bins with hashes.
pub const MAX_FILE: u64 = 32 << 20;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a file may take.
const WHOLE: Duration = Duration::from_secs(120);

/// What came for a name.
#[derive(Debug)]
pub enum Answer {
    /// The file.
    File(Vec<u8>),
    /// There is none; of a web server the status.
    Absent(Option<u16>),
    /// It has more than [`MAX_FILE`] bytes.
    TooLarge,
    /// It could not be read.
    Failed(String),
    /// The time for all of the files was up before it came.
    Late,
}

/// Where a repository's files are asked for.
pub struct Source<'c> {
    place: Place,
    clock: &'c dyn Clock,
    /// When the time is up, in the clock's ticks.
    until_ms: u64,
    /// A server to which a redirect led.
    elsewhere: Mutex<Option<String>>,
}

enum Place {
    /// A folder of files.
    Folder(PathBuf),
    /// A base URL that ends in `/`.
    Web(reqwest::Client, Url),
}

impl<'c> Source<'c> {
    /// Finds the metadata of `repository`: a URL or a folder, or `metadata/` beneath it. After `timeout` nothing is read
    /// any more.
    ///
    /// # Errors
    /// `Invalid` if there is none, `Unavailable` if the server does not answer.
    pub async fn open(repository: &str, clock: &'c dyn Clock, timeout: Duration) -> Result<Source<'c>> {
        let until_ms = clock.ticks_ms().saturating_add(timeout.as_millis() as u64);
        let at = |place| Source { place, elsewhere: Mutex::default(), clock, until_ms };
        match repository.split_once("://") {
            Some(("http" | "https", _)) => Source::web(repository, at).await,
            Some((scheme, _)) => {
                Err(wrong(format!("{scheme}:// is no place that is looked at: http, https or a folder")))
            }
            None => Ok(at(folder(Path::new(repository))?)),
        }
    }

    async fn web(repository: &str, at: impl Fn(Place) -> Source<'c>) -> Result<Source<'c>> {
        let mut base = Url::parse(repository).map_err(|e| wrong(format!("{repository} is no URL: {e}")))?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .timeout(WHOLE)
            .redirect(reqwest::redirect::Policy::limited(5))
            .build()
            .map_err(|e| Error::unavailable(format!("no HTTP client: {e}")))?;
        let below = base.join("metadata/").map_err(|e| wrong(format!("{repository}: {e}")))?;
        for base in [&base, &below] {
            let source = at(Place::Web(http.clone(), base.clone()));
            match source.get("timestamp.json").await {
                Answer::Absent(_) => {}
                Answer::Failed(e) => return Err(Error::unavailable(format!("{base} cannot be read: {e}"))),
                Answer::Late => return Err(Error::unavailable(format!("{base} did not answer in time"))),
                Answer::File(_) | Answer::TooLarge => return Ok(source),
            }
        }
        Err(wrong(format!("there is no timestamp.json under {base} or {below}")))
    }

    /// Asks for a file by its name, in which a role is percent-encoded.
    pub async fn get(&self, name: &str) -> Answer {
        let left = self.until_ms.saturating_sub(self.clock.ticks_ms());
        if left == 0 {
            return Answer::Late;
        }
        let answer = async {
            match &self.place {
                Place::Folder(dir) => read(dir, name),
                Place::Web(http, base) => match base.join(name) {
                    Ok(url) => self.download(http, url).await,
                    Err(e) => Answer::Failed(format!("{name} makes no URL: {e}")),
                },
            }
        };
        tokio::time::timeout(Duration::from_millis(left), answer).await.unwrap_or(Answer::Late)
    }

    /// How the place is shown.
    pub fn shown(&self) -> String {
        match &self.place {
            Place::Folder(dir) => dir.display().to_string(),
            Place::Web(_, base) => base.to_string(),
        }
    }

    /// A URL on another server that answered instead, because of a redirect. Clients follow those too.
    pub fn elsewhere(&self) -> Option<String> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn download(&self, http: &reqwest::Client, url: Url) -> Answer {
        let origin = url.origin();
        let mut response = match http.get(url).send().await {
            Ok(response) => response,
            Err(e) => return Answer::Failed(cause(&e)),
        };
        if response.url().origin() != origin {
            let url = response.url().to_string();
            *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = Some(url);
        }
        match response.status() {
            StatusCode::OK => {}
            status if status.is_client_error() => return Answer::Absent(Some(status.as_u16())),
            status => return Answer::Failed(format!("the server answers {status}")),
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if (bytes.len() + chunk.len()) as u64 > MAX_FILE => return Answer::TooLarge,
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Answer::File(bytes),
                Err(e) => return Answer::Failed(cause(&e)),
            }
        }
    }
}

fn folder(dir: &Path) -> Result<Place> {
    let below = dir.join("metadata");
    // A root alone may be the one that clients are shipped with, beside the metadata.
    let with = |file: &'static str| [dir, &below].into_iter().find(|dir| dir.join(file).exists());
    match with("timestamp.json").or_else(|| with("root.json")) {
        _ if dir.join("store").is_dir() && dir.join("log").is_dir() => {
            let (shown, hint) = (dir.display(), "what it publishes");
            Err(wrong(format!(
                "{shown} is a node's data directory: `--data {shown}` checks the node, {shown}/store {hint}"
            )))
        }
        Some(dir) => Ok(Place::Folder(dir.to_owned())),
        None => Err(wrong(format!("neither {} nor its folder metadata holds a timestamp.json", dir.display()))),
    }
}

fn wrong(message: String) -> Error {
    Error::invalid("REPOSITORY", message)
}

fn read(dir: &Path, name: &str) -> Answer {
    // A role with `/` may lie in a folder, as a server that decodes %2F would look for it.
    let decoded = PathBuf::from(name.replace("%2F", "/"));
    let inside = decoded.components().all(|c| matches!(c, Component::Normal(_)));
    let path = Some(dir.join(name)).filter(|path| path.exists() || !inside).unwrap_or_else(|| dir.join(decoded));
    match fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Answer::Absent(None),
        Ok(meta) if !meta.is_file() => return Answer::Failed("it is not a file".into()),
        Ok(meta) if meta.len() > MAX_FILE => return Answer::TooLarge,
        _ => {}
    }
    let mut bytes = Vec::new();
    match fs::File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)) {
        Ok(n) if n as u64 > MAX_FILE => Answer::TooLarge,
        Ok(_) => Answer::File(bytes),
        Err(e) => Answer::Failed(e.to_string()),
    }
}
