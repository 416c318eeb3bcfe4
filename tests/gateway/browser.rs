//! A headless Chromium, spoken to in its DevTools protocol over a pipe: a page that holds an event stream
//! never finishes loading, so it is asked when it shows something, and not dumped when it has loaded.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    count: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts it and goes to the address.
    pub fn open(address: &str) -> Browser {
        let profile = tempfile::tempdir().expect("a folder");
        // It reads its file descriptor 3 and writes to 4.
        let command = "exec chromium --remote-debugging-pipe \"$@\" 3<&0 4>&1 >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", command, "sh", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Browser { child, to, from, session: None, count: 0, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.navigate", json!({ "url": address }));
        browser
    }

    /// Waits until an expression is true on the page, asked at every frame; the page's HTML then.
    pub fn wait_for(&mut self, condition: &str) -> String {
        let expression = format!(
            "new Promise((done) => {{
                const end = Date.now() + 30000;
                const look = () => {{
                    let met = false;
                    try {{ met = {condition}; }} catch {{ met = false; }}
                    if (met || Date.now() > end) done((met ? '' : 'in vain: ') + document.documentElement.outerHTML);
                    else requestAnimationFrame(look);
                }};
                look();
            }})"
        );
        let ask = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        // The page that it asks may just be replaced by the one that it goes to.
        let html = (0..100).find_map(|_| {
            let answer = self.call("Runtime.evaluate", ask.clone());
            answer["result"]["value"].as_str().map(str::to_owned)
        });
        let html = html.expect("a page");
        assert!(!html.starts_with("in vain: "), "waited for {condition} {html}");
        html
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.count += 1;
        let mut message = json!({ "id": self.count, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let needed = "chromium is needed for this test: `make test` installs it (Debian: chromium)";
        self.to.write_all(format!("{message}\0").as_bytes()).expect(needed);
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("an answer");
            assert_eq!(answer.pop(), Some(0), "{needed}");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == json!(self.count) {
                return answer["result"].clone();
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends by itself once its pipe is closed; this is for the case that it does not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
