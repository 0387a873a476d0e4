//! The ledger: the records of the total order, and the state they fold to. Pure: no I/O, no clock, no randomness.
//!
//! Owns invariant 1 (the same batch id within the horizon is one batch) and the order half of invariant 2: every
//! reader that has read the same prefix of the ledger holds an equal [`State`] and has reached the same [`Outcome`]
//! for every batch, whatever process it runs in and wherever it started.
//!
//! ```text
//!   record.rs   what stands in topic `ledger`         segment.rs  what stands in topic `changes`
//!   report.rs   what stands in topic `folds`          ids.rs      which batch ids are remembered
//!   state.rs    record × state → event, state         slots.rs    when a bin is due for renewal
//!   saved.rs    the state as an object                follower.rs a reader of the ledger with its state
//!   inbox.rs    how far the inbox is sequenced, and what is written of what it refuses
//!   recovery.rs the state after records were lost
//! ```

pub mod follower;
pub mod ids;
pub mod inbox;
pub mod record;
pub mod recovery;
pub mod report;
pub mod saved;
pub mod segment;
pub mod slots;
pub mod state;

pub use follower::Follower;
pub use record::Record;
pub use report::FoldReport;
pub use state::{Event, Outcome, State};

/// The version `v` of every encoding that this program writes and reads.
pub const VERSION: u64 = 1;
/// The rendering epoch of every byte that this program publishes.
pub const EPOCH: u64 = 1;
/// The largest Commit record, in bytes.
pub const MAX_COMMIT_BYTES: usize = 256 << 10;
/// The most batches in a Commit.
pub const MAX_COMMIT_BATCHES: usize = 256;
/// The largest record of `changes` and `folds`, in bytes.
pub const MAX_SEGMENT_BYTES: usize = 512 << 10;
