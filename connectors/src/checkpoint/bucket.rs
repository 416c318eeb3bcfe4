//! Checkpoints in an object store.
//!
//! ```text
//!  s3://BUCKET/PREFIX/checkpoint-00000000000000000042-r7       what the engine named it
//! ```
//!
//! An object is there whole or not at all, also one that is sent in parts; parts of one that was never finished are no
//! object, and the bucket's own rules delete them in time. `object_store` is asynchronous: each store has a runtime of
//! its own, in which whoever asks waits. A request is tried three times within some seconds; what is away for longer is
//! an outage, which is for the caller to wait out.

use std::error::Error as StdError;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use levada_types::{Blame, CheckpointStore, ConnectorError};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::{Builder, Runtime};

use super::config::BucketConfig;
use super::{http, is_name, s3};

/// What is larger is sent in parts of [`PART`] bytes, [`AT_ONCE`] at a time, so that what fails is sent again in part.
const WHOLE: usize = 32 << 20;
const PART: usize = 16 << 20;
const AT_ONCE: usize = 4;
/// The most parts of an object.
const PARTS: usize = 10_000;
/// Requests at a time: each has a thread.
const REQUESTS: usize = 32;

/// The checkpoints of one job in an object store.
#[derive(Debug)]
pub struct BucketStore {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The prefix's address, for people.
    place: String,
    runtime: Runtime,
}

impl BucketStore {
    /// The place that a job file or a command names. Nothing is asked yet.
    ///
    /// # Errors
    /// When it is wrong, or nothing tells the region.
    pub fn open(config: &BucketConfig) -> Result<BucketStore, ConnectorError> {
        let objects = s3::open(config)?;
        let (_, prefix) = config.place().map_err(ConnectorError::configuration)?;
        BucketStore::over(objects, prefix, config.url.trim_end_matches('/'))
    }

    /// A prefix of a store, which is `place` for people.
    ///
    /// # Errors
    /// When there can be no such prefix, or no runtime.
    pub fn over(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        place: impl Into<String>,
    ) -> Result<BucketStore, ConnectorError> {
        let place = place.into();
        let wrong =
            |why: String| ConnectorError::configuration(format!("keep checkpoints in {place}: {why}"));
        let prefix = Path::parse(prefix).map_err(|error| wrong(error.to_string()))?;
        let runtime = Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(REQUESTS)
            .thread_name("object store")
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(BucketStore { objects, prefix, place, runtime })
    }

    fn path(&self, name: &str) -> Result<Path, ConnectorError> {
        match is_name(name) {
            true => Ok(self.prefix.clone().join(name)),
            false => {
                Err(ConnectorError::configuration(format!("use {name:?} as the name of a checkpoint's file")))
            }
        }
    }

    fn failed<'a>(&'a self, verb: &'static str, name: &'a str) -> impl FnOnce(Error) -> ConnectorError + 'a {
        move |error| {
            let (blame, why) = understand(&error);
            let slash = if name.is_empty() { "" } else { "/" };
            ConnectorError { blame, message: format!("{verb} {}{slash}{name}: {why}", self.place) }
        }
    }

    async fn send_in_parts(&self, path: &Path, parts: &[Bytes], length: usize) -> Result<(), Error> {
        let mut upload = self.objects.put_multipart(path).await?;
        let cut = cut(parts, PART.max(length.div_ceil(PARTS)));
        let sent = stream::iter(cut).map(|part| upload.put_part(part)).buffer_unordered(AT_ONCE);
        let sent = sent.try_collect::<()>().await;
        let done = match sent {
            Ok(()) => upload.complete().await.map(drop),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // If it cannot be taken back now, the bucket's own rules do so in time.
            let _ = upload.abort().await;
        }
        done
    }
}

/// Why it failed, and whose fault that is.
fn understand(error: &Error) -> (Blame, String) {
    let mut cause: &(dyn StdError + 'static) = error;
    loop {
        if let Some(known) = s3::understand(cause) {
            return known;
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    let blame = match error {
        Error::Generic { .. } | Error::JoinError { .. } => Blame::Outage,
        Error::NotFound { .. } => Blame::Outage,
        _ => Blame::Configuration,
    };
    let text = cause.to_string();
    let code = http::element(&text, "Code");
    (blame, if code.is_empty() { text } else { format!("{code}: {}", http::element(&text, "Message")) })
}

/// Payloads of `size` bytes, and what is left; nothing is copied.
pub(super) fn cut(parts: &[Bytes], size: usize) -> Vec<PutPayload> {
    let (mut payloads, mut open, mut length) = (Vec::new(), Vec::new(), 0);
    for part in parts {
        let mut part = part.clone();
        while length + part.len() >= size {
            open.push(part.split_to(size - length));
            payloads.push(open.drain(..).collect());
            length = 0;
        }
        if !part.is_empty() {
            length += part.len();
            open.push(part);
        }
    }
    if !open.is_empty() {
        payloads.push(open.into_iter().collect());
    }
    payloads
}

impl CheckpointStore for BucketStore {
    fn describe(&self) -> String {
        format!("the checkpoints in {}", self.place)
    }

    fn list(&self) -> Result<Vec<String>, ConnectorError> {
        let listed = self.runtime.block_on(self.objects.list_with_delimiter(Some(&self.prefix)));
        let listed = listed.map_err(self.failed("list", ""))?;
        let names = listed.objects.iter().filter_map(|object| object.location.filename());
        let mut names: Vec<String> = names.filter(|name| is_name(name)).map(str::to_string).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, ConnectorError> {
        let path = self.path(name)?;
        match self.runtime.block_on(async { self.objects.get(&path).await?.bytes().await }) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name)(error)),
        }
    }

    fn put(&self, name: &str, parts: &[Bytes]) -> Result<(), ConnectorError> {
        let path = self.path(name)?;
        let length = parts.iter().map(Bytes::len).sum();
        let put = async {
            match length <= WHOLE {
                true => self.objects.put(&path, parts.iter().cloned().collect()).await.map(drop),
                false => self.send_in_parts(&path, parts, length).await,
            }
        };
        self.runtime.block_on(put).map_err(self.failed("write", name))
    }

    fn create(&self, name: &str, parts: &[Bytes]) -> Result<bool, ConnectorError> {
        let path = self.path(name)?;
        let payload: PutPayload = parts.iter().cloned().collect();
        match self.runtime.block_on(self.objects.put_opts(&path, payload, PutMode::Create.into())) {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed("write", name)(error)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), ConnectorError> {
        let path = self.path(name)?;
        match self.runtime.block_on(self.objects.delete(&path)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed("delete", name)(error)),
        }
    }

    fn may_be_away(&self) -> bool {
        true
    }
}
