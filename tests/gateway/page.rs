//! The page, as a browser shows it.

use std::process::Command;

use super::client::{get, request};
use super::{Served, append};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_needs_nothing_from_elsewhere_and_is_sent_once() {
    let served = Served::start(|_| {}).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/page.js", "text/javascript; charset=utf-8"),
        ("/page/chart.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ] {
        let answer = get(served.address, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        let text = String::from_utf8(answer.body.clone()).expect("UTF-8");
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
        let known = format!("if-none-match: {}\r\n", answer.header("etag"));
        let again = request(served.address, "GET", path, &known).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    assert_eq!(get(served.address, "/page/other.js").await.status, 404);
    served.stop().await;
}

/// The browser waits for the decision through the page's own connection, so the records come first and the
/// page is dumped once its scripts had some virtual time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_decision_that_was_appended() {
    let served = Served::start(|_| {}).await;
    let (_, decisions) = served.topic("decisions", 1);
    let (_, incidents) = served.topic("incidents", 1);
    append(
        &decisions,
        0,
        r#"{"decision_id":"d1","at":"2013-01-01T10:17:00Z","origin":"EWR","policy":"ground","action":"advise_ground_delay","priority":10,"parameters":"{\"expected_delay_min\":42}","inputs":"{\"disrupted\":0.75}","reason":"a <b>storm</b> is near"}"#,
    );
    let incident = |kind: &str, name: &str| {
        format!(
            r#"{{"incident":"{name}","kind":"{kind}","at":"2013-01-01T10:17:00Z","first_at":"2013-01-01T09:00:00Z","last_at":"2013-01-01T10:17:00Z","events":17,"severity":51.5,"reasons":"same airport","dest_top":"[[\"ORD\",9]]"}}"#
        )
    };
    append(&incidents, 0, &incident("opened", "i1"));
    append(&incidents, 0, &incident("opened", "i2"));
    append(&incidents, 0, &incident("closed", "i2"));
    let profile = tempfile::tempdir().expect("a folder");
    let browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-dev-shm-usage", "--timeout=6000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/", served.address))
        .output();
    let output =
        browser.expect("chromium is needed for this test: `make test` installs it (Debian: chromium)");
    let page = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    for shown in [
        "advise ground delay",
        "expected delay min 42",
        "a &lt;b&gt;storm&lt;/b&gt; is near",
        ">0.75<",
        "Tue, 01 Jan 2013, 10:17 UTC",
        "17 events",
        "ORD 9",
        "<h1 id=\"job\">flights</h1>",
        ">live<",
    ] {
        assert!(page.contains(shown), "{shown:?} is not on the page:\n{page}\n{failed}");
    }
    let open = page.split("id=\"open\"").nth(1).and_then(|rest| rest.split("</ol>").next()).expect("a list");
    assert_eq!(open.matches("<li").count(), 1, "{open}");
    served.stop().await;
}
