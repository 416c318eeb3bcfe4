//! Records of other formats from Kafka: Avro with ids of a registry, and CloudEvents whose attributes are headers.

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::site::{PATIENCE, create, delete};
use crate::brokers::kafka::shared;
use crate::formats::registry::Server;
use crate::formats::{Record, Site, formats, job, records};
use crate::same_bytes::{same, succeed};

fn produce(topic: &str, times: usize, records: &[Record]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", shared()).create().unwrap();
    for _ in 0..times {
        for (headers, value) in records {
            let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
            let record = BaseRecord::<[u8], [u8]>::to(topic).payload(value).headers(headers);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn records_of_other_formats_are_those_of_the_embedded_log() {
    let server = Server::start();
    server.have_schemas();
    let all = formats(&server.url);
    let (_, format, file, _) = &all[0];
    let expected = Site::new(format, &records(file), &[]);
    succeed(expected.run(&[]));
    let mut expected = expected.written();
    expected.remove("formats.dead-letters");
    for (name, format, file, bad) in all.iter().filter(|(name, ..)| ["registry", "binary"].contains(name)) {
        let topic = format!("formats.{name}");
        create(shared(), &topic, 1);
        produce(&topic, Site::TIMES, &records(file));
        produce(&topic, 2, bad);
        let source = format!("kafka]\nbrokers = {:?}\ntopic = {topic:?}", shared());
        let site = Site::of(&job(format, &source));
        succeed(site.run(&["--workers", "2"]));
        let mut written = site.written();
        let letters = written.remove("formats.dead-letters").unwrap();
        assert_eq!(letters.lines().count(), 2 * bad.len(), "{letters}");
        same(&expected, &written, name);
        delete(shared(), &topic);
    }
}
