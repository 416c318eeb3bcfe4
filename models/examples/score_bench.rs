//! How fast the reference model scores on one core. Prints one JSON object.
//!
//! From the root of the repository:
//!
//! ```text
//! cargo run --release -p levada-models --example score_bench -- [REQUESTS] [SEQUENCES PER REQUEST]
//! ```
//! Latencies are of whole requests divided by their sequences; a request is padded to a multiple of
//! the model's batch, so a request of 1 costs what a request of 8 costs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

use std::time::Instant;

use hdrhistogram::Histogram;
use levada_models::Model;
use levada_types::{Scorer, ScorerFactory};

const WARM_UP: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests: usize = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let manifest = "models/flights/disruption.json";
    let model = Model::load(manifest)?;
    let per_request: usize = arguments.next().map_or(Ok(model.manifest().batch), |text| text.parse())?;

    let mut session = model.session()?;
    let request = vec![full_sequence(&model); per_request];
    let mut latency_us = Histogram::<u64>::new(3)?;
    for _ in 0..WARM_UP {
        session.score(&request)?;
    }
    let began = Instant::now();
    for _ in 0..requests {
        let asked = Instant::now();
        session.score(&request)?;
        latency_us.record(u64::try_from(asked.elapsed().as_micros())?)?;
    }
    let took = began.elapsed().as_secs_f64();

    #[expect(clippy::cast_precision_loss)]
    let (sequences, each) = ((requests * per_request) as f64, per_request as f64);
    #[expect(clippy::cast_precision_loss)]
    let request_us = |quantile| latency_us.value_at_quantile(quantile) as f64;
    let report = serde_json::json!({
        "model": model.version(),
        "window": model.window(),
        "requests": requests,
        "sequences_per_request": per_request,
        "request_p50_us": request_us(0.50),
        "request_p99_us": request_us(0.99),
        "sequence_p50_us": request_us(0.50) / each,
        "sequence_p99_us": request_us(0.99) / each,
        "sequences_per_s": (sequences / took).round(),
    });
    println!("{report:#}");
    Ok(())
}

/// A sequence without padding, ids spread over each field.
fn full_sequence(model: &Model) -> Vec<i64> {
    let sizes = model.tokenizer().sizes();
    (0i64..)
        .take(model.window())
        .flat_map(|event| sizes.iter().map(move |size| 1 + event % (size - 1)))
        .collect()
}
