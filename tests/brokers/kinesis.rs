//! A server that answers as Amazon Kinesis does (kinesis-local, from npm), and what may go wrong on the way to it.
//!
//! ```text
//!  levada ──TCP, 127.0.0.1──► Kinesis (here: faults) ──socket file──► kinesis.js ──► kinesis-local
//!          (subscriptions over HTTP/2: see `fan_out`)
//!                                                                    └ a network namespace of its own ┘
//! ```
//!
//! The server binds all interfaces, so it runs in a network namespace, where there are none but loopback. One serves all
//! tests; each test has a way to it of its own. It comes by `scripts/fetch-kinesis.sh`.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fan_out::{self, OnEvent};
use super::spawn;

/// How long the server may take to be there, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    folder: TempDir,
    child: Mutex<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();

impl Server {
    fn start() -> Server {
        let cache = std::env::var_os("LEVADA_CACHE").map(PathBuf::from).unwrap_or_else(|| {
            Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/levada")
        });
        let package = cache.join("kinesis/package");
        assert!(
            package.is_dir(),
            "{} is not there: scripts/fetch-kinesis.sh {}/kinesis",
            package.display(),
            cache.display()
        );
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("kinesis.js");
        std::fs::write(&script, include_str!("kinesis.js")).unwrap();
        // Who is not root makes a namespace of users first, if that is allowed.
        let alone = if Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|s| s.success()) {
            "-n"
        } else {
            "-Urn"
        };
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args([alone, "sh", "-c", "ip link set lo up && exec node \"$@\"", "sh"]);
        command.arg(script).arg(folder.path().join("socket")).arg(package);
        command.env("KINESIS_MOCK_PLAIN_PORT", "4568").env("SHARD_LIMIT", "10000").env("LOG_LEVEL", "ERROR");
        for duration in
            ["CREATE_STREAM", "DELETE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS", "REGISTER_STREAM_CONSUMER"]
        {
            command.env(format!("{duration}_DURATION"), "50ms");
        }
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        let server = Server { child: Mutex::new(spawn(command)), folder };
        let until = Instant::now() + PATIENCE;
        while server.connect().and_then(|stream| ask(&stream, "ListStreams", &json!({}))).is_none() {
            let ended = server.child.lock().unwrap().try_wait().unwrap();
            let log = std::fs::read_to_string(server.folder.path().join("log")).unwrap();
            assert!(
                ended.is_none() && Instant::now() < until,
                "kinesis-local did not start ({ended:?}): {log}\nIt needs `node`, `ip`, and a network namespace of its own \
                 (`unshare -n` as root, or `unshare -Urn` where users may make namespaces)."
            );
            std::thread::yield_now();
        }
        server
    }

    pub fn shared() -> &'static Server {
        SERVER.get_or_init(Server::start)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self) -> Option<UnixStream> {
        UnixStream::connect(self.socket()).ok()
    }

    /// A request as the server takes it.
    pub fn request(action: &str, arguments: &Value) -> Vec<u8> {
        let lines: String = head(action).iter().map(|line| format!("{line}\r\n")).collect();
        let body = arguments.to_string();
        format!("{lines}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }
}

/// What is done to a request.
pub enum Fault {
    None,
    /// It is answered with this status and kind of error, and does not get there.
    Refuse(u16, &'static str),
    /// It gets there, and the answer is lost with the connection.
    Lose,
    /// It gets there as another one, and the answer is changed too.
    Change(Value, Box<dyn FnOnce(Value) -> Value>),
}

type Rule = dyn Fn(&str, &Value) -> Fault + Send + Sync;
type EventRule = dyn Fn(u64) -> OnEvent + Send + Sync;

/// How requests, and the events of subscriptions, are treated.
pub struct Rules {
    requests: Mutex<Arc<Rule>>,
    events: Mutex<Arc<EventRule>>,
    /// How many events there were.
    count: AtomicU64,
}

impl Rules {
    pub fn of(&self, action: &str, arguments: &Value) -> Fault {
        let rule = Arc::clone(&self.requests.lock().unwrap());
        rule(action, arguments)
    }

    /// What is done to the next event.
    pub fn on_event(&self) -> OnEvent {
        let rule = Arc::clone(&self.events.lock().unwrap());
        rule(self.count.fetch_add(1, SeqCst))
    }
}

/// A way to the server.
pub struct Kinesis {
    address: SocketAddr,
    rules: Arc<Rules>,
}

impl Kinesis {
    pub fn start() -> Kinesis {
        Server::shared();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Arc::new(Rules {
            requests: Mutex::new(Arc::new(|_, _| Fault::None)),
            events: Mutex::new(Arc::new(|_| OnEvent::Pass)),
            count: AtomicU64::new(0),
        });
        let kinesis = Kinesis { address, rules: Arc::clone(&rules) };
        // It ends with the tests.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rules = Arc::clone(&rules);
                std::thread::spawn(move || {
                    if stream.peek(&mut [0]).is_ok_and(|_| is_http2(&stream)) {
                        return fan_out::serve(stream, rules);
                    }
                    let Some(inside) = Server::shared().connect() else { return };
                    let mut outside = BufReader::new(&stream);
                    while let Some((head, body)) = message(&mut outside) {
                        if forward(&stream, &inside, &head, body, &rules).is_none() {
                            return;
                        }
                    }
                });
            }
        });
        kinesis
    }

    /// What a job says of it.
    pub fn settings(&self, stream: &str) -> String {
        format!("stream = \"{stream}\"\nregion = \"us-east-1\"\nendpoint = \"http://{}\"\n", self.address)
    }

    /// From now on requests (action and arguments) are treated like this.
    pub fn treat(&self, rule: impl Fn(&str, &Value) -> Fault + Send + Sync + 'static) {
        *self.rules.requests.lock().unwrap() = Arc::new(rule);
    }

    /// From now on events of subscriptions, which are counted, are treated like this.
    pub fn treat_events(&self, rule: impl Fn(u64) -> OnEvent + Send + Sync + 'static) {
        *self.rules.events.lock().unwrap() = Arc::new(rule);
    }

    /// Asks the server itself.
    pub fn ask(&self, action: &str, arguments: Value) -> Value {
        Kinesis::asked(action, &arguments)
    }

    /// The same without a way of one's own.
    pub fn asked(action: &str, arguments: &Value) -> Value {
        let stream = Server::shared().connect().unwrap();
        ask(&stream, action, arguments).unwrap_or_else(|| panic!("{action} {arguments} was refused"))
    }

    /// Makes a stream.
    pub fn create(&self, stream: &str, shards: u32) {
        self.ask("CreateStream", json!({ "StreamName": stream, "ShardCount": shards }));
        self.until_active(stream);
    }

    /// Deletes a stream, and waits until it is gone.
    pub fn delete(&self, stream: &str) {
        self.ask("DeleteStream", json!({ "StreamName": stream }));
        let until = Instant::now() + PATIENCE;
        let is_there = || {
            let listed = self.ask("ListStreams", json!({ "Limit": 1000 }));
            listed["StreamNames"].as_array().unwrap().contains(&json!(stream))
        };
        while is_there() {
            assert!(Instant::now() < until, "stream {stream} does not go");
        }
    }

    fn until_active(&self, stream: &str) {
        let until = Instant::now() + PATIENCE;
        let status = || {
            let summary = self.ask("DescribeStreamSummary", json!({ "StreamName": stream }));
            summary["StreamDescriptionSummary"]["StreamStatus"].as_str().unwrap().to_string()
        };
        while status() != "ACTIVE" {
            assert!(Instant::now() < until, "stream {stream} does not become active");
        }
    }

    /// The open shards, by their hash keys: id and first and last key.
    pub fn open(&self, stream: &str) -> Vec<(String, u128, u128)> {
        let listed = self.ask("ListShards", json!({ "StreamName": stream }));
        let shards = listed["Shards"].as_array().unwrap().iter();
        let open = shards.filter(|shard| shard["SequenceNumberRange"]["EndingSequenceNumber"].is_null());
        let key = |shard: &Value, name: &str| shard["HashKeyRange"][name].as_str().unwrap().parse().unwrap();
        let mut open: Vec<(String, u128, u128)> = open
            .map(|shard| {
                let id = shard["ShardId"].as_str().unwrap().to_string();
                (id, key(shard, "StartingHashKey"), key(shard, "EndingHashKey"))
            })
            .collect();
        open.sort_by_key(|(_, first, _)| *first);
        open
    }

    /// Splits the open shard with this number in the middle.
    pub fn split(&self, stream: &str, number: usize) {
        let (id, first, last) = &self.open(stream)[number];
        let middle = (first + (last - first) / 2).to_string();
        let arguments = json!({ "StreamName": stream, "ShardToSplit": id, "NewStartingHashKey": middle });
        self.ask("SplitShard", arguments);
        self.until_active(stream);
    }

    /// Merges the open shard with this number and the next one.
    pub fn merge(&self, stream: &str, number: usize) {
        let open = self.open(stream);
        let (one, next) = (&open[number].0, &open[number + 1].0);
        let arguments = json!({ "StreamName": stream, "ShardToMerge": one, "AdjacentShardToMerge": next });
        self.ask("MergeShards", arguments);
        self.until_active(stream);
    }

    /// Puts records, key and data, one after the other.
    pub fn put<'a>(&self, stream: &str, records: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let records: Vec<Value> =
            records.map(|(key, data)| json!({ "PartitionKey": key, "Data": base64(data) })).collect();
        for records in records.chunks(500) {
            let put = self.ask("PutRecords", json!({ "StreamName": stream, "Records": records }));
            assert_eq!(put["FailedRecordCount"], 0, "{put}");
        }
    }

    /// All records of a stream, shard by shard: partition key and data.
    pub fn records(&self, stream: &str) -> Vec<(String, Vec<u8>)> {
        let listed = self.ask("ListShards", json!({ "StreamName": stream }));
        let mut all = Vec::new();
        for shard in listed["Shards"].as_array().unwrap() {
            let arguments = json!({ "StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON" });
            let mut iterator = self.ask("GetShardIterator", arguments)["ShardIterator"].clone();
            while !iterator.is_null() {
                let fetched = self.ask("GetRecords", json!({ "ShardIterator": iterator }));
                let records = fetched["Records"].as_array().unwrap();
                if records.is_empty() {
                    break;
                }
                all.extend(records.iter().map(|record| {
                    let key = record["PartitionKey"].as_str().unwrap().to_string();
                    (key, unbase64(record["Data"].as_str().unwrap()))
                }));
                iterator = fetched["NextShardIterator"].clone();
            }
        }
        all
    }
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

pub fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// A message of HTTP, request or answer: its lines and its body. None at the end.
fn message(from: &mut impl BufRead) -> Option<(Vec<String>, Vec<u8>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_string());
    }
    let length = header(&lines, "content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some((lines, body))
}

fn header<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    let mut fields = lines.iter().filter_map(|line| line.split_once(": "));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Whether a connection begins as one of HTTP/2 does.
fn is_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    stream.peek(&mut first).is_ok_and(|_| first == *b"PRI")
}

/// The head of a request.
fn head(action: &str) -> [String; 6] {
    [
        "POST / HTTP/1.1".to_string(),
        "host: localhost".into(),
        "content-type: application/x-amz-json-1.1".into(),
        format!("x-amz-target: Kinesis_20131202.{action}"),
        "x-amz-date: 20200101T000000Z".into(),
        "authorization: AWS4-HMAC-SHA256 Credential=a/20200101/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
         Signature=0"
            .into(),
    ]
}

/// Asks the server; None where it refuses.
fn ask(stream: &UnixStream, action: &str, arguments: &Value) -> Option<Value> {
    let (answer, body) = exchange(stream, &head(action), &arguments.to_string().into_bytes())?;
    let ok = answer[0].split(' ').nth(1) == Some("200");
    ok.then(|| if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
}

fn exchange(stream: &UnixStream, head: &[String], body: &[u8]) -> Option<(Vec<String>, Vec<u8>)> {
    let kept = head.iter().filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
    let lines: String = kept.map(|line| format!("{line}\r\n")).collect();
    let mut stream = stream;
    write!(stream, "{lines}content-length: {}\r\n\r\n", body.len()).ok()?;
    stream.write_all(body).ok()?;
    message(&mut BufReader::new(stream))
}

/// Passes a request on, or not; None where the connection is to end.
fn forward(
    outside: &TcpStream,
    inside: &UnixStream,
    head: &[String],
    body: Vec<u8>,
    rules: &Rules,
) -> Option<()> {
    let action = header(head, "x-amz-target").unwrap_or_default().rsplit('.').next().unwrap().to_string();
    let arguments: Value = serde_json::from_slice(&body).unwrap();
    let (status, answer) = match rules.of(&action, &arguments) {
        Fault::None => told(exchange(inside, head, &body)?),
        Fault::Refuse(status, kind) => (
            status.to_string(),
            json!({ "__type": kind, "message": "as the test wants it" }).to_string().into(),
        ),
        Fault::Lose => {
            exchange(inside, head, &body)?;
            return None;
        }
        Fault::Change(arguments, change) => {
            let (status, answer) = told(exchange(inside, head, &arguments.to_string().into_bytes())?);
            (status, change(serde_json::from_slice(&answer).unwrap()).to_string().into_bytes())
        }
    };
    let mut outside = outside;
    let lines = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", answer.len());
    outside.write_all(lines.as_bytes()).and_then(|()| outside.write_all(&answer)).ok()
}

/// Status and body of an answer.
fn told((head, body): (Vec<String>, Vec<u8>)) -> (String, Vec<u8>) {
    (head[0].split(' ').nth(1).unwrap_or("500").to_string(), body)
}
