//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).
pub mod bins;
pub mod change;
pub mod clock;
pub mod compact;
pub mod error;
pub mod fold;
pub mod intake;
pub mod ledger;
pub mod log;
pub mod pool;
pub mod recover;
pub mod store;
pub mod tuf;

pub use error::{Error, Result};
