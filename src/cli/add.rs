//! `tuflog add`: one target, hashed here or described.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest, Sha256};

use super::failure::{Code, Failure, Outcome};
use super::write::{self, WriteArgs};
use crate::change::{ChangeRequest, Op};

const EXAMPLES: &str = "\
Examples:
  tuflog add hello.txt --file hello.txt --wait published
  tuflog add pool/h/hello.deb --length 53084 --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  tuflog add app/1.2.tar.gz --file app-1.2.tar.gz --custom '{\"channel\":\"beta\"}' --batch-id app-1.2";

/// Add a target, or replace the one at its path
#[derive(Debug, Args)]
#[command(long_about = "Add a target, or replace the one at its path.

The target's length and SHA-256 are taken from --file (which is only read: its bytes go nowhere), or given. \
The batch has its id before the first try, so a lost answer is tried again without doing anything twice.")]
#[command(override_usage = "tuflog add [OPTIONS] PATH --file FILE
       tuflog add [OPTIONS] PATH --length N --sha256 HEX")]
#[command(after_long_help = EXAMPLES)]
pub struct AddArgs {
    /// The target's path: /-separated parts of [A-Za-z0-9._+~@=,-]
    path: String,

    /// Take length and SHA-256 from this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["length", "sha256"])]
    file: Option<PathBuf>,

    /// The target's length in bytes
    #[arg(long, value_name = "N")]
    length: Option<u64>,

    /// The target's SHA-256, 64 hexadecimal digits
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,

    /// A JSON object for applications, published with the target: no floats, at most 16 KiB
    #[arg(long, value_name = "JSON")]
    custom: Option<String>,

    #[command(flatten)]
    write: WriteArgs,
}

/// Runs the command.
pub async fn run(args: AddArgs) -> Outcome {
    let (length, sha256) = match (&args.file, args.length, args.sha256) {
        (Some(file), ..) => describe(file)?,
        (None, Some(length), Some(sha256)) => (length, sha256.to_ascii_lowercase()),
        _ => {
            return Err(Failure::usage("give either --file FILE, or --length N with --sha256 HEX")
                .hint("`tuflog add --help` has examples"));
        }
    };
    let custom = args.custom.as_deref().map(custom).transpose()?;
    let hashes = Some(BTreeMap::from([("sha256".to_owned(), sha256)]));
    let change = ChangeRequest { op: Op::Add, path: args.path, length: Some(length), hashes, custom };
    write::send(&args.write, vec![change]).await
}

/// `custom`, parsed as strictly as the server does.
fn custom(text: &str) -> Outcome<serde_json::Value> {
    let wrong = |why: &str| Failure::usage(format!("--custom: {why}"));
    let value = serde_json::from_str::<Box<serde_json::value::RawValue>>(text).map_err(|e| wrong(&e.to_string()))?;
    let request = format!("{{\"op\":\"add\",\"path\":\"x\",\"custom\":{value}}}");
    let parsed = ChangeRequest::parse(request.as_bytes()).map_err(|e| wrong(&e.message))?;
    parsed.custom.filter(serde_json::Value::is_object).ok_or_else(|| wrong("must be an object"))
}

/// Length and SHA-256 of a file.
fn describe(path: &Path) -> Outcome<(u64, String)> {
    let failed = |e: io::Error| Failure::new(Code::Failed, format!("--file: {}: {e}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer, mut length) = (Sha256::new(), vec![0; 1 << 16], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((length, hex::encode(hasher.finalize()))),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_is_an_object_without_a_key_said_twice() {
        assert_eq!(custom(r#"{"a": [1]}"#).unwrap()["a"][0], 1);
        for bad in ["", "{", "null", r#"{"a":1,"a":2}"#, r#"{"a":1.5}"#, "1}, {"] {
            let Err(Failure::Said { code, .. }) = custom(bad) else { panic!("{bad}") };
            assert_eq!(code, Code::Usage, "{bad}");
        }
    }
}
