//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).
pub mod cli;
pub mod clock;
pub mod error;

pub use error::{Error, Result};
