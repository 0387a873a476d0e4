//! A real Kafka for tests: clusters of one or three JVMs on loopback, to be killed, stopped and started again.
//!
//! `tests/kafka/setup.sh` must have run (`make setup` does it); a machine without it fails the tests, nothing is
//! skipped. Nodes end with this process however that ends, and their data with them.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};

use tempfile::TempDir;
use tuflog::log::kafka::{KafkaLog, KafkaSettings};

/// The ports that one cluster takes: see cluster.sh.
const PORTS: u16 = 9;
/// The partitions of a repository made by [`Cluster::repo`].
pub const PARTITIONS: u16 = 8;

/// A cluster. Dropping it ends its nodes.
pub struct Cluster {
    nodes: usize,
    base: u16,
    dir: PathBuf,
    running: Mutex<Vec<Option<Child>>>,
    /// Waits for this process to end, then removes the data.
    _reaper: Child,
    _dir: TempDir,
}

/// The one-node cluster that tests share; it speaks SASL_SSL too. Nobody may disturb it.
pub fn one() -> &'static Cluster {
    static ONE: OnceLock<Cluster> = OnceLock::new();
    ONE.get_or_init(|| Cluster::create(1, &["--sasl"]))
}

/// The three-node cluster that tests share. Nobody may disturb it.
pub fn three() -> &'static Cluster {
    static THREE: OnceLock<Cluster> = OnceLock::new();
    THREE.get_or_init(|| Cluster::start(3))
}

impl Cluster {
    /// A cluster of one or three nodes of one's own.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::create(nodes, &[])
    }

    fn create(nodes: usize, options: &[&str]) -> Cluster {
        // Kafka syncs little, so memory serves as well as a disk.
        let dir = match Path::new("/dev/shm").is_dir() {
            true => tempfile::Builder::new().prefix("tuflog-kafka-").tempdir_in("/dev/shm").expect("scratch folder"),
            false => crate::help::scratch(),
        };
        let (data, base) = (dir.path().join("cluster"), free_ports());
        let (count, port) = (nodes.to_string(), base.to_string());
        script(&[&["create", &count, data.to_str().unwrap(), &port], options].concat());
        let reaper = reaper(dir.path());
        let running = Mutex::new((0..nodes).map(|_| None).collect());
        let cluster = Cluster { nodes, base, dir: data, running, _reaper: reaper, _dir: dir };
        (1..=nodes).for_each(|n| cluster.launch(n));
        cluster.wait();
        cluster
    }

    /// `HOST:PORT,…` of all nodes.
    pub fn bootstrap(&self) -> String {
        self.addresses(self.base)
    }

    /// The same for SASL_SSL.
    pub fn sasl_bootstrap(&self) -> String {
        self.addresses(self.base + 6)
    }

    fn addresses(&self, first: u16) -> String {
        let ports = (first..).take(self.nodes);
        ports.map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
    }

    /// The certificate of the authority that signed the nodes' certificates.
    pub fn authority(&self) -> String {
        self.dir.join("ca.pem").to_str().unwrap().to_owned()
    }

    /// Settings for a repository that nobody else uses. Its topics are not there yet.
    pub fn fresh(&self) -> KafkaSettings {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        KafkaSettings::new(self.bootstrap(), format!("r{}", COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Creates the topics of a fresh repository.
    pub async fn repo(&self) -> KafkaSettings {
        let settings = self.fresh();
        let (copies, insync) = if self.nodes == 1 { (1, 1) } else { (3, 2) };
        KafkaLog::create_topics(&settings, PARTITIONS, copies, insync).await.unwrap();
        settings
    }

    /// Kills node `n` (from 1 on) as a power cut would, less the disk's cache.
    pub fn kill(&self, n: usize) {
        if let Some(mut node) = self.running.lock().unwrap()[n - 1].take() {
            node.kill().unwrap();
            node.wait().unwrap();
        }
    }

    /// Stops node `n` where it stands: its connections stay open and silent.
    pub fn stop(&self, n: usize) {
        self.signal(n, "STOP");
    }

    /// Lets a stopped node go on.
    pub fn cont(&self, n: usize) {
        self.signal(n, "CONT");
    }

    /// Kills node `n` if it runs and starts it again. It may take some seconds until it answers: see [`Cluster::wait`].
    pub fn restart(&self, n: usize) {
        self.kill(n);
        self.launch(n);
    }

    /// Waits until every node answers and knows the others.
    pub fn wait(&self) {
        script(&["wait", self.dir.to_str().unwrap()]);
    }

    /// The node that leads a partition.
    pub fn leader(&self, topic: &str, partition: u32) -> usize {
        let text = kcat(self, &["-L", "-t", topic], "");
        let mark = format!("partition {partition}, leader ");
        let leader = text.split_once(&mark).and_then(|(_, rest)| rest.split(',').next()?.parse().ok());
        leader.unwrap_or_else(|| panic!("no leader of {topic}, partition {partition}: {text}"))
    }

    fn launch(&self, n: usize) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join(format!("node-{n}.log")));
        let log = log.unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(cluster_script()).args(["node", self.dir.to_str().unwrap()]);
        command.arg(n.to_string()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running.lock().unwrap()[n - 1] = Some(spawn(command));
    }

    fn signal(&self, n: usize, signal: &str) {
        let pid = self.running.lock().unwrap()[n - 1].as_ref().expect("a running node").id();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (1..=self.nodes).for_each(|n| self.kill(n));
    }
}

/// Spawns from a thread that lives as long as the process: the death signal follows the parent *thread*, and tests
/// come and go.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::spawn(move || queue.into_iter().for_each(|(mut c, answer)| answer.send(c.spawn()).unwrap()));
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    spawner.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap().expect("setpriv (util-linux) starts a node: run make setup")
}

/// A shell that removes `dir` once this process is gone.
fn reaper(dir: &Path) -> Child {
    let line = "trap '' INT TERM HUP; cat; sleep 1; rm -rf \"$0\"";
    let mut command = Command::new("sh");
    command.args(["-c", line]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    spawn(command)
}

fn cluster_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/cluster.sh")
}

fn script(args: &[&str]) {
    let out = Command::new(cluster_script()).args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "cluster.sh {}: {text}", args.join(" "));
}

/// Runs one of Kafka's own tools; answers what it printed.
pub fn tool(cluster: &Cluster, name: &str, args: &[&str]) -> String {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/tool.sh");
    let out = Command::new(tool).arg(name).args(["--bootstrap-server", &cluster.bootstrap()]).args(args).output();
    let out = out.unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {text}");
    text
}

/// kcat with its own librdkafka, not the one that cargo points it to; with -E, for else it ends when a connection does.
pub fn kcat_command() -> Command {
    let mut command = Command::new("kcat");
    command.env_remove("LD_LIBRARY_PATH").arg("-E");
    command
}

/// Pipes `input` through kcat.
pub fn kcat(cluster: &Cluster, args: &[&str], input: &str) -> String {
    let mut command = kcat_command();
    command.args(["-b", &cluster.bootstrap()]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("kcat: run make setup");
    let written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        written.is_ok() && out.status.success() && !said.contains("Delivery failed"),
        "kcat {args:?}: {written:?} {said}"
    );
    String::from_utf8(out.stdout).unwrap()
}

/// The first of some free ports in a row, below those that the system gives to clients.
fn free_ports() -> u16 {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    for _ in 0..1000 {
        let base = 10_000 + fastrand::u16(0..2_000) * 10;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if !taken.contains(&base) && (base..base + PORTS).all(free) {
            taken.push(base);
            return base;
        }
    }
    panic!("no free ports");
}
