//! What a job file says of where its checkpoints are kept.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinesis::CredentialsFrom;

/// An object store that answers as Amazon S3 does, and a place there that is one job's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// `s3://BUCKET/PREFIX`. The prefix is this job's alone.
    #[schemars(extend("pattern" = "^s3://"))]
    pub url: String,
    /// The region, as in `eu-central-1`; otherwise AWS_REGION, or what the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Another address than Amazon's: `https://HOST` or `https://HOST:PORT`, as of MinIO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether `endpoint` may begin with `http://`: what the job remembers can then be read on the way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// A file with the certificates of authorities that are trusted instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Where the keys stand; otherwise they are looked for where AWS's own tools look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsFrom>,
}

/// What is wrong with a configuration, and with which field.
pub type Wrong = (&'static str, String);

impl BucketConfig {
    /// What is wrong with it, and with which field.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<(), Wrong> {
        self.place().map_err(|reason| ("url", reason))?;
        let of_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.region.as_ref().is_some_and(|region| region.is_empty() || !region.bytes().all(of_region)) {
            return Err(("region", "a region is written as in `eu-central-1`".into()));
        }
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        match endpoint.split_once("://") {
            Some(("http", _)) if !self.allow_http => {
                let why = "what the job remembers could be read on the way; say `allow_http = true` if that is well";
                Err(("endpoint", why.into()))
            }
            Some(("http" | "https", host))
                if !host.is_empty() && !host.trim_end_matches('/').contains(['/', '@', '?']) =>
            {
                Ok(())
            }
            _ => Err(("endpoint", "write it as `https://HOST` or `https://HOST:PORT`".into())),
        }
    }

    /// The bucket, and the prefix in it, which may be empty.
    ///
    /// # Errors
    /// What is wrong with `url`.
    pub fn place(&self) -> Result<(&str, &str), String> {
        let form = "write it as `s3://BUCKET/PREFIX`";
        let rest = self.url.strip_prefix("s3://").ok_or(form)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let of_bucket =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(of_bucket) {
            return Err(format!(
                "a bucket's name has 3 to 63 lower-case letters, digits, `.` and `-`; {form}"
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        let of_prefix = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
        let good =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(of_prefix);
        if !prefix.is_empty() && !prefix.split('/').all(good) {
            return Err("a prefix has letters, digits, `-`, `_`, `.` and `=` between its `/`".into());
        }
        Ok((bucket, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_the_field() {
        let config = |more: &str| -> BucketConfig {
            serde_json::from_str(&format!(r#"{{"url":"s3://levada/jobs/shop"{more}}}"#)).unwrap()
        };
        let field = |more: &str| config(more).check().map_err(|(field, _)| field);
        assert_eq!(config("").place(), Ok(("levada", "jobs/shop")));
        assert_eq!(field(""), Ok(()));
        assert_eq!(field(r#","region":"Frankfurt""#), Err("region"));
        assert_eq!(field(r#","endpoint":"http://127.0.0.1:9000""#), Err("endpoint"));
        assert_eq!(field(r#","endpoint":"http://127.0.0.1:9000","allow_http":true"#), Ok(()));
        assert_eq!(field(r#","endpoint":"https://minio.example/bucket""#), Err("endpoint"));
        let url = |url: &str| BucketConfig { url: url.into(), ..BucketConfig::default() }.check();
        assert_eq!(url("s3://levada"), Ok(()));
        assert_eq!(url("s3://levada/"), Ok(()));
        for wrong in
            ["levada/jobs", "gs://levada", "s3://", "s3://Levada/x", "s3://levada//x", "s3://levada/a b"]
        {
            assert_eq!(url(wrong).unwrap_err().0, "url", "{wrong}");
        }
    }
}
