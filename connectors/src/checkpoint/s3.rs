//! Amazon S3, and what answers like it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use levada_types::{Blame, ConnectorError};
use object_store::aws::{AmazonS3Builder, AwsCredential, S3ConditionalPut};
use object_store::{BackoffConfig, CredentialProvider, ObjectStore, RetryConfig};

use super::config::BucketConfig;
use super::http::{Refusal, Ureq};
use crate::kinesis::CredentialsFrom;
use crate::kinesis::credentials::{Credentials, Surroundings};

/// Keys are renewed so long before they end.
const RENEW_BEFORE_MS: u64 = 5 * 60 * 1000;
/// The region of a store that has none.
const NO_REGION: &str = "us-east-1";

/// A bucket. Nothing is asked yet.
///
/// # Errors
/// When nothing tells the region, and when the file of authorities cannot be read.
pub(super) fn open(config: &BucketConfig) -> Result<Arc<dyn ObjectStore>, ConnectorError> {
    let wrong =
        |why: String| ConnectorError::configuration(format!("keep checkpoints in {}: {why}", config.url));
    config.check().map_err(|(field, why)| wrong(format!("`{field}`: {why}")))?;
    let (bucket, _) = config.place().map_err(wrong)?;
    let from = config.credentials.as_ref();
    let found = || surroundings(|outside| outside.region(from));
    let no_region = || config.endpoint.as_ref().map(|_| NO_REGION.to_string());
    let region = config.region.clone().or_else(found).or_else(no_region);
    let region =
        region.ok_or_else(|| wrong("nothing says the region; say `region`, or set AWS_REGION".into()))?;
    let keys = Arc::new(Keys { from: config.credentials.clone(), known: Mutex::new(None) });
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        // A certificate for `*.s3.amazonaws.com` is none for a name with further dots.
        .with_virtual_hosted_style_request(config.endpoint.is_none() && !bucket.contains('.'))
        .with_http_connector(Ureq::new(config.ca.as_deref(), Arc::clone(&keys))?)
        .with_credentials(keys)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        // What is away for longer is waited for, and told of, by who asks.
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: 2,
            retry_timeout: Duration::from_secs(60),
        });
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(config.allow_http);
    }
    let store = builder.build().map_err(|error| wrong(error.to_string()))?;
    Ok(Arc::new(store))
}

fn surroundings<R>(ask: impl FnOnce(&Surroundings<'_>) -> R) -> R {
    ask(&Surroundings { variable: &|name| std::env::var(name).ok() })
}

/// Keys to sign with, looked for when they are first needed and when they end.
pub(super) struct Keys {
    from: Option<CredentialsFrom>,
    known: Mutex<Option<Credentials>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Has them looked for anew.
    pub fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn get(&self) -> Result<Credentials, ConnectorError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let soon = (now + RENEW_BEFORE_MS) as i64;
        if let Some(known) = known.as_ref().filter(|known| known.expires_ms.is_none_or(|end| end > soon)) {
            return Ok(known.clone());
        }
        Ok(known.insert(surroundings(|outside| outside.credentials(self.from.as_ref()))?).clone())
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let Credentials { access_key_id, secret_access_key, session_token, .. } = self
            .get()
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        let (key_id, secret_key, token) = (access_key_id, secret_access_key, session_token);
        Ok(Arc::new(AwsCredential { key_id, secret_key, token }))
    }
}

/// Why a request failed, if that is known better than the text of the error tells.
pub(super) fn understand(error: &(dyn std::error::Error + 'static)) -> Option<(Blame, String)> {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return Some((refusal.blame, refusal.to_string()));
    }
    let error = error.downcast_ref::<ConnectorError>()?;
    Some((error.blame, error.message.clone()))
}
