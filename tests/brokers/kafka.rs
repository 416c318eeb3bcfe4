//! Real brokers of Apache Kafka, one or three, on free ports of this machine.
//!
//! The jars come by `scripts/fetch-kafka.sh`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tempfile::TempDir;

use super::spawn;

/// How long a broker may take to be there, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster of brokers.
pub struct Cluster {
    folder: TempDir,
    nodes: Vec<Node>,
}

struct Node {
    port: u16,
    guarded: u16,
    settings: PathBuf,
    process: Option<Child>,
}

static SHARED: OnceLock<Cluster> = OnceLock::new();

/// The one broker that tests share which do not stop it.
pub fn shared() -> &'static str {
    static BROKERS: OnceLock<String> = OnceLock::new();
    BROKERS.get_or_init(|| SHARED.get_or_init(|| Cluster::start(1)).brokers())
}

/// Where the same one wants to know who asks: `levada`, whose password is `right`.
pub fn guarded() -> String {
    format!("127.0.0.1:{}", SHARED.get_or_init(|| Cluster::start(1)).nodes[0].guarded)
}

impl Cluster {
    /// One broker, or several with as many copies of each topic, two of which must be in step.
    pub fn start(count: usize) -> Cluster {
        let folder = TempDir::new().unwrap();
        let ports: Vec<[u16; 3]> = {
            let free = || TcpListener::bind("127.0.0.1:0").unwrap();
            let taken: Vec<_> = (0..count).map(|_| [free(), free(), free()]).collect();
            let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
            taken.iter().map(|three| three.each_ref().map(port)).collect()
        };
        let voters: Vec<String> = (1..)
            .zip(&ports)
            .map(|(id, [_, controller, _])| format!("{id}@127.0.0.1:{controller}"))
            .collect();
        let in_step = if count > 1 { "2" } else { "1" };
        let nodes = (1..)
            .zip(&ports)
            .map(|(id, [client, controller, guarded])| {
                let all: BTreeMap<String, String> = [
                    ("process.roles", "broker,controller".to_string()),
                    ("node.id", format!("{id}")),
                    ("controller.quorum.voters", voters.join(",")),
                    ("listeners", format!("PLAINTEXT://127.0.0.1:{client},SASL_PLAINTEXT://127.0.0.1:{guarded},CONTROLLER://127.0.0.1:{controller}")),
                    ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{client},SASL_PLAINTEXT://127.0.0.1:{guarded}")),
                    ("sasl.enabled.mechanisms", "PLAIN".into()),
                    ("listener.name.sasl_plaintext.plain.sasl.jaas.config", "org.apache.kafka.common.security.plain.PlainLoginModule required user_levada=\"right\";".into()),
                    ("controller.listener.names", "CONTROLLER".into()),
                    ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT".into()),
                    ("log.dirs", folder.path().join(format!("node-{id}")).display().to_string()),
                    ("offsets.topic.replication.factor", count.to_string()),
                    ("offsets.topic.num.partitions", "3".into()),
                    ("default.replication.factor", count.to_string()),
                    ("min.insync.replicas", in_step.into()),
                    ("transaction.state.log.replication.factor", count.to_string()),
                    ("transaction.state.log.num.partitions", "3".into()),
                    ("transaction.state.log.min.isr", in_step.into()),
                    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500".into()),
                    ("share.coordinator.state.topic.replication.factor", count.to_string()),
                    ("auto.create.topics.enable", "false".into()),
                    ("group.initial.rebalance.delay.ms", "0".into()),
                    ("log.message.timestamp.type", "CreateTime".into()),
                    ("num.network.threads", "2".into()),
                    ("num.io.threads", "4".into()),
                ]
                .map(|(name, value)| (name.to_string(), value))
                .into();
                let lines: String = all.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
                let file = folder.path().join(format!("node-{id}.properties"));
                fs::write(&file, lines).unwrap();
                java(&["kafka.tools.StorageTool", "format", "-t", "bGV2YWRhLWxldmFkYS1sZQ", "-c"], &file)
                    .stdout(Stdio::null())
                    .status()
                    .map(|status| assert!(status.success(), "the storage could not be formatted"))
                    .unwrap();
                Node { port: *client, guarded: *guarded, settings: file, process: None }
            })
            .collect();
        let mut cluster = Cluster { folder, nodes };
        for node in 0..count {
            cluster.revive(node);
        }
        cluster.wait();
        cluster
    }

    /// `host:port,…` of all.
    pub fn brokers(&self) -> String {
        let all: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        all.join(",")
    }

    /// Starts a broker that does not run.
    pub fn revive(&mut self, node: usize) {
        let log = self.folder.path().join(format!("node-{}.log", node + 1));
        let node = &mut self.nodes[node];
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = java(&["kafka.Kafka"], &node.settings);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        node.process = Some(spawn(command));
    }

    /// Kills a broker, as a power cut would.
    pub fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Waits until all are there and can be asked.
    pub fn wait(&self) {
        let until = Instant::now() + PATIENCE;
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.brokers()).create().unwrap();
        for node in self.nodes.iter().filter(|node| node.process.is_some()) {
            while TcpStream::connect(("127.0.0.1", node.port)).is_err() {
                assert!(Instant::now() < until, "a broker did not start: {}", self.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        loop {
            let metadata = consumer.fetch_metadata(None, Duration::from_secs(5));
            if metadata.is_ok_and(|metadata| metadata.brokers().len() >= running) {
                return;
            }
            assert!(Instant::now() < until, "the brokers do not answer: {}", self.logs());
        }
    }

    fn logs(&self) -> String {
        let log = |id: usize| fs::read_to_string(self.folder.path().join(format!("node-{id}.log")));
        (1..=self.nodes.len()).map(|id| log(id).unwrap_or_default()).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
    }
}

fn jars() -> PathBuf {
    let cache = std::env::var_os("LEVADA_CACHE")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/levada"));
    let jars = cache.join("kafka/lib");
    assert!(
        jars.is_dir(),
        "{} is not there: scripts/fetch-kafka.sh {}/kafka",
        jars.display(),
        cache.display()
    );
    jars
}

fn java(arguments: &[&str], settings: &Path) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(jars().join("*")).args(arguments).arg(settings);
    command
}
