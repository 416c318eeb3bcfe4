//! Alerts through the binary: a live job with a clock, what the command line and the gateway do about its alerts, and the
//! same from the recorded topics.

use std::path::PathBuf;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gateway::client::{Answer, attempt};
use crate::gateway::intake::{JSON, terminate};
use crate::same_bytes::{levada, succeed};

const JOB: &str = r#"
[job]
name = "pages"

[source.rows.log]
topic = "pages.rows"
schema = { at = "timestamp", kind = "string", service = "string", severity = "string", value = "int?" }
event_time = { column = "at", idle = "200ms" }

[source.acts.log]
topic = "pages.actions"
schema = { at = "timestamp", action = "string", id = "string?", matchers = "string?", fingerprint = "string?", group = "string?", starts_at = "timestamp?", ends_at = "timestamp?", by = "string?", comment = "string?" }
event_time = { column = "at", idle = "200ms" }

[source.ticks.clock]
every = "100ms"
schema = { at = "timestamp" }
event_time = { column = "at", out_of_order = "2s" }

[step.pages.alert]
from = "rows"
where = "kind = 'fires'"
resolved = "kind = 'over'"
labels = ["service", "severity"]
annotations = ["value"]
actions = "acts"
group_by = ["service"]
group_wait = "1s"
group_interval = "1s"
repeat_interval = "1h"
resolve_timeout = "10h"
receiver = "on-call"

[step.told.select]
from = "pages"
where = "record = 'notification'"

[step.past.select]
from = "pages"
where = "record = 'history'"

[sink.told.log]
from = "told"
topic = "pages.notifications"

[sink.past.log]
from = "past"
topic = "pages.history"
"#;

/// A test that waits longer than this for anything has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site(TempDir);

/// A process that is stopped when the test ends, however it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn stop(mut self) {
        terminate(&self.0);
        assert!(self.0.wait().unwrap().success());
    }
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

impl Site {
    fn new() -> Site {
        let site = Site(TempDir::new().unwrap());
        std::fs::write(site.job(), JOB).unwrap();
        for topic in ["pages.rows", "pages.actions"] {
            succeed(levada(&["topics", "create", topic], &site.data()));
        }
        site
    }

    fn job(&self) -> PathBuf {
        self.0.path().join("job.toml")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn start(&self) -> Running {
        let mut command = levada(&["run", self.job().to_str().unwrap()], &self.data());
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Rows that come now.
    fn rows(&self, rows: &[(&str, &str, &str)]) {
        let file = self.0.path().join("rows.jsonl");
        let row = |(kind, service, severity): &(&str, &str, &str)| {
            format!(
                "{}\n",
                json!({ "at": now_ms(), "kind": kind, "service": service, "severity": severity, "value": 7 })
            )
        };
        std::fs::write(&file, rows.iter().map(row).collect::<String>()).unwrap();
        succeed(levada(&["topics", "produce", "pages.rows", "--file", file.to_str().unwrap()], &self.data()));
    }

    fn alerts(&self, verb: &str, more: &[&str]) -> Output {
        let mut command = levada(&["alerts", verb, self.job().to_str().unwrap()], &self.data());
        command.args(more).output().unwrap()
    }

    /// What the command says, which succeeds.
    fn done(&self, verb: &str, more: &[&str]) -> String {
        let output = self.alerts(verb, more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Why the command fails.
    fn refused(&self, verb: &str, more: &[&str]) -> String {
        let output = self.alerts(verb, more);
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Waits until the alerts and silences are such, and gives them.
    fn wait(&self, what: &str, such: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let listed: Value = serde_json::from_str(&self.done("list", &["--json"])).unwrap();
            if such(&listed) {
                return listed;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {listed:#}");
        }
    }

    fn export(&self, topic: &str) -> String {
        succeed(levada(&["topics", "export", topic], &self.data()))
    }

    fn gateway(&self, options: &[&str]) -> (Running, std::net::SocketAddr) {
        let file = self.0.path().join("address");
        let _ = std::fs::remove_file(&file);
        let mut command = levada(&["gateway", "--listen", "127.0.0.1:0"], &self.data());
        command.arg("--address-file").arg(&file).args(options);
        let child = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let began = Instant::now();
        loop {
            if let Ok(address) = std::fs::read_to_string(&file).unwrap_or_default().parse() {
                return (child, address);
            }
            assert!(began.elapsed() < PATIENCE, "no gateway");
            std::thread::yield_now();
        }
    }
}

/// The state of the alert of a service.
fn state<'v>(listed: &'v Value, service: &str) -> &'v Value {
    let alerts = listed["alerts"].as_array().unwrap();
    alerts.iter().find(|alert| alert["labels"]["service"] == service).unwrap_or(&Value::Null)
}

#[test]
fn a_live_job_hears_what_is_done_and_a_replay_tells_the_same() {
    let site = Site::new();
    site.rows(&[("fires", "a", "critical"), ("fires", "b", "warning")]);
    assert_eq!(site.done("list", &[]), "no alert fires, and no silence holds\n");
    let running = site.start();
    let firing = |listed: &Value, service: &str| state(listed, service)["state"] == "firing";
    let listed = site.wait("both fire", |listed| firing(listed, "a") && firing(listed, "b"));
    assert_eq!(state(&listed, "a")["annotations"], json!({ "value": 7 }));
    assert_eq!(state(&listed, "a")["step"], "pages");

    assert_eq!(site.done("ack", &["service=\"a\"", "--by", "ann", "--comment", "mine"]), "");
    site.wait("a is acknowledged", |listed| state(listed, "a")["acknowledged_by"] == "ann");
    let id = site.done("silence", &["severity=~\"warn.*\"", "--for", "1h", "--by", "bob"]);
    let id = id.trim();
    assert_eq!(id.len(), 16);
    let listed = site.wait("b is silenced", |listed| state(listed, "b")["state"] == "silenced");
    assert_eq!((&state(&listed, "b")["by"], &listed["silences"][0]["id"]), (&json!(id), &json!(id)));
    assert_eq!(listed["silences"][0]["state"], "active");
    let text = site.done("list", &[]);
    for expected in [
        "firing since",
        "acknowledged by ann",
        "service=\"a\" severity=\"critical\"",
        &format!("silenced by {id}"),
        &format!("silence {id}  active until"),
        "severity=~\"warn.*\" by bob",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    site.done("expire", &[id]);
    site.wait("b fires again", |listed| firing(listed, "b") && listed["silences"] == json!([]));
    site.rows(&[("over", "a", "critical")]);
    site.wait("a is over", |listed| state(listed, "a").is_null());
    running.stop();

    // The recorded topics tell the same again, ticks and all; then time goes on to the timeout of b.
    let live = [site.export("pages.notifications"), site.export("pages.history")];
    let again = Site(TempDir::new().unwrap());
    std::fs::write(again.job(), JOB).unwrap();
    std::fs::create_dir(again.data()).unwrap();
    for topic in ["pages.rows", "pages.actions", "pages.ticks"] {
        let file = again.0.path().join(topic);
        std::fs::write(&file, site.export(topic)).unwrap();
        succeed(levada(
            &["topics", "produce", topic, "--file", file.to_str().unwrap(), "--time", "at"],
            &again.data(),
        ));
    }
    let ticks = again.export("pages.ticks").lines().count();
    assert!(ticks > 20, "{ticks} ticks");
    succeed(levada(&["run", again.job().to_str().unwrap(), "--until-drained"], &again.data()));
    assert_eq!(again.export("pages.ticks").lines().count(), ticks, "a drained job does not tick");
    let replayed = [again.export("pages.notifications"), again.export("pages.history")];
    for (live, replayed) in live.iter().zip(&replayed) {
        assert!(!live.is_empty() && replayed.starts_with(live), "{live}\n\n{replayed}");
    }
    assert!(replayed[1].lines().last().unwrap().contains("\"why\":\"timeout\""), "{}", replayed[1]);
}

#[test]
fn what_cannot_be_done_is_said() {
    let site = Site::new();
    for (verb, more, expected) in [
        ("ack", &[][..], "say which alerts are meant"),
        ("ack", &["service"], "behind `service` there must be one of"),
        ("silence", &["service=~\"(\"", "--for", "1h"], "no regular expression"),
        ("silence", &["service=a", "--for", "soon"], "--for"),
        ("silence", &["service=a", "--until", "2020-01-01T00:00:00Z"], "must end after it begins"),
        ("silence", &["service=a", "--until", "tomorrow"], "is no time"),
        ("silence", &["service=a"], "--for"),
        ("list", &["--step", "page"], "no alert step `page`; there are: pages"),
    ] {
        let said = site.refused(verb, more);
        assert!(said.contains(expected), "{verb} {more:?}: {said}");
    }
    assert_eq!(site.export("pages.actions"), "");
    // A job that takes no actions.
    std::fs::write(site.job(), JOB.replace("actions = \"acts\"\n", "")).unwrap();
    let said = site.refused("ack", &["service=a"]);
    assert!(said.contains("takes no actions"), "{said}");
}

async fn ask(
    address: std::net::SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: Option<Value>,
) -> Answer {
    let body = body.map(|body| body.to_string().into_bytes());
    attempt(address, method, path, headers, body.as_deref()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_lists_and_takes_actions() {
    let site = Site::new();
    let job = site.job();
    let job = job.to_str().unwrap();
    let (gateway, address) = site.gateway(&["--job", job, "--ingest", "pages.actions"]);
    let listed = |answer: Answer| {
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
        answer.json()
    };
    assert_eq!(listed(ask(address, "GET", "/v1/alerts", "", None).await), json!({ "alerts": [] }));

    site.rows(&[("fires", "a", "critical"), ("fires", "b", "warning")]);
    let running = site.start();
    let began = Instant::now();
    let until = |what: &'static str, path: &'static str, such: fn(&Value) -> bool| async move {
        loop {
            let answer = ask(address, "GET", path, "", None).await.json();
            if such(&answer) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {answer:#}");
        }
    };
    let both = |listed: &Value| ["a", "b"].iter().all(|service| state(listed, service)["state"] == "firing");
    let alerts = until("both fire", "/v1/alerts", both).await;
    assert_eq!(
        (&state(&alerts, "a")["job"], &state(&alerts, "a")["step"]),
        (&json!("pages"), &json!("pages"))
    );

    let of_a = json!({ "fingerprint": state(&alerts, "a")["fingerprint"], "by": "ann" });
    let answer = ask(address, "POST", "/v1/alerts/acknowledge", JSON, Some(of_a)).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json(), json!({ "topic": "pages.actions", "partition": 0, "offset": 0 }));
    until("a is acknowledged", "/v1/alerts", |listed| state(listed, "a")["acknowledged_by"] == "ann").await;

    let silence =
        json!({ "matchers": "service=b", "for": "2h", "id": "s 1/2", "by": "bob", "comment": "known" });
    let answer = ask(address, "POST", "/v1/silences", JSON, Some(silence)).await;
    assert_eq!((answer.status, &answer.json()["id"]), (202, &json!("s 1/2")));
    until("b is silenced", "/v1/alerts", |listed| state(listed, "b")["by"] == "s 1/2").await;
    let silences =
        until("it is listed", "/v1/silences", |listed| listed["silences"][0]["id"] == "s 1/2").await;
    assert_eq!(
        (&silences["silences"][0]["comment"], &silences["silences"][0]["state"]),
        (&json!("known"), &json!("active"))
    );

    // While the gateway writes, the command line says whom to ask.
    let said = site.refused("ack", &["service=a", "--by", "ann"]);
    assert!(said.contains("POST /v1/alerts/acknowledge"), "{said}");

    let answer = ask(address, "DELETE", "/v1/silences/s%201%2F2?by=bob", "", None).await;
    assert_eq!(answer.status, 202);
    until("it has ended", "/v1/silences", |listed| listed["silences"] == json!([])).await;

    let acknowledge = "/v1/alerts/acknowledge";
    for (path, headers, body, status, expected) in [
        (acknowledge, JSON, json!({ "who": "ann" }), 400, "unknown field `who`"),
        (acknowledge, JSON, json!([]), 400, "the body cannot be read"),
        (
            acknowledge,
            "content-type: text/plain\r\n",
            json!({ "matchers": "service=a" }),
            415,
            "application/json",
        ),
        (acknowledge, JSON, json!({}), 422, "field `matchers`"),
        (acknowledge, JSON, json!({ "matchers": "service" }), 422, "field `matchers`"),
        (
            "/v1/silences",
            JSON,
            json!({ "matchers": "service!=a", "for": "1h" }),
            422,
            "a matcher that does not match what is empty",
        ),
        (
            acknowledge,
            JSON,
            json!({ "matchers": "service=a", "for": "1h" }),
            400,
            "an acknowledgement has no",
        ),
        (acknowledge, JSON, json!({ "matchers": "service=a", "step": "page" }), 404, "alert step"),
        (
            acknowledge,
            JSON,
            json!({ "matchers": "service=a", "comment": "x".repeat(20_000) }),
            413,
            "longer than",
        ),
        ("/v1/silences", JSON, json!({ "matchers": "service=a" }), 422, "field `ends_at`"),
        ("/v1/silences", JSON, json!({ "matchers": "service=a", "for": "ever" }), 422, "field `for`"),
        (
            "/v1/silences",
            JSON,
            json!({ "matchers": "service=a", "ends_at": "2020-01-01T00:00:00Z" }),
            422,
            "field `ends_at`",
        ),
        ("/v1/silences?x=1", JSON, json!({ "matchers": "service=a", "for": "1h" }), 400, "x"),
    ] {
        let answer = ask(address, "POST", path, headers, Some(body.clone())).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{body} {answer:?}"
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    assert_eq!(site.export("pages.actions").lines().count(), 3);
    running.stop();
    gateway.stop();

    // A gateway that takes no events takes no actions, and one without the job knows of none.
    let (gateway, address) = site.gateway(&["--job", job]);
    let answer = ask(address, "POST", acknowledge, JSON, Some(json!({ "matchers": "service=a" }))).await;
    assert_eq!(answer.status, 403);
    assert!(answer.json()["detail"].as_str().unwrap().contains("--ingest pages.actions"));
    gateway.stop();
    let (gateway, address) = site.gateway(&[]);
    for path in ["/v1/alerts", "/v1/silences"] {
        assert_eq!(ask(address, "GET", path, "", None).await.status, 404);
    }
    gateway.stop();
}
