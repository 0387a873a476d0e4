//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).

// Leaves.
pub mod clock;
pub mod config;
pub mod error;
pub mod pool;

// What is written, and the format it is published in.
pub mod tuf;

pub mod bins;

pub mod change;

// Where it is kept.
pub mod log;

pub mod ledger;

pub mod store;

// The engine.
pub mod intake;

pub mod fold;

pub mod recover;

pub mod compact;

pub mod audit;

// The edges.
pub mod cli;

pub use error::{Error, Result};
