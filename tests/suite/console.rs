//! The console of real nodes in a real Chromium, which `tests/console/drive.js` drives; and how its files are served.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::help;
use crate::http_site::Site;
use crate::server::{self, Server};

const TOKEN: &str = "read-0123456789abcdef";

/// Where `tests/console/setup.sh` has installed the browser and its driver. It does nothing when they are there; that it
/// fails is a failure.
fn installed() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let status = Command::new(source.join("tests/console/setup.sh")).status().expect("bash");
    assert!(status.success(), "the browser could not be installed: see above");
    std::env::var_os("TUFLOG_CONSOLE_DIR").map_or(source.join(".cache/console"), PathBuf::from)
}

fn repository(data: &Path) {
    server::init(data, &["--bins", "64", "--partitions", "4"]);
}

#[test]
fn the_console_shows_a_node_to_people_and_takes_nothing_from_strangers() {
    let installed = installed();
    let scratch = help::scratch();
    let (data, guarded) = (scratch.path().join("data"), scratch.path().join("guarded"));
    repository(&data);
    repository(&guarded);
    let tokens = scratch.path().join("tokens");
    std::fs::write(&tokens, format!("{TOKEN} read\n")).unwrap();
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).unwrap();
    let guarded = Server::start(&guarded, &["--auth-tokens-file", tokens.to_str().unwrap()]);
    let server = Server::start(&data, &[]);
    let url = server.url();
    let listen = url.strip_prefix("http://").unwrap().to_owned();
    let mut server = Some(server);

    let mut driver = Command::new(installed.join("bin/node"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/drive.js"))
        .args([&url, &guarded.url(), TOKEN])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the driver starts");
    let mut done = driver.stdin.take().expect("piped");
    for line in BufReader::new(driver.stdout.take().expect("piped")).lines() {
        match line.expect("a line").as_str() {
            "stop" => server.take().expect("it runs").stop(),
            "start" => server = Some(Server::start(&data, &["--listen", &listen])),
            other => panic!("the driver asks for {other:?}"),
        }
        writeln!(done, "done").expect("it reads");
    }
    assert!(driver.wait().expect("its end").success(), "see what the driver says above");
}

#[tokio::test]
async fn the_files_of_the_console_are_fresh_and_may_do_little() {
    let site = Site::start().await;
    let get = async |path: &str, etag: &str| {
        let request = site.client.get(format!("http://{}{path}", site.addr)).header("if-none-match", etag);
        request.send().await.unwrap()
    };
    let page = get("/", "\"another\"").await;
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!((header("referrer-policy"), header("cache-control")), ("no-referrer".into(), "no-cache".into()));
    let etag = header("etag");
    assert_eq!(get("/", &etag).await.status(), 304);

    let text = page.text().await.unwrap();
    let named: Vec<&str> = text.split('"').filter(|part| part.starts_with("console/")).collect();
    assert!(named.len() > 2, "{named:?}");
    let (mut known, mut next) = (vec![], named.iter().map(|name| format!("/{name}")).collect::<Vec<_>>());
    while let Some(path) = next.pop() {
        let file = get(&path, "").await;
        assert_eq!(file.status(), 200, "{path}");
        let kind = if path.ends_with(".js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(file.headers()["content-type"], kind, "{path}");
        known.push(path);
        let text = file.text().await.unwrap();
        let imports = text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        let new = imports.map(|name| format!("/console/{name}")).filter(|path| !known.contains(path));
        next.extend(new.filter(|path| !next.contains(path)).collect::<Vec<_>>());
    }
    site.stop().await;
}
