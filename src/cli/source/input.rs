//! From the arguments of `import` to lines of text: globs, stdin, decompression, bounded lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Format, MAX_LINE, Progress, error_at};
use crate::error::{Error, Result};

/// The most memory an xz decoder may take; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// The compressions that are known, for messages.
const KNOWN: &str = "gzip, xz and lz4";

/// One file, one directory, or stdin (`-`).
#[derive(Debug)]
pub(super) struct Input {
    /// Its path, or `-`.
    pub name: String,
    /// Its length in bytes if that is known beforehand.
    pub len: Option<u64>,
}

/// Resolves names and patterns, in the order given; a pattern's matches in the order of their names.
pub(super) fn expand(format: Format, args: &[String]) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    for arg in args {
        if arg == "-" {
            if format == Format::Dir {
                return Err(error_at("-", "a directory cannot be read from standard input"));
            }
            if inputs.iter().any(|i| i.name == "-") {
                return Err(error_at("-", "standard input can be read only once"));
            }
            inputs.push(Input { name: arg.clone(), len: None });
        } else if Path::new(arg).exists() {
            inputs.push(input(format, arg.clone())?);
        } else if arg.contains(['*', '?', '[']) {
            let paths = glob::glob(arg).map_err(|e| error_at(arg, format!("not a pattern: {e}")))?;
            let before = inputs.len();
            for path in paths {
                let path = path.map_err(|e| error_at(e.path().display().to_string(), e.error().to_string()))?;
                let name = path.to_str().ok_or_else(|| {
                    error_at(path.display().to_string(), "the name is not UTF-8; give the file on standard input")
                })?;
                inputs.push(input(format, name.to_owned())?);
            }
            if inputs.len() == before {
                return Err(error_at(arg, "the pattern matches nothing"));
            }
        } else {
            return Err(error_at(arg, "no such file or directory"));
        }
    }
    if inputs.is_empty() {
        return Err(Error::invalid("FILE", "nothing to import: name files, patterns, or - for standard input"));
    }
    Ok(inputs)
}

fn input(format: Format, name: String) -> Result<Input> {
    let meta = std::fs::metadata(&name).map_err(|e| error_at(&name, e.to_string()))?;
    match (format, meta.is_dir()) {
        (Format::Dir, false) => Err(error_at(name, "not a directory")),
        (Format::Dir, true) => Ok(Input { name, len: None }),
        (_, true) => Err(error_at(name, "a directory (import it with --format dir)")),
        // The length of a pipe or a device says nothing.
        (_, false) => Ok(Input { name, len: meta.is_file().then_some(meta.len()) }),
    }
}

impl Input {
    /// Opens it and finds out how it is compressed.
    pub fn lines(&self, progress: Arc<Progress>) -> Result<Lines> {
        let (name, raw): (_, Box<dyn Read + Send>) = if self.name == "-" {
            ("<stdin>", Box::new(io::stdin()))
        } else {
            let file = File::open(&self.name).map_err(|e| error_at(&self.name, e.to_string()))?;
            (self.name.as_str(), Box::new(file))
        };
        let reader = decoder(Counting { raw, progress }).map_err(|e| error_at(name, e.to_string()))?;
        Ok(Lines { reader, name: name.to_owned(), buffer: Vec::new(), number: 0, item: None })
    }
}

/// Decompresses by magic bytes; none of the text formats can begin with one of them.
fn decoder(mut raw: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut head = Vec::new();
    raw.by_ref().take(6).read_to_end(&mut head)?;
    let raw = Cursor::new(head.clone()).chain(raw);
    Ok(if head.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(raw)))
    } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        let concatenated = 0x08; // LZMA_CONCATENATED: several streams in one file are one text
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, concatenated)?;
        Box::new(BufReader::new(liblzma::read::XzDecoder::new_stream(raw, stream)))
    } else if head.starts_with(&[0x04, 0x22, 0x4d, 0x18]) {
        Box::new(BufReader::new(Lz4(Some(lz4_flex::frame::FrameDecoder::new(BufReader::new(raw))))))
    } else {
        Box::new(BufReader::new(raw))
    })
}

/// What the first line of something that is no text says it is.
fn foreign(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 4] = [
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"BZh91AY&SY", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (&[0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], "7z"),
    ];
    known.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| *name)
}

/// All frames of an lz4 file. lz4_flex reports the end of each frame as the end of the text, and panics on
/// a second frame with another block size (0.14.2, debug assertions on): so each frame has a decoder of its own.
struct Lz4<R: BufRead>(Option<lz4_flex::frame::FrameDecoder<R>>);

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(mut decoder) = self.0.take() {
            let n = decoder.read(out)?;
            if n > 0 || out.is_empty() {
                self.0 = Some(decoder);
                return Ok(n);
            }
            let mut rest = decoder.into_inner();
            if !rest.fill_buf()?.is_empty() {
                self.0 = Some(lz4_flex::frame::FrameDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// Counts what passes into [`Progress`].
struct Counting<R> {
    raw: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.raw.read(out)?;
        self.progress.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The lines of one input, each at most [`MAX_LINE`] long.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    buffer: Vec<u8>,
    number: u64,
    /// The line that the last change began in, if not the last line.
    pub item: Option<u64>,
}

impl Lines {
    #[cfg(test)]
    pub fn of(bytes: &[u8]) -> Lines {
        let reader = decoder(Cursor::new(bytes.to_vec())).expect("memory can be read");
        Lines { reader, name: "test".into(), buffer: Vec::new(), number: 0, item: None }
    }

    /// The next line without its end (`\n` or `\r\n`), and without a byte order mark; `None` at the end.
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        self.buffer.clear();
        self.number += 1;
        let limit = MAX_LINE as u64 + 2;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
        let n = read.map_err(|e| self.error(format!("cannot be read: {e}")))?;
        if n == 0 {
            return Ok(None);
        }
        if let Some(name) = foreign(&self.buffer).filter(|_| self.number == 1) {
            return Err(self.error(format!("this is {name}: unpack it first ({KNOWN} are unpacked here)")));
        }
        if self.buffer.contains(&0) {
            return Err(self.error(format!("this is no text, and no compression known here ({KNOWN})")));
        }
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
            if self.buffer.last() == Some(&b'\r') {
                self.buffer.pop();
            }
        }
        if self.buffer.len() > MAX_LINE {
            return Err(self.error(format!("the line is longer than {MAX_LINE} bytes")));
        }
        let line = match self.number {
            1 => self.buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.buffer),
            _ => &self.buffer,
        };
        Ok(Some(line))
    }

    /// The number of the line read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the last change began.
    pub fn place(&self) -> String {
        format!("{}:{}", self.name, self.item.unwrap_or(self.number))
    }

    /// A failure in the line read last.
    pub fn error(&self, message: impl Into<String>) -> Error {
        self.error_at(self.number, message)
    }

    /// A failure in line `number`.
    pub fn error_at(&self, number: u64, message: impl Into<String>) -> Error {
        error_at(format!("{}:{number}", self.name), message)
    }
}
