//! tuflog: an event-sourced, log-structured metadata store for TUF (The Update Framework).
//!
//! Producers append target changes to a log that decides the order; partition consumers fold them into bin state and
//! publish signed hash bins; a compaction consumer turns committed positions across partitions into consistent signed
//! snapshots and timestamps. Every published byte is a pure function of the log.
//!
//! # The path of a change
//!
//! ```text
//!  producer ─► topic inbox ────┐
//!  producer ─► cli, http ─► intake ─┬─ segments ─► topic changes (P partitions) ─┐
//!                                   └─ Commit ───► topic ledger (1)  ◄───────────┼──── Cut, Checkpoint, Renew
//!                                                      │                         │              │
//!                                                      ▼                         ▼              │
//!                                    fold (one a partition): bin state ─► signed bins ─► store  │
//!                                                      └─ FoldReport ─► topic folds ─► compact ─┘
//!                                                                        snapshot, timestamp ─► store ─► clients
//! ```
//!
//! # Who owns which invariant
//!
//! | | invariant | owner |
//! |---|---|---|
//! | 1 | an acknowledged batch is never lost; the same id within the horizon is one batch | [`ledger`], [`intake`] |
//! | 2 | every snapshot equals the fold of an exact ledger prefix | [`ledger`], [`compact`] |
//! | 3 | nothing published refers to an object that is not stored yet | [`store`], [`fold`], [`compact`] |
//! | 4 | versions only rise; entries never leave the snapshot | [`compact`] |
//! | 5 | state, dirty marks and position move in one write; any restart gives the same bytes | [`fold`] |
//! | 6 | a position beyond the end of the log stops the process | [`ledger::follower`], [`recover`] |
//! | 7 | an invalid change is refused with a reason that names the field | [`change`] |
//! | 8 | every queue is bounded; full means try again, nothing lost | [`intake`] |
//! | 9 | every online role is renewed before it expires | [`ledger::slots`], [`compact`] |
//!
//! # The import rule
//!
//! A module imports only modules that stand above it in the list below (`tests/tidy.rs` holds this). `rdkafka` and
//! `rocksdb` are named only by their drivers, `ed25519_dalek` only by [`tuf`], the wall clock only by [`clock`], and
//! only [`node`] and the handling of connections spawn tasks.

// Leaves.
pub mod error;

pub mod clock;

pub mod pool;

pub mod config;

// The published format; what is written and where it belongs.
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
pub mod data_dir;

pub mod query;

pub mod http;

pub mod client;

pub mod bench;

pub mod node;

pub mod doctor;

pub mod cli;

pub use client::Client;
pub use error::{Error, Result};
