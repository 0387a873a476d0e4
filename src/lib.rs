//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).
pub mod clock;
pub mod error;
pub mod bins;
pub mod log;
pub mod store;

pub use error::{Error, Result};
