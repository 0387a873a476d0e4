//! Published files as they go over the wire: kept in memory, compressed once for all clients.
//!
//! A versioned file never changes, so a copy is good for as long as there is room for it. A cache only: outside the
//! rule that two nodes give the same bytes (compressed ones may differ).

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::bins::sha256;
use crate::pool::Pool;

/// How many bytes are kept, all variants together, about.
const CACHE_BYTES: usize = 96 << 20;
/// Shorter files are not compressed: the headers would outweigh it.
const MIN_COMPRESSED: usize = 1_024;
/// zstd's own default: about 200 MB/s.
const ZSTD_LEVEL: i32 = 3;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is stored.
    Identity,
    /// `gzip`.
    Gzip,
    /// `zstd`.
    Zstd,
}

impl Encoding {
    /// The best that a client accepts: zstd, gzip, else as it is.
    pub fn accepted(headers: &HeaderMap) -> Encoding {
        let (mut gzip, mut zstd, mut any) = (None, None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
        for item in values.flat_map(|v| v.split(',')) {
            let mut fields = item.split(';').map(str::trim);
            let name = fields.next().unwrap_or_default().to_ascii_lowercase();
            let q = fields.find_map(|f| f.strip_prefix("q=").or(f.strip_prefix("Q=")));
            let wanted = q.is_none_or(|q| q.trim().parse().is_ok_and(|q: f32| q > 0.0));
            match name.as_str() {
                "gzip" | "x-gzip" => gzip = Some(wanted),
                "zstd" => zstd = Some(wanted),
                "*" => any = Some(wanted),
                _ => {}
            }
        }
        if zstd.or(any) == Some(true) {
            Encoding::Zstd
        } else if gzip.or(any) == Some(true) {
            Encoding::Gzip
        } else {
            Encoding::Identity
        }
    }

    /// Its name in `Content-Encoding`.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Encoding::Identity => None,
            Encoding::Gzip => Some("gzip"),
            Encoding::Zstd => Some("zstd"),
        }
    }
}

/// A file with its variants.
pub struct Variants {
    /// As it is stored.
    pub identity: Bytes,
    /// 128 bits of the stored bytes' SHA-256, in hex: what a strong validator is made of.
    tag: String,
    gzip: OnceCell<Option<Bytes>>,
    zstd: OnceCell<Option<Bytes>>,
}

impl Variants {
    /// Of a file with these bytes.
    pub fn new(identity: Bytes) -> Variants {
        let tag = hex::encode(&sha256(&identity)[..16]);
        Variants { identity, tag, gzip: OnceCell::new(), zstd: OnceCell::new() }
    }

    /// The body in this encoding, or as it is if that is no longer. Compresses on `pool`, once.
    pub async fn body(&self, wanted: Encoding, pool: &Pool) -> (Bytes, Encoding) {
        let cell = match wanted {
            _ if self.identity.len() < MIN_COMPRESSED => return (self.identity.clone(), Encoding::Identity),
            Encoding::Identity => return (self.identity.clone(), Encoding::Identity),
            Encoding::Gzip => &self.gzip,
            Encoding::Zstd => &self.zstd,
        };
        let bytes = self.identity.clone();
        let packed = cell.get_or_init(|| pool.run(move || compress(&bytes, wanted))).await;
        match packed {
            Some(packed) => (packed.clone(), wanted),
            None => (self.identity.clone(), Encoding::Identity),
        }
    }

    /// The ETag of the body in this encoding: another encoding is another sequence of bytes.
    pub fn etag(&self, encoding: Encoding) -> String {
        match encoding.name() {
            None => format!("\"{}\"", self.tag),
            Some(name) => format!("\"{}-{name}\"", self.tag),
        }
    }

    /// True if which body is sent may depend on `Accept-Encoding`.
    pub fn varies(&self) -> bool {
        self.identity.len() >= MIN_COMPRESSED
    }
}

/// `None` when it gains nothing.
fn compress(bytes: &[u8], encoding: Encoding) -> Option<Bytes> {
    let packed = match encoding {
        Encoding::Identity => None,
        Encoding::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(bytes).and_then(|()| writer.finish()).ok()
        }
        Encoding::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok(),
    };
    packed.filter(|packed| packed.len() < bytes.len()).map(Bytes::from)
}

/// The files asked for last. Bounded.
#[derive(Default)]
pub struct Cache(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    files: HashMap<String, (Arc<Variants>, u64)>,
    /// Names by when they were asked for.
    order: BTreeMap<u64, String>,
    clock: u64,
    bytes: usize,
}

impl Kept {
    fn touch(&mut self, name: &str) -> Option<Arc<Variants>> {
        let (file, at) = self.files.get_mut(name)?;
        self.clock += 1;
        if let Some(name) = self.order.remove(&std::mem::replace(at, self.clock)) {
            self.order.insert(self.clock, name);
        }
        Some(file.clone())
    }
}

/// What a file costs with its variants, which are made later and are each at most as long.
fn cost(file: &Variants) -> usize {
    2 * file.identity.len() + 512
}

impl Cache {
    /// The kept copy of a file.
    pub fn get(&self, name: &str) -> Option<Arc<Variants>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).touch(name)
    }

    /// Keeps a file, instead of those that were not asked for the longest; answers the copy that is kept.
    pub fn put(&self, name: &str, file: Variants) -> Arc<Variants> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = kept.touch(name) {
            return there;
        }
        let (file, cost_of_file) = (Arc::new(file), cost);
        if cost(&file) > CACHE_BYTES / 4 {
            return file;
        }
        kept.clock += 1;
        let at = kept.clock;
        kept.bytes += cost_of_file(&file);
        kept.order.insert(at, name.to_owned());
        kept.files.insert(name.to_owned(), (file.clone(), at));
        while kept.bytes > CACHE_BYTES {
            let Some((_, oldest)) = kept.order.pop_first() else { break };
            if let Some((file, _)) = kept.files.remove(&oldest) {
                kept.bytes -= cost(&file);
            }
        }
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &str) -> Encoding {
        Encoding::accepted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]))
    }

    #[test]
    fn a_client_gets_the_best_it_accepts() {
        assert_eq!(accepted("gzip, deflate, br, zstd"), Encoding::Zstd);
        assert_eq!(accepted("gzip;q=0.5, zstd;q=0"), Encoding::Gzip);
        assert_eq!(accepted("*"), Encoding::Zstd);
        assert_eq!(accepted("*;q=0, gzip"), Encoding::Gzip);
        assert_eq!(accepted("identity"), Encoding::Identity);
        assert_eq!(Encoding::accepted(&HeaderMap::new()), Encoding::Identity);
    }

    #[tokio::test]
    async fn a_variant_is_made_once_and_unpacks_to_the_file() {
        let text = Bytes::from("0123456789abcdef".repeat(200));
        let file = Variants::new(text.clone());
        let (packed, encoding) = file.body(Encoding::Zstd, &Pool::Inline).await;
        assert_eq!(encoding, Encoding::Zstd);
        assert_eq!(zstd::bulk::decompress(&packed, 1 << 20).unwrap(), text);
        assert_ne!(file.etag(Encoding::Zstd), file.etag(Encoding::Identity));
        let short = Variants::new(Bytes::from_static(b"short"));
        assert_eq!(short.body(Encoding::Gzip, &Pool::Inline).await.1, Encoding::Identity);
    }

    #[test]
    fn the_cache_keeps_what_was_asked_for_last() {
        let cache = Cache::default();
        let file = |n: usize| Variants::new(Bytes::from(vec![b'x'; n]));
        for i in 0..40 {
            cache.put(&i.to_string(), file(4 << 20));
            assert!(cache.get("0").is_some(), "asked for all the time, at {i}");
        }
        assert!(cache.get("1").is_none());
        assert!(cache.0.lock().unwrap().bytes <= CACHE_BYTES);
        cache.put("huge", file(64 << 20));
        assert!(cache.get("huge").is_none(), "one file does not push out all others");
    }
}
