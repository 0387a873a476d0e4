//! How a record stands in the database.
//!
//! ```text
//!   0, 2 │ append time (7 bytes, big-endian) │ payload
//!   1, 3 │ append time (7 bytes, big-endian) │ length (4 bytes, little-endian) │ payload as an LZ4 block
//! ```
//!
//! The time is in Unix milliseconds; 0 and 1, in seconds, are not written any more.
//!
//! From [`COMPRESSED_BYTES`] on a payload is compressed before it is written at all: so the write-ahead log is as small
//! as what follows from it.

use bytes::Bytes;
use lz4_flex::block;

use crate::error::{Error, Result};

/// Payloads of at least this size are compressed, if it makes them smaller.
pub const COMPRESSED_BYTES: usize = 1 << 10;
/// What no payload reaches: a larger one is not ours.
const MAX_PAYLOAD_BYTES: usize = 256 << 20;
/// What the first byte counts.
const FORM: u64 = 1 << 56;
const MILLISECONDS: u64 = 2 * FORM;
const LZ4: u64 = FORM;
const TIME_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// Writes a record over what is in `out`.
pub fn write(time_ms: u64, payload: &[u8], out: &mut Vec<u8>) {
    let head = time_ms & (FORM - 1) | MILLISECONDS;
    out.clear();
    if payload.len() >= COMPRESSED_BYTES && payload.len() <= MAX_PAYLOAD_BYTES {
        let length = payload.len() as u32;
        let start = TIME_BYTES + LENGTH_BYTES;
        out.extend_from_slice(&(head | LZ4).to_be_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.resize(start + block::get_maximum_output_size(payload.len()), 0);
        if let Ok(compressed) = block::compress_into(payload, &mut out[start..])
            && compressed + LENGTH_BYTES < payload.len()
        {
            return out.truncate(start + compressed);
        }
        out.clear();
    }
    out.extend_from_slice(&head.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The append time in Unix milliseconds and the payload of a record; an error if nobody wrote it.
pub fn read(value: &[u8]) -> Result<(u64, Bytes)> {
    let corrupt = |why: &str| Error::corrupt(format!("a record of the log {why}"));
    let (head, rest) = value.split_first_chunk::<TIME_BYTES>().ok_or_else(|| corrupt("is cut short"))?;
    let head = u64::from_be_bytes(*head);
    let time = head % FORM;
    let time_ms = if head < MILLISECONDS { time.saturating_mul(1_000) } else { time };
    match head / FORM {
        0 | 2 => Ok((time_ms, Bytes::copy_from_slice(rest))),
        1 | 3 => {
            let (length, block) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| corrupt("is cut short"))?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > MAX_PAYLOAD_BYTES {
                return Err(corrupt("claims to be larger than any"));
            }
            let payload =
                block::decompress(block, length).map_err(|e| corrupt(&format!("does not decompress: {e}")))?;
            match payload.len() == length {
                true => Ok((time_ms, payload.into())),
                false => Err(corrupt("is shorter than it says")),
            }
        }
        form => Err(corrupt(&format!("has the unknown form {form}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            time in 0..FORM, unit in proptest::collection::vec(any::<u8>(), 1..40), times in 0usize..400,
            noise in proptest::collection::vec(any::<u8>(), 0..3_000),
        ) {
            for payload in [unit.repeat(times), noise] {
                let mut value = vec![7; 100];
                write(time, &payload, &mut value);
                prop_assert_eq!(read(&value).unwrap(), (time, Bytes::from(payload)));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            head in 0u8..5, mut bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: usize,
        ) {
            let _ = read(&bytes);
            bytes.insert(0, head);
            let _ = read(&bytes);
            let mut value = Vec::new();
            write(1, &bytes.repeat(30), &mut value);
            let _ = read(&value[..cut % value.len()]);
            let at = cut % value.len();
            value[at] ^= head + 1;
            let _ = read(&value);
        }
    }

    #[test]
    fn only_what_gets_smaller_is_compressed() {
        let mut value = Vec::new();
        write(3, &[b'x'; COMPRESSED_BYTES], &mut value);
        assert!(value.len() < 100 && value[0] == 3, "{}", value.len());
        write(3, &[b'x'; COMPRESSED_BYTES - 1], &mut value);
        assert_eq!((value[0], value.len()), (2, COMPRESSED_BYTES - 1 + TIME_BYTES));
        let noise: Vec<u8> = (0..4_000u32).flat_map(|i| crate::bins::sha256(&i.to_be_bytes())).collect();
        write(3, &noise, &mut value);
        assert_eq!((value[0], value.len()), (2, noise.len() + TIME_BYTES));
    }
}
