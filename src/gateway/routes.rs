//! The addresses.
//!
//! ```text
//!   GET /                              the page
//!   GET /v1/topics                     the topics, with their partitions and offsets
//!   GET /v1/topics/{topic}             one of them
//!   GET /v1/topics/{topic}/events      its records as they come (text/event-stream)
//!   POST /v1/topics/{topic}/events     takes events, if the topic is open for them
//!   GET /v1/events?topics=a,b          the same of several topics on one connection
//!   GET /v1/topics/{topic}/records     a page of them
//!   GET /v1/topics/{topic}/latest      the latest of every key
//!   GET /v1/alerts, /v1/silences       the alerts that fire in the jobs, and the silences that hold
//!   POST /v1/alerts/acknowledge        acknowledges alerts, if the topic of actions takes events
//!   POST /v1/silences                  silences alerts
//!   DELETE /v1/silences/{id}           ends a silence
//!   GET /v1/jobs, /v1/jobs/{job}/graph the jobs, and a picture of each
//!   GET /v1/pages                      what the page shows of each
//!   GET /healthz, /readyz, /metrics    for whoever runs it
//! ```
//! Every error is `application/problem+json`. No other origin may read or write: there are no CORS headers, and what
//! a page may send without asking is no media type that is taken.

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::json;
use warp::filters::BoxedFilter;
use warp::http::Response as HttpResponse;
use warp::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::Shared;
use super::events::{Events, blocking};
use super::metrics::OfTopic;
use super::problem::{Problem, recover};
use super::query::{self, Pairs};
use super::serve::Peer;
use super::{alerts, ingest, latest, page, records};
use crate::alerts::Kind;

const JSON: &str = "application/json";

/// All addresses.
pub fn routes(shared: Arc<Shared>) -> BoxedFilter<(Response,)> {
    assets()
        .or(streams(&shared))
        .unify()
        .or(taking(&shared))
        .unify()
        .or(topics(&shared))
        .unify()
        .or(jobs(&shared))
        .unify()
        .or(of_alerts(&shared))
        .unify()
        .or(operations(&shared))
        .unify()
        .recover(recover)
        .unify()
        .boxed()
}

fn assets() -> BoxedFilter<(Response,)> {
    let asked = |wanted: String| async move { page::asset(&wanted).ok_or_else(warp::reject::not_found) };
    let root = warp::path::end().map(|| &page::INDEX);
    root.or(warp::path!("page" / String).and_then(asked))
        .unify()
        .and(read_only())
        .and(warp::header::optional("if-none-match"))
        .map(|asset: &'static page::Asset, known: Option<String>| asset.reply(known.as_deref()))
        .boxed()
}

fn streams(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let one = warp::path!("v1" / "topics" / String / "events").map(Some);
    let many = warp::path!("v1" / "events").map(|| None);
    one.or(many)
        .unify()
        .and(warp::get())
        .and(warp::query::<Pairs>())
        .and(warp::header::optional("last-event-id"))
        .and(warp::header::optional("accept"))
        .and(with(shared))
        .then(|topic, pairs, id, accept: Option<String>, shared| async move {
            open_stream(shared, topic, pairs, id, accept).await.unwrap_or_else(Reply::into_response)
        })
        .boxed()
}

fn taking(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    warp::path!("v1" / "topics" / String / "events")
        .and(warp::post())
        .and(warp::query::<Pairs>())
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Peer>())
        .and(warp::body::stream())
        .and(with(shared))
        .then(|topic, pairs, headers, Peer(address): Peer, body, shared| {
            ingest::post(shared, topic, pairs, headers, address, body)
        })
        .boxed()
}

fn of_alerts(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("v1" / "alerts").map(|| alerts::Shown::Alerts);
    let silences = warp::path!("v1" / "silences").map(|| alerts::Shown::Silences);
    let read = list.or(silences).unify().and(asked(shared)).then(|shown, pairs, shared| async move {
        answer(async { alerts::list(no_parameters(pairs, shared)?, shown).await }.await)
    });
    let acknowledge = warp::path!("v1" / "alerts" / "acknowledge").map(|| Kind::Acknowledge);
    let silence = warp::path!("v1" / "silences").map(|| Kind::Silence);
    let act = acknowledge
        .or(silence)
        .unify()
        .and(warp::post())
        .and(warp::query::<Pairs>())
        .and(warp::header::optional("content-type"))
        .and(warp::ext::get::<Peer>())
        .and(warp::body::stream())
        .and(with(shared))
        .then(|kind, pairs, media: Option<String>, Peer(client): Peer, body, shared| {
            alerts::post(shared, kind, pairs, media, client, body)
        });
    let expire = warp::path!("v1" / "silences" / String)
        .and(warp::delete())
        .and(warp::query::<Pairs>())
        .and(warp::ext::get::<Peer>())
        .and(with(shared))
        .then(|id, pairs, Peer(client): Peer, shared| alerts::expire(shared, id, pairs, client));
    read.or(act).unify().or(expire).unify().boxed()
}

async fn open_stream(
    shared: Arc<Shared>,
    topic: Option<String>,
    pairs: Pairs,
    last_event_id: Option<String>,
    accept: Option<String>,
) -> Result<Response, Problem> {
    query::accepts_events(accept.as_deref())?;
    let asked = query::stream(topic, pairs, last_event_id)?;
    let permit = Arc::clone(&shared.streams).try_acquire_owned();
    let Ok(permit) = permit else {
        return Err(Problem::unavailable("there are as many event streams as the gateway takes"));
    };
    let log = shared.log.clone();
    let names: Vec<String> = asked.topics.iter().map(|(name, _)| name.clone()).collect();
    blocking(move || {
        names.iter().try_for_each(|name| match log.topic(name) {
            Err(levada_connectors::log::LogError::NoSuchTopic { .. }) if asked.wait => Ok(()),
            other => other.map(drop),
        })
    })
    .await?;
    let events = Events::open(shared, asked.topics, asked.cursor, permit).await?;
    let mut response = warp::reply::stream(events.into_stream()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that collects the answer before it passes it on would make live events late.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn topics(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("v1" / "topics").and(asked(shared)).then(|pairs, shared| async move {
        answer(async { records::topics(no_parameters(pairs, shared)?).await }.await)
    });
    let one =
        warp::path!("v1" / "topics" / String).and(asked(shared)).then(|name, pairs, shared| async move {
            answer(async { records::topic(no_parameters(pairs, shared)?, name).await }.await)
        });
    let page = warp::path!("v1" / "topics" / String / "records").and(asked(shared)).then(
        |topic, pairs, shared| async move {
            let page = async {
                let (partition, from, limit) = query::page(pairs)?;
                records::page(shared, topic, partition, from, limit).await
            };
            answer(page.await)
        },
    );
    let latest = warp::path!("v1" / "topics" / String / "latest").and(asked(shared)).then(
        |topic, pairs, shared| async move {
            answer(async { latest::latest(shared, topic, query::latest(pairs)?).await }.await)
        },
    );
    list.or(one).unify().or(page).unify().or(latest).unify().boxed()
}

fn jobs(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let list =
        warp::path!("v1" / "jobs").and(asked(shared)).map(|pairs, shared| answer(list_jobs(pairs, shared)));
    let graph = warp::path!("v1" / "jobs" / String / "graph")
        .and(asked(shared))
        .map(|name, pairs, shared| draw_job(name, pairs, shared).unwrap_or_else(Reply::into_response));
    let pages =
        warp::path!("v1" / "pages").and(asked(shared)).map(|pairs, shared| answer(list_pages(pairs, shared)));
    list.or(graph).unify().or(pages).unify().boxed()
}

/// The jobs as the page shows them; one without settings is its picture.
fn list_pages(pairs: Pairs, shared: Arc<Shared>) -> Result<Vec<u8>, Problem> {
    let shared = no_parameters(pairs, shared)?;
    let page = |job: &super::JobInfo| {
        let mut page = job.page.clone().unwrap_or_else(|| json!({ "title": job.name, "panels": [] }));
        page["job"] = json!(job.name);
        page["topics"] = json!(job.topics);
        page["graph"] = json!(graph_of(job));
        page
    };
    let pages: Vec<_> = shared.jobs.iter().map(page).collect();
    Ok(json!({ "pages": pages }).to_string().into_bytes())
}

fn graph_of(job: &super::JobInfo) -> String {
    format!("/v1/jobs/{}/graph", job.name)
}

fn list_jobs(pairs: Pairs, shared: Arc<Shared>) -> Result<Vec<u8>, Problem> {
    let shared = no_parameters(pairs, shared)?;
    let job =
        |job: &super::JobInfo| json!({ "name": job.name, "topics": job.topics, "graph": graph_of(job) });
    let jobs: Vec<_> = shared.jobs.iter().map(job).collect();
    Ok(json!({ "jobs": jobs }).to_string().into_bytes())
}

fn draw_job(name: String, pairs: Pairs, shared: Arc<Shared>) -> Result<Response, Problem> {
    let shared = no_parameters(pairs, shared)?;
    let job = shared.jobs.iter().find(|job| job.name == name);
    let Some(job) = job else { return Err(Problem::not_found(format!("there is no job {name:?}"))) };
    let mut response = body(job.svg.clone().into_bytes(), "image/svg+xml");
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    );
    Ok(response)
}

fn operations(shared: &Arc<Shared>) -> BoxedFilter<(Response,)> {
    let alive = warp::path!("healthz").and(read_only()).map(|| body(b"ok\n".to_vec(), "text/plain"));
    let ready =
        warp::path!("readyz").and(read_only()).and(with(shared)).then(|shared: Arc<Shared>| async move {
            let log = shared.log.clone();
            match blocking(move || log.topics().map(|_| log.root().is_dir())).await {
                Ok(true) => body(b"ready\n".to_vec(), "text/plain"),
                Ok(false) => Problem::unavailable("the folder of the topics is not there").into_response(),
                Err(error) => {
                    tracing::warn!(%error, "not ready");
                    Problem::unavailable("the topics cannot be read; the gateway's log says why")
                        .into_response()
                }
            }
        });
    let metrics = warp::path!("metrics").and(read_only()).and(with(shared)).then(|shared| async move {
        body(metrics_text(shared).await.into_bytes(), "text/plain; version=0.0.4; charset=utf-8")
    });
    alive.or(ready).unify().or(metrics).unify().boxed()
}

async fn metrics_text(shared: Arc<Shared>) -> String {
    shared.metrics.ring_bytes.clear();
    shared.metrics.lag_records.clear();
    for feed in shared.feeds.all().await {
        let label = OfTopic { topic: feed.topic().name().to_owned() };
        // A topic that cannot be read has no figures; its streams say why.
        if let Ok((bytes, lag)) = blocking(move || feed.state()).await {
            let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            shared.metrics.ring_bytes.get_or_create(&label).set(whole(bytes as u64));
            shared.metrics.lag_records.get_or_create(&label).set(whole(lag));
        }
    }
    shared.metrics.text()
}

/// The parameters of an address that is read, and what it answers from.
fn asked(shared: &Arc<Shared>) -> BoxedFilter<(Pairs, Arc<Shared>)> {
    read_only().and(warp::query::<Pairs>()).and(with(shared)).boxed()
}

fn with(shared: &Arc<Shared>) -> impl Filter<Extract = (Arc<Shared>,), Error = Infallible> + Clone + use<> {
    let shared = Arc::clone(shared);
    warp::any().map(move || Arc::clone(&shared))
}

fn read_only() -> impl Filter<Extract = (), Error = Rejection> + Clone {
    warp::get().or(warp::head()).unify()
}

fn no_parameters(pairs: Pairs, shared: Arc<Shared>) -> Result<Arc<Shared>, Problem> {
    query::nothing(pairs).map(|()| shared)
}

fn answer(result: Result<Vec<u8>, Problem>) -> Response {
    result.map_or_else(Reply::into_response, json_body)
}

/// An answer of JSON.
pub fn json_body(bytes: Vec<u8>) -> Response {
    body(bytes, JSON)
}

fn body(bytes: Vec<u8>, kind: &'static str) -> Response {
    let mut response = HttpResponse::new(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
