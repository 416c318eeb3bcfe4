//! Signature Version 4, by which AWS knows who asks.
//!
//! What is signed is the method, the path, some headers and the hash of the body; the key is derived from the secret,
//! the day, the region and the service. By "Create a signed AWS API request" of AWS's IAM guide; tested with AWS's own
//! examples. A request here has neither a query nor a path that would have to be escaped, which is most of what the
//! full scheme is about.

use chrono::DateTime;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::credentials::Credentials;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Where and when a request is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub region: &'a str,
    pub service: &'a str,
    /// Seconds since the Unix epoch.
    pub seconds: i64,
}

impl Scope<'_> {
    /// The value of `x-amz-date`, as in `20150830T123600Z`.
    pub fn date(&self) -> String {
        let time = DateTime::from_timestamp(self.seconds, 0).unwrap_or_default();
        time.format("%Y%m%dT%H%M%SZ").to_string()
    }

    /// What the key is good for: `20150830/us-east-1/kinesis/aws4_request`.
    fn text(&self) -> String {
        let date = self.date();
        format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service)
    }

    fn key(&self, secret: &str) -> Vec<u8> {
        let first = format!("AWS4{secret}").into_bytes();
        self.text().split('/').fold(first, |key, part| mac(&key, part.as_bytes()))
    }
}

/// The value of `authorization` for a request with these headers, whose names are in lower case and sorted.
pub(super) fn authorization(
    credentials: &Credentials,
    scope: Scope<'_>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", hex(&Sha256::digest(body)));
    let to_sign =
        format!("{ALGORITHM}\n{}\n{}\n{}", scope.date(), scope.text(), hex(&Sha256::digest(request)));
    let signature = hex(&mac(&scope.key(&credentials.secret_access_key), to_sign.as_bytes()));
    format!(
        "{ALGORITHM} Credential={}/{}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key_id,
        scope.text()
    )
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    // Keys of any length are right.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2015-08-30T12:36:00Z, the moment of AWS's examples.
    const EXAMPLE: Scope<'_> = Scope { region: "us-east-1", service: "service", seconds: 1_440_938_160 };

    fn signature(method: &str, headers: &[(&str, &str)], body: &str) -> String {
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
            session_token: None,
            expires_ms: None,
        };
        let said = authorization(&credentials, EXAMPLE, method, "/", headers, body.as_bytes());
        let (before, signature) = said.split_once("Signature=").unwrap();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        assert_eq!(
            before,
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={}, ", names.join(";"))
        );
        signature.into()
    }

    /// `get-vanilla`, `post-vanilla`, `post-x-www-form-urlencoded` and `post-header-value-trim`'s like of AWS's
    /// Signature Version 4 test suite.
    #[test]
    fn a_signature_is_that_of_the_test_suite() {
        let plain = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        assert_eq!(EXAMPLE.date(), plain[1].1);
        let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        assert_eq!(signature("GET", &plain, ""), vanilla);
        let vanilla = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert_eq!(signature("POST", &plain, ""), vanilla);
        let form = [("content-type", "application/x-www-form-urlencoded"), plain[0], plain[1]];
        let with_body = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
        assert_eq!(signature("POST", &form, "Param1=value1"), with_body);
    }

    /// The example of "Derive a signing key" in AWS's guide.
    #[test]
    fn a_key_is_that_of_the_guide() {
        let scope = Scope { service: "iam", ..EXAMPLE };
        let key = scope.key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        assert_eq!(hex(&key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }
}
