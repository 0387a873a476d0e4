//! `docker-compose.yml`, held to what the binary, Kafka and Prometheus really take, without Docker.
//!
//! `tests/compose/main.go` loads it as Docker Compose does. One test looks for what is wrong in it, and that looking is
//! tested on copies with one mistake each; another runs what it says, in its order, on a real Kafka and a real S3 server.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::help;
use crate::kafka;
use crate::s3::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::server::{self, Server, said};

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program that tests/compose/setup.sh installs.
fn program(name: &str) -> Command {
    static HOME: OnceLock<PathBuf> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let status = Command::new(source().join("tests/compose/setup.sh")).status().expect("bash");
        assert!(status.success(), "the loader and promtool could not be installed: see above");
        std::env::var_os("TUFLOG_COMPOSE_DIR").map_or(source().join(".cache/compose"), PathBuf::from)
    });
    Command::new(home.join("bin").join(name))
}

fn text() -> String {
    std::fs::read_to_string(source().join("docker-compose.yml")).expect("docker-compose.yml")
}

/// The project that Docker Compose would see.
fn load(text: &str) -> Result<Value, String> {
    let dir = help::scratch();
    let file = dir.path().join("docker-compose.yml");
    std::fs::write(&file, text).unwrap();
    let out = program("project").arg(&file).env_clear().output().expect("the loader runs");
    match out.status.success() {
        true => Ok(serde_json::from_slice(&out.stdout).expect("JSON")),
        false => Err(said(&out)),
    }
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn objects(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn variables(service: &Value) -> BTreeMap<&str, &str> {
    let all = service["environment"].as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

fn is_tuflog(service: &Value) -> bool {
    service["image"].as_str().is_some_and(|image| image.starts_with("tuflog"))
}

/// What `tuflog … --help` shows as variables, and what the S3 client reads.
fn known_variables() -> &'static BTreeSet<String> {
    static KNOWN: OnceLock<BTreeSet<String>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let help = ["init", "serve"].map(|command| server::run(&[command, "--help"])).concat();
        let shown = help.split("[env: ").skip(1).filter_map(|rest| rest.split('=').next());
        shown.chain(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]).map(str::to_owned).collect()
    })
}

/// The names of every setting that a broker has.
fn known_to_brokers() -> &'static BTreeSet<String> {
    static KNOWN: OnceLock<BTreeSet<String>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let which = ["--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"];
        let text = kafka::tool(kafka::one(), "kafka-configs", &which);
        text.lines().filter_map(|line| Some(line.trim().split_once('=')?.0.to_owned())).collect()
    })
}

/// The names of the samples that a node shows.
fn metrics() -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let dir = help::scratch();
        let data = dir.path().join("repo");
        server::init(&data, &["--bins", "2", "--partitions", "2"]);
        let node = Server::start(&data, &["--min-free-mib", "0"]);
        add(&node, "one", &[]);
        let (_, text) = node.get("/metrics").expect("an answer");
        let text = String::from_utf8(text).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    })
}

fn add(node: &Server, path: &str, options: &[&str]) -> Output {
    let (url, digest) = (node.url(), "ab".repeat(32));
    let args = ["add", path, "--length", "5", "--sha256", &digest, "--server", &url, "--wait", "published"];
    server::command(&[&args[..], options].concat()).output().expect("the binary runs")
}

#[test]
fn the_readme_lists_every_metric_and_no_other() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, table) = readme.split_once("### Metrics").expect("its section");
    let rows = table.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    let names = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let listed: BTreeSet<&str> = names.collect();
    // The samples of a histogram are those of one metric; the inbox is only on Kafka.
    let base = |name: &'static String| {
        let parts = ["_bucket", "_count", "_sum"];
        parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
    };
    let mut shown: BTreeSet<&str> = metrics().iter().map(base).collect();
    shown.insert("tuflog_inbox_lag_records");
    assert_eq!(listed, shown);
}

/// Everything that is wrong with a compose file.
fn findings(text: &str) -> Vec<String> {
    let project = match load(text) {
        Ok(project) => project,
        Err(why) => return vec![why],
    };
    let mut found = Vec::new();
    for (name, service) in project["services"].as_object().expect("services") {
        for port in objects(&service["ports"]).filter(|port| port["host_ip"] != "127.0.0.1") {
            found.push(format!("{name}: port {} is open to everybody", port["published"]));
        }
        if is_tuflog(service) {
            let unknown = variables(service).into_keys().filter(|v| !known_variables().contains(*v));
            found.extend(unknown.map(|v| format!("{name}: tuflog knows no variable {v}")));
            if service["entrypoint"].is_null() {
                let out = server::command(&[&strings(&service["command"])[..], &["--help"]].concat()).output().unwrap();
                found.extend((!out.status.success()).then(|| format!("{name}: {}", said(&out))));
            }
        }
        // The image's rule: KAFKA_A_B is a.b; it keeps the JVM's options to itself.
        for variable in variables(service).into_keys().filter(|v| *v != "KAFKA_HEAP_OPTS") {
            let Some(setting) = variable.strip_prefix("KAFKA_") else { continue };
            let setting = setting.to_lowercase().replace('_', ".");
            if !known_to_brokers().contains(&setting) {
                found.push(format!("{name}: brokers know no setting {setting}"));
            }
        }
    }
    found.extend(prometheus(&project));
    found
}

/// What is wrong with Prometheus's configuration and alerts.
fn prometheus(project: &Value) -> Vec<String> {
    let dir = help::scratch();
    configs(project, "prometheus", dir.path());
    std::fs::copy(source().join("tests/compose/alerts.yml"), dir.path().join("test.yml")).unwrap();
    let promtool = |args: [&str; 3]| {
        let out = program("promtool").args(args).current_dir(dir.path()).output().expect("promtool");
        (!out.status.success()).then(|| format!("prometheus: {}", said(&out)))
    };
    let mut found: Vec<String> = Vec::new();
    found.extend(promtool(["check", "config", "prometheus.yml"]));
    found.extend(promtool(["check", "rules", "alerts.yml"]));
    if found.is_empty() {
        found.extend(promtool(["test", "rules", "test.yml"]));
    }
    let alerts = std::fs::read_to_string(dir.path().join("alerts.yml")).unwrap();
    let words = alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|w| w.starts_with("tuflog_"));
    let unknown = words.filter(|name| !metrics().contains(*name));
    found.extend(unknown.map(|name| format!("prometheus: no node shows {name}")));
    found
}

/// Writes the inlined configs of a service to `dir` as Docker Compose would; answers where each target is now.
fn configs(project: &Value, service: &str, dir: &Path) -> Vec<(String, PathBuf)> {
    let place = |mount: &Value| {
        let target = mount["target"].as_str().expect("a target");
        let content = &project["configs"][mount["source"].as_str().expect("a source")]["content"];
        let file = dir.join(Path::new(target).file_name().expect("a name"));
        let _ = std::fs::remove_file(&file); // of the last time; it may be read-only
        std::fs::write(&file, content.as_str().expect("it is inlined")).unwrap();
        let mode = mount["mode"].as_str().map_or(0o444, |mode| u32::from_str_radix(mode, 8).expect("a mode"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        (target.to_owned(), file)
    };
    objects(&project["services"][service]["configs"]).map(place).collect()
}

#[test]
fn the_compose_file_says_nothing_that_is_not_so() {
    assert_eq!(findings(&text()), Vec::<String>::new());
}

#[test]
fn a_mistake_in_the_compose_file_is_found() {
    let mistakes = [
        ("command: [serve", "comand: [serve", "comand"),
        ("--roles, compact", "--rolls, compact", "--rolls"),
        ("--roles, compact", "--roles, compacts", "compacts"),
        ("command: [init", "command: [initialise", "initialise"),
        ("TUFLOG_KEYS:", "TUFLOG_KEY:", "no variable TUFLOG_KEY"),
        ("AWS_ACCESS_KEY_ID:", "AWS_ACCESS_KEY:", "no variable AWS_ACCESS_KEY"),
        ("online-key: {condition", "onlinekey: {condition", "onlinekey"),
        ("source: tokens", "source: token", "token"),
        ("\"worker-1:/data\"", "\"worker-0:/data\"", "worker-0"),
        ("KAFKA_MIN_INSYNC_REPLICAS", "KAFKA_MIN_INSYNC", "no setting min.insync"),
        ("127.0.0.1:8081:8080", "8081:8080", "8081"),
        ("expr: tuflog_ready", "expr: tuflog_is_ready", "no node shows tuflog_is_ready"),
        ("rule_files:", "rules_files:", "rules_files"),
        ("== 1)", "= 1)", "TuflogNoCompactor"),
        ("< 6 * 3600", "> 6 * 3600", "TuflogTimestampNearExpiry"),
    ];
    let good = text();
    for (from, to, says) in mistakes {
        let bad = good.replacen(from, to, 1);
        assert!(bad != good, "{from} does not stand there");
        let found = findings(&bad).join("\n");
        assert!(found.contains(says), "{from} → {to}: {found:?}");
    }
}

/// The composition on this machine: a volume is a directory, and the brokers and the store are those of the tests.
struct Machine {
    project: Value,
    dir: tempfile::TempDir,
    bucket: Bucket,
    brokers: String,
}

impl Machine {
    fn service(&self, name: &str) -> &Value {
        &self.project["services"][name]
    }

    /// Where the mounts of a service are.
    fn mounts(&self, name: &str) -> Vec<(String, PathBuf)> {
        let own = self.dir.path().join(format!("{name}-configs"));
        std::fs::create_dir_all(&own).unwrap();
        let mut mounts = configs(&self.project, name, &own);
        for volume in objects(&self.service(name)["volumes"]) {
            let place = self.dir.path().join(volume["source"].as_str().expect("a named volume"));
            std::fs::create_dir_all(&place).unwrap();
            mounts.push((volume["target"].as_str().unwrap().to_owned(), place));
        }
        mounts
    }

    /// Its paths in place of those of the container.
    fn placed(&self, name: &str, words: &str) -> String {
        let mounts = self.mounts(name);
        let place = |word: &str| {
            let mounted = mounts.iter().find_map(|(target, place)| {
                let below = Path::new(word).strip_prefix(target).ok()?;
                Some(place.join(below).to_str().unwrap().trim_end_matches('/').to_owned())
            });
            mounted.unwrap_or_else(|| word.to_owned())
        };
        words.split(' ').map(place).collect::<Vec<_>>().join(" ")
    }

    fn arguments(&self, name: &str) -> Vec<String> {
        strings(&self.service(name)["command"]).into_iter().map(|word| self.placed(name, word)).collect()
    }

    fn environment(&self, name: &str) -> BTreeMap<String, String> {
        let here = [
            ("TUFLOG_KAFKA_BROKERS", self.brokers.clone()),
            ("TUFLOG_STORE_URL", self.bucket.url()),
            ("TUFLOG_STORE_ENDPOINT", self.bucket.endpoint().to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ];
        let mut all: BTreeMap<String, String> =
            variables(self.service(name)).into_iter().map(|(k, v)| (k.to_owned(), self.placed(name, v))).collect();
        for (name, value) in here {
            assert!(all.insert(name.to_owned(), value).is_some(), "{name} is set");
        }
        all
    }

    /// Runs a service that ends.
    fn run(&self, name: &str) -> String {
        let arguments = self.arguments(name);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = match strings(&self.service(name)["entrypoint"])[..] {
            [] => server::command(&arguments),
            [shell, minus_c, script] => {
                let mut command = Command::new(shell);
                command.arg(minus_c).arg(self.placed(name, script));
                command
            }
            _ => panic!("{name}: no entrypoint, or a shell's script"),
        };
        let out = command.envs(self.environment(name)).output().expect("it runs");
        assert!(out.status.success(), "{name}: {}", said(&out));
        said(&out)
    }

    /// Starts a service that serves.
    fn start(&self, name: &str) -> Server {
        let arguments = self.arguments(name);
        let [serve, data_flag, data, options @ ..] = &arguments[..] else { panic!("{name}: {arguments:?}") };
        assert_eq!([serve.as_str(), data_flag.as_str()], ["serve", "--data"]);
        let environment = self.environment(name);
        let variables: Vec<_> = environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(["--min-free-mib", "0"]).collect();
        Server::spawn(Path::new(data), &options, &variables)
    }
}

#[test]
fn what_the_compose_file_says_works() {
    let project = load(&text()).unwrap();
    let waits = |name: &str| project["services"][name]["depends_on"].as_object().map(Map::len);
    assert_eq!([waits("init"), waits("online-key"), waits("worker-1")], [Some(3), Some(1), Some(2)]);
    let (cluster, bucket, dir) = (kafka::three(), Bucket::new(), help::scratch());
    let machine = Machine { project, dir, bucket, brokers: cluster.bootstrap() };

    assert!(machine.run("init").contains("made a TUF repository"));
    machine.run("online-key");
    assert!(machine.run("init").contains("nothing was changed"), "a second `up` is no failure");
    machine.run("online-key");
    let keys: Vec<_> = std::fs::read_dir(machine.dir.path().join("keys")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(keys.iter().map(|key| key.file_name()).collect::<Vec<_>>(), ["online.pem"], "and no root key");

    let names = ["worker-1", "worker-2", "compactor"];
    let mut nodes = names.map(|name| machine.start(name));
    for node in &nodes {
        node.wait_ready();
    }
    let tokens = machine.placed("worker-1", "/etc/tuflog/tokens");
    let out = add(&nodes[0], "one", &["--token-file", &tokens]);
    assert!(out.status.success(), "{}", said(&out));
    for node in &nodes[..2] {
        let url = node.url();
        let target = server::run(&["target", "one", "--json", "--server", &url, "--token-file", &tokens]);
        assert_eq!(serde_json::from_str::<Value>(&target).unwrap()["length"], 5);
    }

    // Prometheus may scrape all of them, and may not publish.
    let scrapes = machine.project["configs"]["prometheus"]["content"].as_str().unwrap();
    let token = scrapes.split_once("credentials: \"").and_then(|(_, rest)| rest.split('"').next()).expect("a token");
    let file = machine.dir.path().join("read-token");
    std::fs::write(&file, token).unwrap();
    assert!(said(&add(&nodes[0], "two", &["--token-file", file.to_str().unwrap()])).contains("scope publish"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for node in &nodes {
        let scrape = reqwest::Client::new().get(format!("{}/metrics", node.url())).bearer_auth(token);
        let text = runtime.block_on(async { scrape.send().await?.error_for_status()?.text().await }).unwrap();
        assert!(text.contains("\ntuflog_ready 1\n"), "{text}");
        assert_eq!(node.get("/metrics").unwrap().0, 401);
    }
    nodes.iter_mut().for_each(|node| assert_eq!(node.terminate().code(), Some(0), "{}", node.said()));
}
