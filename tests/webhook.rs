//! Webhooks, sent to a server that fails, stalls, refuses and writes down what it got.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::brokers::receiver::{Received, Receiver, Reply};
use crate::same_bytes::{levada, succeed};

/// HMAC-SHA256 by its definition, of a key that fits a block.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let pad = |byte: u8| -> Vec<u8> {
        (0..64).map(|index| key.get(index).copied().unwrap_or_default() ^ byte).collect()
    };
    let inner = Sha256::digest([&pad(0x36), message].concat());
    let outer = Sha256::digest([&pad(0x5c)[..], &inner[..]].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Site {
    folder: TempDir,
    job: PathBuf,
}

impl Site {
    /// A job that sends readings, of which there are so many.
    fn new(server: &Receiver, readings: usize, more: &str) -> Site {
        let folder = TempDir::new().unwrap();
        let job = folder.path().join("job.toml");
        let url = format!("http://{}/hook/path-that-is-a-secret", server.address);
        let text = format!(
            r#"
[job]
name = "sends"

[source.readings.log]
topic = "readings"
schema = {{ n = "int", at = "timestamp" }}
event_time = {{ column = "at", out_of_order = "0s" }}

[step.even.select]
from = "readings"
where = "n % 2 = 0"

[sink.hook.webhook]
from = "even"
url = "{url}"
secret = {{ env = "HOOK_SECRET" }}
backoff = "20ms"
max_backoff = "100ms"
{more}
"#
        );
        std::fs::write(&job, text).unwrap();
        let site = Site { folder, job };
        let lines: String = (0..readings).map(|n| format!("{{\"n\":{n},\"at\":{}}}\n", n * 10)).collect();
        let file = site.folder.path().join("readings.jsonl");
        std::fs::write(&file, lines).unwrap();
        let produce = ["topics", "produce", "readings", "--time", "at", "--file", file.to_str().unwrap()];
        succeed(levada(&produce, &site.data()));
        site
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self, options: &[&str]) -> Command {
        let mut command = levada(&["run"], &self.data());
        command.arg(&self.job).arg("--until-drained").args(options);
        command.env("HOOK_SECRET", "geheim").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn exported(&self, topic: &str) -> Vec<Value> {
        let text = succeed(levada(&["topics", "export", topic], &self.data()));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn said(output: &Output) -> String {
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(!said.contains("geheim") && !said.contains("path-that-is-a-secret"), "{said}");
    said
}

/// Each request is signed, and of one key there is one body. The keys in the order in which they first came, with how
/// often.
fn checked(received: &[Received]) -> (Vec<String>, BTreeMap<String, usize>) {
    let (mut order, mut times) = (Vec::new(), BTreeMap::new());
    let mut bodies: HashMap<&str, &str> = HashMap::new();
    for request in received {
        let signature = &request.headers["levada-signature"];
        let (time, code) = signature.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
        assert_eq!(code, hmac(b"geheim", format!("{time}.{}", request.body).as_bytes()));
        let key = request.headers["idempotency-key"].as_str();
        assert!(key.starts_with("\"sends/hook/") && key.ends_with('"'), "{key}");
        let known = *bodies.entry(key).or_insert(&request.body);
        assert_eq!(known, request.body, "{key}");
        if !times.contains_key(key) {
            order.push(key.to_owned());
        }
        *times.entry(key.to_owned()).or_insert(0) += 1;
    }
    (order, times)
}

/// The numbers of the rows, by the first time that each request came.
fn numbers(received: &[Received]) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    let mut numbers = Vec::new();
    for request in received {
        if seen.insert(&request.headers["idempotency-key"]) {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            let rows = body.as_array().cloned().unwrap_or_else(|| vec![body]);
            numbers.extend(rows.iter().map(|row| row["n"].as_u64().unwrap()));
        }
    }
    numbers
}

#[test]
fn what_fails_is_sent_again_and_what_is_refused_is_set_aside() {
    let server = Receiver::start(|before, request| match before {
        0 => Reply::Status(503, "", "not yet"),
        1 => Reply::Status(429, "retry-after: 0\r\n", ""),
        3 => Reply::Stall,
        5 => Reply::Status(408, "", ""),
        7 => Reply::Status(500, "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n", ""),
        _ if request.body == r#"{"n":20,"at":"1970-01-01T00:00:00.200Z"}"# => {
            Reply::Status(422, "", "no twenties")
        }
        _ => Reply::Status(204, "", ""),
    });
    let site = Site::new(&server, 60, "timeout = \"300ms\"\n");
    let output = site.run(&[]).output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for line in ["it answered 503", "not yet", "it answered 429", "a request was refused", "no twenties"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let received = server.received();
    let (order, times) = checked(&received);
    assert_eq!(numbers(&received), (0..60).step_by(2).collect::<Vec<u64>>());
    assert_eq!((order.len(), received.len()), (30, 30 + 5), "{times:?}");
    assert_eq!((times[&order[0]], times[&order[1]], times[&order[2]]), (3, 2, 2));
    let refused = site.exported("sends.hook.undelivered");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["status"], json!(422));
    assert_eq!(refused[0]["body"], json!(r#"{"n":20,"at":"1970-01-01T00:00:00.200Z"}"#));
    assert!(refused[0]["reason"].as_str().unwrap().contains("no twenties"));
    let delivered = site.exported("sends.hook.delivered");
    assert_eq!(delivered.len(), 30);
    assert_eq!((&delivered[0]["attempts"], &delivered[0]["status"]), (&json!(3), &json!(204)));
    // What was sent is not sent again unless that is asked for, and then under other keys.
    let again = site.run(&[]).output().unwrap();
    assert!(!again.status.success() && said(&again).contains("sends.hook.delivered"));
    assert!(site.run(&["--append"]).output().unwrap().status.success());
    let all = server.received();
    let (order, _) = checked(&all);
    assert_eq!(order.len(), 60);
    assert!(site.run(&["--fresh"]).output().unwrap().status.success());
    assert_eq!(checked(&server.received()).0.len(), 90);
}

#[test]
fn a_run_that_is_killed_sends_again_only_what_was_on_its_way() {
    const KILLS: usize = 20;
    let server = Receiver::start(|_, _| Reply::Status(200, "", "ok"));
    let site = Site::new(&server, 12_000, "batch = 3\n");
    let state = site.folder.path().join("state");
    let options = ["--state", state.to_str().unwrap()];
    let mut kills = 0;
    for round in 0..KILLS {
        let mut child = site.run(&options).spawn().unwrap();
        let before = server.received().len();
        server.until(before + 1 + round * 7, &mut child);
        kills += usize::from(child.kill().is_ok());
        child.wait().unwrap();
    }
    let output = site.run(&options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let received = server.received();
    let (_, times) = checked(&received);
    assert_eq!(numbers(&received), (0..12_000).step_by(2).collect::<Vec<u64>>());
    let repeated = received.len() - times.len();
    assert!(
        repeated <= kills && times.values().all(|times| *times <= 1 + kills),
        "{repeated} of {kills} kills"
    );
    println!("{} requests, {kills} kills, {repeated} sent twice", times.len());
    // Once more, when all is done.
    assert!(site.run(&options).output().unwrap().status.success());
    assert_eq!(server.received().len(), received.len());
}

#[test]
fn who_is_not_let_in_ends_the_job_and_loses_nothing() {
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let known = Arc::clone(&open);
    let server = Receiver::start(move |before, request| {
        let opened = known.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(request.headers["authorization"], "Bearer token");
        if before < 3 || opened { Reply::Status(200, "", "") } else { Reply::Status(401, "", "who are you?") }
    });
    let site = Site::new(&server, 20, "");
    let file = site.folder.path().join("token");
    std::fs::write(&file, "token\n").unwrap();
    let bearer = format!("sink.hook.webhook.bearer={{file=\"{}\"}}", file.display());
    let state = site.folder.path().join("state");
    let options = ["--state", state.to_str().unwrap(), "--set", bearer.as_str()];
    let output = site.run(&options).output().unwrap();
    let text = said(&output);
    assert!(!output.status.success() && text.contains("who are you?"), "{text}");
    assert!(text.contains("check its `bearer` and `secret`"), "{text}");
    open.store(true, std::sync::atomic::Ordering::Relaxed);
    let output = site.run(&options).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(numbers(&server.received()), (0..20).step_by(2).collect::<Vec<u64>>());
    // Without its secret it does not begin.
    let output = site.run(&["--fresh"]).env_remove("HOOK_SECRET").output().unwrap();
    let text = said(&output);
    assert!(
        !output.status.success() && text.contains("environment variable HOOK_SECRET: it is not set"),
        "{text}"
    );
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let server = Receiver::start(|_, _| Reply::Status(200, "", ""));
    let site = Site::new(&server, 1, "");
    for (setting, reason) in [
        ("url=\"ftp://a\"", "begin with https:// or http://"),
        ("message=\"slack\"", "the message has no `text`"),
        ("text=\"a\"", "is for `message = \"slack\"`"),
        ("batch=0", "0"),
        ("timeout=\"soon\"", "soon"),
        ("url_from={env=\"A\"}", "there is a `url` too"),
        ("format=\"csv\"", "a webhook sends JSON"),
        ("text=\"{\"", "is for `message"),
    ] {
        let mut command = levada(&["check"], &site.data());
        command.arg(&site.job).arg("--set").arg(format!("sink.hook.webhook.{setting}"));
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(reason), "{setting}: {text}");
    }
    let mut command = levada(&["check"], &site.data());
    command.arg(&site.job).args(["--set", "sink.hook.webhook.message=slack"]);
    command.args(["--set", "sink.hook.webhook.text={m} is there"]);
    let text = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(text.contains("there is no column `m`"), "{text}");
}

/// Answers every POST over TLS and prints its body; ends with its standard input.
const TLS_SERVER: &str = r#"
import http.server, os, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["content-length"])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("leaf.pem", "leaf.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"#;

#[test]
fn over_tls_the_other_side_has_to_show_who_it_is() {
    let plain = Receiver::start(|_, _| Reply::Status(200, "", ""));
    let site = Site::new(&plain, 10, "");
    let folder = site.folder.path();
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for line in [
        format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority"),
        format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=server").replace(" -days 2", ""),
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out leaf.pem -days 2 -extfile names".into(),
    ] {
        let made = Command::new("openssl").args(line.split(' ')).current_dir(folder).output();
        let made = made.expect("openssl is needed for this test: `make test` installs it");
        assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
    }
    let mut server = Command::new("python3");
    server.args(["-c", TLS_SERVER]).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = lines.next().unwrap().unwrap();
    let url = format!("sink.hook.webhook.url=https://127.0.0.1:{port}/");

    // Who is not known is not told anything.
    let mut stranger = site.run(&["--set", &url]).spawn().unwrap();
    let mut said = BufReader::new(stranger.stderr.take().unwrap()).lines();
    let complaint = said.find_map(|line| line.ok().filter(|line| line.contains("sent again after"))).unwrap();
    assert!(complaint.contains("certificate"), "{complaint}");
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    let ca = format!("sink.hook.webhook.ca={}", folder.join("ca.pem").display());
    let output = site.run(&["--set", &url, "--set", &ca]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(server.stdin.take());
    server.wait().unwrap();
    let bodies: Vec<Value> = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(bodies.iter().map(|body| body["n"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
}
