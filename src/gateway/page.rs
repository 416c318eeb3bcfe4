//! The page: files in the binary, no build step, nothing from elsewhere.

use warp::Reply;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use warp::http::{Response as HttpResponse, StatusCode};
use warp::reply::Response;

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its address.
    pub path: &'static str,
    kind: &'static str,
    body: &'static str,
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! scripts {
    ($($name:literal),* $(,)?) => {
        [$(Asset { path: $name, kind: JAVASCRIPT, body: include_str!(concat!("page/", $name)) }),*]
    };
}

/// The page itself.
pub static INDEX: Asset =
    Asset { path: "", kind: "text/html; charset=utf-8", body: include_str!("page/index.html") };

static STYLE: Asset =
    Asset { path: "page.css", kind: "text/css; charset=utf-8", body: include_str!("page/page.css") };
static ICON: Asset = Asset { path: "icon.svg", kind: "image/svg+xml", body: include_str!("page/icon.svg") };

static SCRIPTS: [Asset; 9] = scripts![
    "chart.js",
    "connection.js",
    "explore.js",
    "format.js",
    "job.js",
    "page.js",
    "panels.js",
    "table.js",
    "tip.js",
];

/// The file of this name beside the page.
pub fn asset(name: &str) -> Option<&'static Asset> {
    [&STYLE, &ICON].into_iter().chain(&SCRIPTS).find(|asset| asset.path == name)
}

/// Nothing from elsewhere, no script in the text, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl Asset {
    /// The answer to a request that has this version, or another, or none. A browser asks each time and
    /// gets the bytes when they have changed.
    pub fn reply(&self, if_none_match: Option<&str>) -> Response {
        let tag = format!("\"{:016x}\"", fnv1a(self.body.as_bytes()));
        let same = if_none_match.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
        let mut response = if same {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            HttpResponse::new(self.body).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// A hash that tells versions of a file apart: FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
