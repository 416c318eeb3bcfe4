//! What every source and every sink must do, asked of each at its port, as a job file configures it, against real
//! servers. What only one of them can do is asked in its own tests.

mod sinks;
mod sources;

use std::path::Path;

use levada::job::{self, Environment, Loaded};
use levada_types::Existing;

/// The columns of a record in these tests.
const COLUMNS: &str =
    "schema = { n = \"int\", text = \"string\", at = \"timestamp\" }\nevent_time = { column = \"at\" }";

/// Kinesis asks for keys, and the server of these tests takes any: those of two variables that cargo sets.
#[cfg(feature = "kinesis")]
const ANY_KEYS: &str = "credentials = { env = { access_key_id = \"CARGO_PKG_NAME\", secret_access_key = \"CARGO_PKG_VERSION\" } }";

/// Record `n`, of another length than those beside it.
fn record(n: usize) -> String {
    let at = 1_700_000_000_000 + n;
    format!(r#"{{"n":{n},"text":"{}","at":{at}}}"#, "x".repeat(n * 31 % 97))
}

/// Plans a job of one source and one sink whose files are in `folder`.
fn load(source: &str, sink: &str, folder: &Path, existing: Existing) -> Loaded {
    let text = format!("[job]\nname = \"conformance\"\n\n{source}\n{COLUMNS}\n\n{sink}\nfrom = \"in\"\n");
    let models = |_: &str| unreachable!("the job has no model");
    let environment = Environment {
        data_dir: folder.join("data"),
        state: Some(folder.join("state")),
        existing,
        models: &models,
        look: None,
    };
    job::load_text("job.toml", &text, &[], &environment).unwrap_or_else(|report| panic!("{report}"))
}
