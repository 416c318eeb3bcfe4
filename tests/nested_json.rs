//! What steps make that is JSON is nested in the records of a topic, and is text in an expression; a
//! second job reads it back.

use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

const FIRST: &str = r#"
[job]
name = "first"

[source.requests.file]
path = "FOLDER/requests.jsonl"
schema = { host = "string", user = "string", note = "json?", at = "timestamp" }
event_time = { column = "at" }

[step.incidents.correlate]
from = "requests"
link = [{ name = "same host", on = ["host"], within = "1m" }]
close_after = "1m"
count = ["host"]
members = "user"

[step.opened.select]
from = "incidents"
where = "kind = 'opened'"
columns = { host = "json_get(host_top, '0.0')", hosts = "json_length(host_top)", tops = "host_top", text = "host_top || ''" }

[step.pages.decide]
from = "opened"
key = ["host"]
[[step.pages.decide.policies]]
name = "page"
when = "hosts = 1"
action = "page"
parameters = { host = "host", tops = "tops" }

[sink.notes.log]
from = "requests"
topic = "notes"

[sink.incidents.log]
from = "incidents"
topic = "incidents"

[sink.pages.log]
from = "pages"
topic = "pages"

[sink.opened.file]
from = "opened"
path = "FOLDER/opened.csv"
format = "csv"
"#;

const SECOND: &str = r#"
[job]
name = "second"

[source.pages.log]
topic = "pages"
schema = { host = "string", parameters = "json", inputs = "json", at = "timestamp" }
event_time = { column = "at" }

[step.read.select]
from = "pages"
columns = { host = "json_get(inputs, 'tops.0.0')", many = "cast(json_get(parameters, 'tops.0.1') as int)", parameters = "parameters" }

[sink.read.log]
from = "read"
topic = "read"
"#;

#[test]
fn what_is_json_is_nested_and_reads_back() {
    let folder = TempDir::new().unwrap();
    let place = folder.path().to_str().unwrap();
    let record = |second: u32, host: &str, note: &str| {
        format!(
            r#"{{"host":"{host}","user":"u{second}","note":{note},"at":"2024-01-01T00:00:{second:02}Z"}}"#
        )
    };
    let records = [
        record(1, "web\\\"1", "{ \"a\": [1.50] }"),
        record(2, "web\\\"1", "null"),
        record(3, "web\\\"1", "7"),
    ];
    std::fs::write(folder.path().join("requests.jsonl"), records.join("\n") + "\n").unwrap();
    let levada = |arguments: &[&str]| -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_levada"));
        let output = command.args(arguments).arg("--data").arg(folder.path().join("data")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, job) in [("first.toml", FIRST), ("second.toml", SECOND)] {
        let path = folder.path().join(name);
        std::fs::write(&path, job.replace("FOLDER", place)).unwrap();
        levada(&["run", path.to_str().unwrap(), "--until-drained"]);
    }
    let export = |topic: &str| levada(&["topics", "export", topic]);
    let rows = |topic: &str| -> Vec<Value> {
        export(topic).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    assert!(export("notes").starts_with(r#"{"host":"web\"1","user":"u1","note":{ "a": [1.50] },"at":"#));
    let incident = &rows("incidents")[0];
    assert_eq!(incident["reasons"], json!({ "same host": 1 }));
    assert_eq!(incident["host_top"], json!([["web\"1", 2]]));
    assert_eq!(incident["members"], json!(["u1", "u2"]));

    let page = &rows("pages")[0];
    let tops = json!([["web\"1", 2]]);
    assert_eq!(page["parameters"], json!({ "host": "web\"1", "tops": tops }));
    let inputs = json!({ "host": "web\"1", "hosts": 1, "tops": tops, "text": tops.to_string() });
    assert_eq!(page["inputs"], inputs);
    assert_eq!(rows("read"), [json!({ "host": "web\"1", "many": 2, "parameters": page["parameters"] })]);

    let csv = std::fs::read_to_string(folder.path().join("opened.csv")).unwrap();
    let text = r#""[[""web\""1"",2]]""#;
    assert_eq!(csv, format!("host,hosts,tops,text\n\"web\"\"1\",1,{text},{text}\n"));
}
