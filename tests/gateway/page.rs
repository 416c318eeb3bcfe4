//! The page, as a browser shows it.

use super::browser::Browser;
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

const DECISION: &str = r#"{"decision_id":"d1","at":"2013-01-01T10:17:00Z","origin":"EWR","policy":"ground","action":"advise_ground_delay","priority":10,"parameters":{"expected_delay_min":42},"inputs":"{\"disrupted\":0.75}","reason":"a <b>storm</b> is near"}"#;

fn incident(kind: &str, name: &str) -> String {
    format!(
        r#"{{"incident":"{name}","kind":"{kind}","at":"2013-01-01T10:17:00Z","first_at":"2013-01-01T09:00:00Z","last_at":"2013-01-01T10:17:00Z","events":17,"severity":51.5,"reasons":"same airport","dest_top":"[[\"ORD\",9]]"}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_what_is_appended_and_what_came_while_it_was_paused() {
    let served = Served::start(|_| {}).await;
    let (_, decisions) = served.topic("decisions", 1);
    let (_, incidents) = served.topic("incidents", 1);
    for (kind, name) in [("opened", "i1"), ("opened", "i2"), ("closed", "i2")] {
        append(&incidents, 0, &incident(kind, name));
    }
    let address = format!("http://{}/", served.address);
    let looked = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::open(&address);
        browser.wait_for("document.getElementById('state').className === 'state live' && document.title.startsWith('flights')");
        append(&decisions, 0, DECISION);
        let page =
            browser.wait_for("document.querySelector('#decisions li') && document.querySelector('#open li')");
        for shown in [
            "advise ground delay",
            "expected delay min 42",
            "a &lt;b&gt;storm&lt;/b&gt; is near",
            ">0.75<",
            "Tue, 01 Jan 2013, 10:17 UTC",
            "17 events",
            "ORD 9",
            "<h1 id=\"job\">flights</h1>",
        ] {
            assert!(page.contains(shown), "{shown:?} is not on the page:\n{page}");
        }
        browser.wait_for("document.querySelectorAll('#open li').length === 1 && document.querySelectorAll('#closed li').length === 1");
        browser.wait_for("(document.getElementById('pause').click(), true)");
        for name in ["d2", "d3"] {
            append(&decisions, 0, &DECISION.replace("d1", name));
        }
        browser.wait_for("document.getElementById('state').textContent.includes('paused, 2 waiting') && document.querySelectorAll('#decisions li').length === 1");
        browser.wait_for("(document.getElementById('pause').click(), true)");
        let page = browser.wait_for("document.querySelectorAll('#decisions li').length === 3");
        let (newest, oldest) = (page.find(">d3<").expect("d3"), page.find(">d1<").expect("d1"));
        assert!(newest < oldest, "newest first");
    });
    looked.await.expect("all shown");
    served.stop().await;
}
