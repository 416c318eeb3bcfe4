//! Redis Streams as sources and sinks, against a real server.

mod group;
mod jobs;
mod streams;

use redis::streams::StreamRangeReply;
use redis::{Commands, Connection};

/// Adds records to a stream, with ids that the server makes.
fn add<'a>(connection: &mut Connection, stream: &str, records: impl Iterator<Item = &'a [u8]>) {
    let mut pipe = redis::pipe();
    for record in records {
        pipe.cmd("XADD").arg(stream).arg("*").arg("value").arg(record).ignore();
    }
    pipe.exec(connection).unwrap();
}

/// What a job's record is: its key, its time, the epoch and the place in it from 0, its value.
type Row = (Option<String>, i64, u64, u64, String);

/// What a job has written to a stream.
fn written(connection: &mut Connection, stream: &str) -> Vec<Row> {
    let range: StreamRangeReply = connection.xrange_all(stream).unwrap();
    let row = |entry: redis::streams::StreamId| {
        let (epoch, place) = entry.id.split_once('-').unwrap();
        let value = entry.get("value").unwrap();
        (
            entry.get("key"),
            entry.get("time").unwrap(),
            epoch.parse().unwrap(),
            place.parse::<u64>().unwrap() - 1,
            value,
        )
    };
    range.ids.into_iter().map(row).collect()
}

fn length(connection: &mut Connection, stream: &str) -> u64 {
    connection.xlen(stream).unwrap()
}
