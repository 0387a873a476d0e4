//! What several modules of the suite need.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// A test that takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Set in a process that a test started to be its other half.
const CHILD_DIR: &str = "TUFLOG_TEST_CHILD_DIR";

/// A scratch folder on the disk of the build, not on a tmpfs.
pub fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("suite-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch folder")
}

/// Runs a future without a runtime, as commands may.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let (mut context, mut future) = (std::task::Context::from_waker(&waker), std::pin::pin!(future));
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => return done,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// The folder to work in, when this process is the other half of a test.
pub fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD_DIR).map(Into::into)
}

/// This binary again, to run only `test` (`module::name`) as a child that works in `dir`.
pub fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.args(["--exact", test, "--nocapture"]).env(CHILD_DIR, dir).stdin(Stdio::null());
    command
}

/// Runs `test` as a child on a file system of `megabytes` that only it can see. A machine that does not let us mount
/// one fails the test: a full disk is not left untried in silence.
pub fn child_on_small_disk(test: &str, megabytes: u32) {
    let dir = scratch();
    let mount = format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}'", dir.path().display());
    for namespace in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let own = || {
            let mut command = Command::new("unshare");
            command.args(namespace).args(["sh", "-c"]);
            command
        };
        if own().arg(&mount).output().is_ok_and(|out| out.status.success()) {
            let child = child(test, dir.path());
            let line = format!("{mount} && exec \"$0\" \"$@\"");
            let out =
                own().arg(line).arg(child.get_program()).args(child.get_args()).env(CHILD_DIR, dir.path()).output();
            let out = out.expect("unshare ran a moment ago");
            let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
    }
    panic!("this machine lets us mount no small file system (unshare --mount, as root or with --map-root-user)");
}

/// The bytes of a fixture. With `TUFLOG_WRITE_FIXTURES` set it is written first, which only a new format version may do.
pub fn fixture(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if std::env::var_os("TUFLOG_WRITE_FIXTURES").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
