//! The gateway from outside: a real socket, a real log, a real browser.

mod answers;
mod browser;
pub mod client;
mod ingest;
pub mod intake;
mod page;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use levada::gateway::{Gateway, GatewayConfig, JobInfo};
use levada_connectors::log::{Log, RecordIn, Topic, TopicConfig, TopicWriter, WriterOptions};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A gateway over a folder of its own, and a way to stop it.
struct Served {
    address: SocketAddr,
    log: Log,
    _folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<()>,
}

impl Served {
    async fn start(change: impl FnOnce(&mut GatewayConfig)) -> Served {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = GatewayConfig::new(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0)));
        config.jobs = vec![JobInfo {
            name: "flights".into(),
            svg: "<svg xmlns=\"http://www.w3.org/2000/svg\"/>".into(),
            topics: vec!["decisions".into()],
            page: None,
        }];
        change(&mut config);
        let gateway = Gateway::bind(config).await.expect("a gateway");
        let (address, log) = (gateway.address(), Log::open(folder.path()).expect("a log"));
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(gateway.run(async { _ = stopped.await }));
        Served { address, log, _folder: folder, stop: Some(stop), done }
    }

    /// A topic with so many partitions, and its writers.
    fn topic(&self, name: &str, partitions: u32) -> (Topic, TopicWriter) {
        let config = TopicConfig { partitions, ..TopicConfig::default() };
        let topic = self.log.create_topic(name, config).expect("a topic");
        let writers = topic.writers(WriterOptions::default()).expect("writers");
        (topic, writers)
    }

    /// Stops as on a signal, and waits for the end.
    async fn stop(mut self) {
        self.stop.take().expect("not stopped yet").send(()).expect("it listens");
        tokio::time::timeout(Duration::from_secs(30), self.done).await.expect("in time").expect("no panic");
    }
}

/// Appends one JSON record.
fn append(writers: &TopicWriter, partition: u32, value: &str) {
    let record = RecordIn { timestamp_ms: 1_357_035_420_000, value: value.as_bytes(), ..RecordIn::default() };
    writers.partition(partition).expect("a partition").append(&[record]).expect("an append");
}
