//! Where a path lives: path → sha256 → place → bin → partition.
//!
//! Bins follow TAP 15 (succinct hashed bins): the leading `bin_bits` bits of sha256(path as UTF-8),
//! named `bins-` and lower hex padded to the width of the last bin. A partition is the share of
//! the hash space given by the leading `partition_bits` bits, so that a bin lives in exactly one.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A 32-byte SHA-256.
pub type Sha256Digest = [u8; 32];
/// Where a path stands in the hash space: the first 8 bytes of its SHA-256, big-endian.
pub type Place = u64;
/// The index of a hash bin, `0 .. bins`.
pub type Bin = u32;
/// The index of a partition, `0 .. partitions`.
pub type PartitionId = u16;

/// The most bins a repository may have: above it no known client is usable.
pub const MAX_BINS: u32 = 1 << 16;
/// The most partitions a repository may have.
pub const MAX_PARTITIONS: u32 = 1 << 10;
/// The fixed part of every bin's role name.
pub const NAME_PREFIX: &str = "bins";

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256::digest(bytes).into()
}

/// The place of a path.
pub fn place(path: &str) -> Place {
    let digest = sha256(path.as_bytes());
    Place::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// How many bins and partitions a repository has. Fixed by its Format record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    bin_bits: u8,
    partition_bits: u8,
}

impl Layout {
    /// Both must be powers of two: 2 to 65,536 bins, 1 to 1,024 partitions, never more partitions than bins.
    pub fn new(bins: u32, partitions: u32) -> Result<Layout> {
        if !bins.is_power_of_two() || !(2..=MAX_BINS).contains(&bins) {
            return Err(Error::invalid("bins", format!("must be a power of two from 2 to {MAX_BINS}, not {bins}")));
        }
        if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
            let rule = format!("must be a power of two from 1 to {MAX_PARTITIONS}, not {partitions}");
            return Err(Error::invalid("partitions", rule));
        }
        if partitions > bins {
            let rule = format!("must not be more than the bins: {partitions} partitions, {bins} bins");
            return Err(Error::invalid("partitions", rule));
        }
        Ok(Layout { bin_bits: bins.trailing_zeros() as u8, partition_bits: partitions.trailing_zeros() as u8 })
    }

    /// The number of bins.
    pub fn bins(&self) -> u32 {
        1 << self.bin_bits
    }

    /// The number of partitions.
    pub fn partitions(&self) -> PartitionId {
        1 << self.partition_bits
    }

    /// TAP 15's `bit_length`.
    pub fn bit_length(&self) -> u8 {
        self.bin_bits
    }

    /// The bin of a path.
    pub fn bin_of(&self, path: &str) -> Bin {
        self.bin_at(place(path))
    }

    /// The bin of a place.
    pub fn bin_at(&self, place: Place) -> Bin {
        (place >> (64 - u32::from(self.bin_bits))) as Bin
    }

    /// The partition a bin lives in.
    pub fn partition_of(&self, bin: Bin) -> PartitionId {
        (bin >> (self.bin_bits - self.partition_bits)) as PartitionId
    }

    /// The bins of a partition.
    pub fn bins_of(&self, partition: PartitionId) -> std::ops::Range<Bin> {
        let share = 1u32 << (self.bin_bits - self.partition_bits);
        u32::from(partition) * share..(u32::from(partition) + 1) * share
    }

    /// The role name of a bin: `bins-00` to `bins-ff` for 256 bins.
    pub fn name(&self, bin: Bin) -> String {
        let width = format!("{:x}", self.bins() - 1).len();
        format!("{NAME_PREFIX}-{bin:0width$x}")
    }

    /// The inverse of [`Layout::name`].
    pub fn parse_name(&self, name: &str) -> Option<Bin> {
        let hex = name.strip_prefix(NAME_PREFIX)?.strip_prefix('-')?;
        let bin = u32::from_str_radix(hex, 16).ok()?;
        (bin < self.bins() && self.name(bin) == name).then_some(bin)
    }

    /// The leading bits of the hash that all paths of a partition share, as text of `0` and `1`.
    pub fn partition_prefix(&self, partition: PartitionId) -> String {
        (0..self.partition_bits).rev().map(|i| if partition >> i & 1 == 1 { '1' } else { '0' }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_where_tap_15_says() {
        let l = Layout::new(256, 4).unwrap();
        // sha256("a") begins ca97…
        assert_eq!((l.bin_of("a"), l.name(l.bin_of("a")), l.partition_of(l.bin_of("a"))), (0xca, "bins-ca".into(), 3));
        assert_eq!(Layout::new(2, 2).unwrap().name(1), "bins-1");
        assert_eq!(Layout::new(16_384, 8).unwrap().name(0x2a), "bins-002a");
    }

    #[test]
    fn every_bin_lives_in_exactly_one_partition() {
        for (bins, partitions) in [(2, 1), (2, 2), (256, 4), (1024, 1024), (65_536, 16)] {
            let l = Layout::new(bins, partitions).unwrap();
            let all: Vec<Bin> = (0..l.partitions()).flat_map(|p| l.bins_of(p)).collect();
            assert_eq!(all, (0..bins).collect::<Vec<_>>());
            assert!((0..l.partitions()).all(|p| l.bins_of(p).all(|b| l.partition_of(b) == p)));
            assert!((0..bins).all(|b| l.parse_name(&l.name(b)) == Some(b)));
        }
    }

    #[test]
    fn impossible_layouts_are_refused_by_name() {
        for (bins, partitions, field) in [
            (3, 1, "bins"),
            (1, 1, "bins"),
            (1 << 17, 1, "bins"),
            (4, 3, "partitions"),
            (4, 8, "partitions"),
            (4, 0, "partitions"),
        ] {
            assert_eq!(Layout::new(bins, partitions).unwrap_err().field.as_deref(), Some(field));
        }
        let l = Layout::new(16, 1).unwrap();
        for bad in ["bins-10", "bins-0A", "bins-", "bin-0", "bins-00", "bins-+1"] {
            assert_eq!(l.parse_name(bad), None, "{bad}");
        }
    }
}
