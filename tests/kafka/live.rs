//! Reading a topic that never stands still.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use levada_connectors::kafka::{KafkaSource, KafkaSourceConfig};
use levada_types::{PartitionId, Read, SourceFactory as _, StartAt};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use serde_json::json;

use super::site::{PATIENCE, create, send};
use crate::brokers::kafka::shared;

/// Records that are asked for at once: more than come in the whole test.
const MANY: usize = 1_000_000;

/// Where there is always something further, a consumer is never told that it has come to the end.
#[test]
fn what_comes_is_handed_over_though_there_is_always_more() {
    create(shared(), "busy", 1);
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", shared()).set("linger.ms", "0").create().unwrap();
    let history = 10_000;
    for _ in 0..history {
        send(&producer, "busy", 0, b"{}");
    }
    producer.flush(PATIENCE).unwrap();
    let config: KafkaSourceConfig =
        serde_json::from_value(json!({ "brokers": shared(), "topic": "busy" })).unwrap();
    let source = KafkaSource::new(&config).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut reader = source.open(PartitionId(0), StartAt::Configured).unwrap();
        scope.spawn(|| {
            while !over.load(Relaxed) {
                send(&producer, "busy", 0, b"{}");
                producer.poll(Duration::ZERO);
                std::thread::park_timeout(Duration::from_micros(200));
            }
        });
        let mut counts = Vec::new();
        let began = Instant::now();
        while counts.iter().sum::<usize>() < history + 2000 {
            assert!(began.elapsed() < PATIENCE, "{counts:?}");
            if let Read::Records(records) = reader.read(MANY, Duration::from_secs(1)).unwrap() {
                counts.push(records.len());
            }
        }
        over.store(true, Relaxed);
        assert!(counts[0] >= history, "a history is cut as is asked, not as it comes: {counts:?}");
        assert!(counts.len() > 3, "what comes behind it is not gathered: {counts:?}");
    });
    producer.flush(PATIENCE).unwrap();
}
