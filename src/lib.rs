//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).
pub mod clock;
pub mod error;
pub mod tuf;

pub use error::{Error, Result};
