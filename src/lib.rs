//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).
pub mod error;
pub mod clock;
pub mod tuf;
pub mod bins;
pub mod change;
pub mod log;
pub mod ledger;
pub mod store;
pub mod pool;
pub mod fold;
pub mod recover;
pub mod compact;

pub use error::{Error, Result};
