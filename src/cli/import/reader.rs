//! The thread that reads: input → checked changes → batches, never far ahead of what is sent.

use tokio::sync::mpsc::{self, Receiver};

use crate::change::Change;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::source::chunk::{self, Chunk};
use crate::cli::source::{Item, Source};
use crate::error::{Error, Result};

/// How many batches are read ahead.
const AHEAD: usize = 2;

/// Starts reading. It ends with the input, at an error, or when the receiver is dropped.
pub fn start(source: Source, batch_size: usize, salt: Option<String>) -> Outcome<Receiver<Result<Chunk>>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let read = move || {
        for chunk in chunk::chunks(Checked(source), batch_size, salt) {
            if sender.blocking_send(chunk).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("import-reader".into())
        .spawn(read)
        .map_err(|e| Failure::new(Code::TryAgain, format!("cannot start a thread: {e}")))?;
    Ok(receiver)
}

/// Changes that the server would refuse are found here, where their file and line are known.
struct Checked(Source);

impl Iterator for Checked {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        let item = self.0.next()?;
        Some(item.and_then(|item| match check(&item) {
            Ok(()) => Ok(item),
            Err(e) => Err(match self.0.place() {
                place if place.is_empty() => e,
                place => Error::invalid(place, e.to_string()),
            }),
        }))
    }
}

/// The rules of [`Change`]. Whether an algorithm beside sha256 is admitted is for the server to say.
pub(super) fn check(item: &Item) -> Result<()> {
    match item {
        Item::Add { path, length, hashes, custom } => Change::add(path.clone(), *length, hashes, custom.as_ref()),
        Item::Remove { path } => Change::remove(path.clone()),
    }
    .map(drop)
}
