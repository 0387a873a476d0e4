//! Answers of JSON Lines, read as they come.

use std::sync::atomic::Ordering;
use std::time::Duration;

use memchr::memchr;
use reqwest::{Method, Response};

use super::answer::{self, Try};
use super::{Client, Failure, Result, pause_ms};
use crate::clock::{Clock, SystemClock};

/// The longest line, in bytes: one of a batch of the greatest length, with room to spare.
const MAX_LINE_BYTES: usize = 256 << 20;

/// An answer of JSON Lines under way.
pub struct Lines {
    response: Response,
    server: String,
    buffer: Vec<u8>,
    /// What of the buffer was handed out.
    taken: usize,
}

impl Client {
    /// `GET` of JSON Lines. Tried again as long as the server is away; what breaks off later is the caller's to ask for
    /// again, from where it was.
    pub async fn lines(&self, path: &str, query: &[(&str, String)]) -> Result<Lines> {
        let (started, mut tries) = (SystemClock.ticks_ms(), 0);
        loop {
            let turn = self.turn();
            let request = self.request(turn, Method::GET, path)?.query(query);
            let outcome = match request.send().await {
                Ok(response) if response.status().is_success() => {
                    self.met.store(true, Ordering::Relaxed);
                    return Ok(Lines::new(response, self.server_at(turn)));
                }
                Ok(response) => self.read(turn, response).await,
                Err(e) => answer::none(self.server_at(turn), &e, self.met.load(Ordering::Relaxed)),
            };
            let again = match outcome {
                Try::Again(again) => again,
                Try::Absent { why, .. } | Try::Final(why) => return Err(why),
                Try::Good(_) => return Err(Failure::Unreadable("a refusal that is a success".into())),
            };
            tries += 1;
            let left = self.patience_ms(&again).saturating_sub(SystemClock.ticks_ms() - started);
            let pause = pause_ms(tries, again.asked_ms, fastrand::f64());
            if pause > left {
                return Err(again.why);
            }
            self.turn.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
}

impl Lines {
    pub(super) fn new(response: Response, server: &str) -> Lines {
        Lines { response, server: server.to_owned(), buffer: Vec::new(), taken: 0 }
    }

    /// Whether a line has come already, so that the next one is no wait.
    pub fn is_at_hand(&self) -> bool {
        memchr(b'\n', &self.buffer[self.taken..]).is_some()
    }

    /// The next line, without its newline; empty ones are passed over. `None` at the end.
    ///
    /// # Errors
    /// `Unanswered` if the answer broke off.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut searched = self.taken;
        loop {
            while let Some(at) = memchr(b'\n', &self.buffer[searched..]) {
                let line = self.buffer[self.taken..searched + at].to_vec();
                self.taken = searched + at + 1;
                searched = self.taken;
                if !line.is_empty() {
                    return Ok(Some(line));
                }
            }
            self.buffer.drain(..self.taken);
            (searched, self.taken) = (self.buffer.len(), 0);
            match self.response.chunk().await {
                Ok(Some(chunk)) if self.buffer.len() + chunk.len() <= MAX_LINE_BYTES => {
                    self.buffer.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    return Err(Failure::Unreadable(format!("a line is longer than {MAX_LINE_BYTES} bytes")));
                }
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(Failure::Unreadable("the last line is cut short".into())),
                Err(e) => {
                    let (server, cause) = (self.server.clone(), answer::cause(&e));
                    return Err(Failure::Unanswered { server, cause });
                }
            }
        }
    }
}
