//! The checks: one function for each, with its fault and the facts of the clients beside it.
//!
//! ```text
//!   common.rs       every file: type, version, dates, size, signatures     text.rs      what parts the dialects of JSON
//!   root.rs         roots, and the keys of any file                        meta.rs      timestamp and snapshot
//!   delegations.rs  the form of delegation                                 targets.rs   targets and their paths
//!   edge.rs         whether a delegation leads to a target                 listed.rs    a file is the one that is named
//!   strict.rs       fields that php-tuf does not take
//! ```

pub mod common;
pub mod delegations;
pub mod edge;
pub mod listed;
pub mod meta;
pub mod root;
pub mod strict;
pub mod targets;
pub mod text;

use super::file::Look;

/// A check of one file.
pub type Check = fn(&mut Look<'_>);

/// What is checked in every file.
pub const EVERY: &[Check] = &[
    common::version,
    common::spec_version,
    common::expires_form,
    common::repeated_signature,
    text::number,
    text::repeated_member,
    text::not_normalised,
    text::control_character,
    text::not_ascii,
    text::key_order_of_utf16,
    text::key_order_of_tough,
    strict::unknown_field,
];

/// What is checked in every root beside that.
pub const ROOT: &[Check] =
    &[root::consistent_snapshot, root::key_type, root::key_id, root::key_id_of_php, root::role_keys];

/// What is checked in the timestamp beside that.
pub const TIMESTAMP: &[Check] =
    &[common::expiry, meta::timestamp_meta, meta::snapshot_hash, meta::zero_length, meta::hash_names];

/// What is checked in the snapshot beside that.
pub const SNAPSHOT: &[Check] =
    &[common::expiry, meta::snapshot_meta, meta::zero_length, meta::hash_names, meta::entry_count];

/// What is checked in targets, top-level or delegated, beside that.
pub const TARGETS: &[Check] = &[
    common::expiry,
    targets::shape,
    targets::target_count,
    targets::hashes,
    targets::length_zero,
    targets::custom,
    targets::nested_empty_object,
    targets::path,
    targets::path_of_rust_tuf,
    targets::path_with_folder,
    delegations::form,
    delegations::bits,
    delegations::names,
    delegations::integer_names,
    delegations::unknown_field,
    delegations::delegation_count,
    root::key_type,
    root::key_id,
    root::key_id_of_php,
    root::role_keys,
];
