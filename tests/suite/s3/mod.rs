//! A real S3 server (versitygw): one for all tests of this binary, on a free port, a bucket for each bed.
//!
//! A shell that holds the read end of a pipe stands between: when this process ends, however it ends, the shell reads
//! the pipe's end, kills the server and removes its data.

pub mod proxy;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tuflog::config::StoreOptions;
use tuflog::store::s3::{S3Store, Settings};

use crate::help::scratch;

/// The credentials that the server takes.
pub const ACCESS_KEY: &str = "tuflog-test";
pub const SECRET_KEY: &str = "not-a-secret";

/// A server that runs as long as this process.
struct Server {
    addr: String,
    dir: PathBuf,
    /// Holds the pipe open.
    _guard: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let status = Command::new(source.join("tests/s3/setup.sh")).status().expect("bash");
        assert!(status.success(), "the S3 server could not be installed: see above");
        let home = std::env::var_os("TUFLOG_S3_DIR").map_or(source.join(".cache/s3"), PathBuf::from);
        for _ in 0..10 {
            if let Some(server) = start(&home.join("bin/versitygw")) {
                return server;
            }
        }
        panic!("the S3 server does not start");
    })
}

/// Starts the server; `None` if somebody else took the port.
fn start(program: &Path) -> Option<Server> {
    const GUARD: &str = r#"dir=$1; shift; "$@" & read -r _; kill -KILL $!; wait; rm -rf "$dir""#;
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let (addr, dir) = (format!("127.0.0.1:{port}"), scratch().keep());
    let mut guard = Command::new("sh")
        .args(["-c", GUARD, "sh"])
        .arg(&dir)
        .arg(program)
        .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", &addr, "--quiet", "--keep-alive", "posix"])
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0) // an interrupt of the tests must not take the shell that cleans up
        .spawn()
        .expect("sh");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(20) {
        if TcpStream::connect(&addr).is_ok() {
            return Some(Server { addr, dir, _guard: guard });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    guard.wait().expect("its end"); // closes the pipe
    None
}

/// A bucket of its own.
pub struct Bucket {
    pub name: String,
    /// Where the server keeps it: an object is a file.
    pub dir: PathBuf,
    endpoint: String,
}

impl Bucket {
    pub fn new() -> Bucket {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("bucket-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = server().dir.join(&name);
        std::fs::create_dir(&dir).expect("a directory");
        Bucket { name, dir, endpoint: endpoint() }
    }

    /// The same bucket, seen through a proxy.
    pub fn through(&self, proxy: &proxy::Proxy) -> Bucket {
        Bucket { name: self.name.clone(), dir: self.dir.clone(), endpoint: proxy.url() }
    }

    pub fn url(&self) -> String {
        format!("s3://{}/a/prefix", self.name)
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn settings(&self) -> Settings {
        let options = [("access_key_id", ACCESS_KEY), ("secret_access_key", SECRET_KEY)];
        let options: BTreeMap<_, _> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Settings {
            url: self.url(),
            endpoint: Some(self.endpoint.clone()),
            region: Some("us-east-1".into()),
            allow_http: true,
            options: StoreOptions(options),
        }
    }

    pub async fn open(&self) -> S3Store {
        S3Store::open(&self.settings()).await.expect("the store opens")
    }
}

/// The address of the server.
pub fn endpoint() -> String {
    format!("http://{}", server().addr)
}
