//! The keys of bin state, and what is written in them: see [`super::state`].

use crate::bins::{Bin, PartitionId};
use crate::ledger::follower::Mark;

pub fn key(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![tag];
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

pub fn meta_key(partition: PartitionId) -> Vec<u8> {
    key(b'm', &[&partition.to_be_bytes()])
}

pub fn meta_value(mark: &Mark) -> Vec<u8> {
    let mut value = mark.next.to_be_bytes().to_vec();
    if let Some((seq, digest)) = &mark.last {
        value.extend_from_slice(&seq.to_be_bytes());
        value.extend_from_slice(digest);
    }
    value
}

pub fn report_key(partition: PartitionId) -> Vec<u8> {
    key(b'r', &[&partition.to_be_bytes()])
}

pub fn bin_key(tag: u8, bin: Bin) -> Vec<u8> {
    key(tag, &[&bin.to_be_bytes()])
}

/// What the keys of a partition's absent removals begin with, and what stands behind them all.
pub fn absent_range(partition: PartitionId) -> (Vec<u8>, Vec<u8>) {
    let end = (u32::from(partition) + 1).to_be_bytes();
    (key(b'a', &[&partition.to_be_bytes()]), key(b'a', &[&end[2..]]))
}

pub fn write_target_key(bin: Bin, path: &str, out: &mut Vec<u8>) {
    out.push(b't');
    out.extend_from_slice(&bin.to_be_bytes());
    out.extend_from_slice(path.as_bytes());
}

/// Appends a target to a bin's content.
pub fn write_member(path: &[u8], fragment: &[u8], content: &mut Vec<u8>) {
    content.extend_from_slice(if content.is_empty() { b"\"" } else { b",\"" });
    content.extend_from_slice(path);
    content.extend_from_slice(b"\":");
    content.extend_from_slice(fragment);
}
