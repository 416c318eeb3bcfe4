//! How fast JSON decodes: events per CPU-second on one thread, here and in arrow-json.
//!
//! `cargo build --release --workspace --examples`, then `target/release/examples/decode_rate`: 136-byte records of 8 fields, in chunks of 8192,
//! all columns and then some. Both give the same rows, which is checked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use levada_connectors::codec::Encoder;
use levada_connectors::codec::json::{JsonEncoder, JsonFormat};
use levada_types::{Batch, DecoderFactory, RawRecords};

const CHUNK: usize = 8192;
const CHUNKS: usize = 24;
const ROUNDS: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chunks: Vec<RawRecords> = (0..CHUNKS).map(records).collect();
    let bytes: usize = chunks.iter().map(|chunk| chunk.data.len() - chunk.len()).sum();
    println!("{} records of {} bytes on average", CHUNK * CHUNKS, bytes / (CHUNK * CHUNKS));
    println!("{}", String::from_utf8_lossy(chunks[0].value(1)));
    let all = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("user", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("amount", DataType::Float64, true),
        Field::new("latency_ms", DataType::Int64, false),
        Field::new("region", DataType::Utf8, false),
        Field::new("ok", DataType::Boolean, false),
        Field::new("at", Batch::timestamp_type(), false),
    ]);
    for wanted in [&[0, 1, 2, 3, 4, 5, 6, 7][..], &[1, 2, 3, 7], &[7]] {
        let schema: SchemaRef = Arc::new(all.project(wanted)?);
        let ours = {
            let mut decoder = JsonFormat.decoder(schema.clone())?;
            rate(&chunks, |chunk| Ok(decoder.decode(chunk).rows))?
        };
        let theirs = {
            let mut decoder = ReaderBuilder::new(schema.clone()).with_batch_size(CHUNK).build_decoder()?;
            rate(&chunks, |chunk| {
                let mut at = 0;
                while at < chunk.data.len() {
                    at += decoder.decode(&chunk.data[at..])?;
                }
                Ok(decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(schema.clone())))
            })?
        };
        assert!(ours.1 == theirs.1, "the rows differ");
        println!("decode {} of 8 columns: {:.2} M/s, arrow-json {:.2} M/s", wanted.len(), ours.0, theirs.0);
        let mut encoder = JsonEncoder::new(&schema)?;
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        let start = Used::now();
        for _ in 0..CHUNKS * ROUNDS {
            out.clear();
            ends.clear();
            encoder.encode(&ours.1, b"\n", &mut out, &mut ends);
        }
        let rate = (CHUNK * CHUNKS * ROUNDS) as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!("encode {} columns: {rate:.2} M/s", wanted.len());
    }
    Ok(())
}

/// The time that this thread has run, where the kernel says it; otherwise the clock's.
struct Used(Option<Duration>, Instant);

impl Used {
    fn now() -> Used {
        Used(Used::cpu(), Instant::now())
    }

    fn cpu() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
    }

    fn elapsed(&self) -> Duration {
        match (self.0, Used::cpu()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.1.elapsed(),
        }
    }
}

/// The best of some rounds, and the rows of the last chunk.
fn rate(
    chunks: &[RawRecords],
    mut decode: impl FnMut(&RawRecords) -> Result<RecordBatch, Box<dyn std::error::Error>>,
) -> Result<(f64, RecordBatch), Box<dyn std::error::Error>> {
    let mut best = 0f64;
    let mut last = decode(&chunks[0])?;
    for _ in 0..ROUNDS {
        let start = Used::now();
        for chunk in chunks {
            last = decode(chunk)?;
        }
        best = best.max((CHUNK * chunks.len()) as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    Ok((best, last))
}

fn records(chunk: usize) -> RawRecords {
    let (mut data, mut spans) = (Vec::new(), Vec::new());
    for n in chunk * CHUNK..(chunk + 1) * CHUNK {
        let mix = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let start = data.len() as u32;
        data.extend_from_slice(
            format!(
                r#"{{"id":{n},"user":"u{:05}","kind":"{}","amount":{}.{:02},"latency_ms":{},"region":"{}","ok":{},"at":"2024-01-01T00:{:02}:{:02}.{:03}Z"}}"#,
                mix % 10_000,
                ["view", "click", "buy", "error"][mix as usize % 4],
                mix % 500,
                mix % 100,
                mix % 900,
                ["eu-west", "eu-north", "us-east"][mix as usize % 3],
                !mix.is_multiple_of(10),
                n / 600_000 % 60,
                n / 10_000 % 60,
                n / 10 % 1000,
            )
            .as_bytes(),
        );
        spans.push((start, data.len() as u32));
        data.push(b'\n');
    }
    RawRecords {
        data: data.into(),
        offsets: (0..spans.len() as u64).collect(),
        spans,
        ..RawRecords::default()
    }
}
