//! Who asks: keys from the environment, from the shared files, or from the service that a container or an instance has
//! them from.
//!
//! They are looked for where AWS's own tools look, in this order; the first place that has any is taken.
//!
//! ```text
//!  1  credentials = { env = … } or { profile = … }, where the job says so, and then nothing else
//!  2  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
//!  3  ~/.aws/credentials and ~/.aws/config, the profile AWS_PROFILE or `default`
//!  4  AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI (ECS, EKS Pod Identity)
//! ```
//!
//! Not supported: single sign-on, assumed roles, web identities, and the metadata of EC2 instances. Keys are printed
//! nowhere.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use levada_types::ConnectorError;
use serde::Deserialize;
use ureq::Agent;

use super::config::CredentialsFrom;

/// Where a container asks if its address is relative.
const CONTAINER_HOST: &str = "http://169.254.170.2";
/// How much of an answer is read.
const ANSWER_BYTES: u64 = 64 << 10;

/// Keys to sign with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
    /// When they end, in milliseconds since the Unix epoch.
    pub expires_ms: Option<i64>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// What is looked up outside: the environment, as a value, so that tests can have their own.
pub(crate) struct Surroundings<'a> {
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Surroundings<'_> {
    /// A variable that is set to something.
    fn get(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn home(&self, file: &str) -> PathBuf {
        PathBuf::from(self.get("HOME").unwrap_or_default()).join(".aws").join(file)
    }

    fn profile(&self) -> String {
        self.get("AWS_PROFILE").unwrap_or_else(|| "default".into())
    }

    /// The sections of the shared files that tell of `profile`, those of the credentials file first.
    fn sections(&self, profile: &str) -> Vec<(PathBuf, Section)> {
        let files = [
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile.to_string()),
            (
                "AWS_CONFIG_FILE",
                "config",
                if profile == "default" { profile.into() } else { format!("profile {profile}") },
            ),
        ];
        let read = |(variable, file, section): (&str, &str, String)| {
            let path = self.get(variable).map_or_else(|| self.home(file), PathBuf::from);
            let text = std::fs::read_to_string(&path).ok()?;
            Some((path, section_of(&text, &section)?))
        };
        files.into_iter().filter_map(read).collect()
    }

    /// The region, where the job does not say.
    pub fn region(&self, from: Option<&CredentialsFrom>) -> Option<String> {
        let profile = match from {
            Some(CredentialsFrom::Profile(profile)) => profile.clone(),
            _ => self.profile(),
        };
        let of_profile = || {
            let sections = self.sections(&profile);
            sections.iter().find_map(|(_, section)| value(section, "region").map(str::to_string))
        };
        self.get("AWS_REGION").or_else(|| self.get("AWS_DEFAULT_REGION")).or_else(of_profile)
    }

    /// Keys.
    ///
    /// # Errors
    /// When there are none, with all places that were looked at.
    pub fn credentials(&self, from: Option<&CredentialsFrom>) -> Result<Credentials, ConnectorError> {
        let wrong = |why: String| ConnectorError::configuration(format!("find credentials for AWS: {why}"));
        match from {
            Some(CredentialsFrom::Env { access_key_id, secret_access_key, session_token }) => {
                let read = |name: &String| self.get(name).ok_or_else(|| wrong(format!("{name} is not set")));
                return Ok(Credentials {
                    access_key_id: read(access_key_id)?,
                    secret_access_key: read(secret_access_key)?,
                    session_token: session_token.as_ref().map(read).transpose()?,
                    expires_ms: None,
                });
            }
            Some(CredentialsFrom::Profile(profile)) => {
                return self.of_profile(profile).ok_or_else(|| {
                    wrong(format!(
                        "profile {profile} has no aws_access_key_id and aws_secret_access_key in {} or {}",
                        self.home("credentials").display(),
                        self.home("config").display()
                    ))
                });
            }
            None => {}
        }
        if let (Some(access_key_id), Some(secret_access_key)) =
            (self.get("AWS_ACCESS_KEY_ID"), self.get("AWS_SECRET_ACCESS_KEY"))
        {
            let session_token = self.get("AWS_SESSION_TOKEN");
            return Ok(Credentials { access_key_id, secret_access_key, session_token, expires_ms: None });
        }
        if let Some(credentials) = self.of_profile(&self.profile()) {
            return Ok(credentials);
        }
        match self.container() {
            Some(url) => self
                .of_container(&url)
                .map_err(|why| ConnectorError::outage(format!("ask {url} for credentials of AWS: {why}"))),
            None => Err(wrong(format!(
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, profile {} is not in {}, and there is no \
                 AWS_CONTAINER_CREDENTIALS_FULL_URI; the job can name other places with `credentials`",
                self.profile(),
                self.home("credentials").display()
            ))),
        }
    }

    fn of_profile(&self, profile: &str) -> Option<Credentials> {
        self.sections(profile).iter().find_map(|(_, section)| {
            let get = |name| value(section, name).map(str::to_string);
            Some(Credentials {
                access_key_id: get("aws_access_key_id")?,
                secret_access_key: get("aws_secret_access_key")?,
                session_token: get("aws_session_token"),
                expires_ms: None,
            })
        })
    }

    /// Where a container has its keys from.
    fn container(&self) -> Option<String> {
        let relative = self.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let full = || self.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        relative.map(|path| format!("{CONTAINER_HOST}{path}")).or_else(full)
    }

    fn of_container(&self, url: &str) -> Result<Credentials, String> {
        let file = self.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        let token = match file {
            Some(file) => {
                Some(std::fs::read_to_string(&file).map_err(|error| format!("read {file}: {error}"))?)
            }
            None => self.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        };
        let agent = Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().new_agent();
        let mut get = agent.get(url);
        if let Some(token) = &token {
            get = get.header("authorization", token.trim());
        }
        let mut answer = get.call().map_err(|error| error.to_string())?;
        let bytes = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec();
        let answer: ContainerAnswer = serde_json::from_slice(&bytes.map_err(|error| error.to_string())?)
            .map_err(|_| "the answer has no AccessKeyId and SecretAccessKey".to_string())?;
        let expires = answer.expiration.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        Ok(Credentials {
            access_key_id: answer.access_key_id,
            secret_access_key: answer.secret_access_key,
            session_token: answer.token,
            expires_ms: expires.map(|time| time.timestamp_millis()),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerAnswer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

/// The lines of one section of a file, name and value.
type Section = Vec<(String, String)>;

fn section_of(text: &str, name: &str) -> Option<Section> {
    let mut found: Option<Section> = None;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = title.split_whitespace().eq(name.split_whitespace());
            if inside {
                found.get_or_insert_default();
            }
        } else if let (true, Some((key, value))) =
            (inside && !line.starts_with(['#', ';']), line.split_once('='))
        {
            found.get_or_insert_default().push((key.trim().into(), value.trim().into()));
        }
    }
    found
}

fn value<'a>(section: &'a Section, name: &str) -> Option<&'a str> {
    section.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn with<R>(variables: &[(&str, &str)], then: impl FnOnce(&Surroundings<'_>) -> R) -> R {
        let all: HashMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        then(&Surroundings { variable: &|name| all.get(name).cloned() })
    }

    #[test]
    fn keys_come_from_the_first_place_that_has_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aws")).unwrap();
        let text = "[default]\naws_access_key_id = D\naws_secret_access_key=d\n# aws_session_token = no\n\n[audit]\n\
                    aws_access_key_id = A\naws_secret_access_key = a=a\naws_session_token = t\n";
        std::fs::write(folder.path().join(".aws/credentials"), text).unwrap();
        let text = "[default]\nregion = eu-north-1\n[profile audit]\nregion = eu-south-2\n";
        std::fs::write(folder.path().join(".aws/config"), text).unwrap();
        let home = ("HOME", folder.path().to_str().unwrap());
        let found = |variables: &[(&str, &str)], from: Option<&CredentialsFrom>| {
            with(variables, |outside| {
                let keys = outside.credentials(from).unwrap();
                let Credentials { access_key_id, secret_access_key, session_token, .. } = keys;
                (access_key_id, secret_access_key, session_token, outside.region(from))
            })
        };
        let some = |text: &str| Some(text.to_string());
        let default = ("D".to_string(), "d".to_string(), None, some("eu-north-1"));
        let audit = ("A".to_string(), "a=a".to_string(), some("t"), some("eu-south-2"));
        assert_eq!(found(&[home], None), default);
        assert_eq!(found(&[home, ("AWS_PROFILE", "audit")], None), audit);
        assert_eq!(found(&[home], Some(&CredentialsFrom::Profile("audit".into()))), audit);
        let set = [home, ("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e"), ("AWS_REGION", "r")];
        assert_eq!(found(&set, None), ("E".into(), "e".into(), None, some("r")));
        let own = CredentialsFrom::Env {
            access_key_id: "K".into(),
            secret_access_key: "S".into(),
            session_token: Some("T".into()),
        };
        let set = [home, ("K", "1"), ("S", "2"), ("T", "3")];
        assert_eq!(found(&set, Some(&own)), ("1".into(), "2".into(), some("3"), some("eu-north-1")));
        let missing = with(&[("K", "1")], |outside| outside.credentials(Some(&own)).unwrap_err().to_string());
        assert_eq!(missing, "failed to find credentials for AWS: S is not set");
    }

    #[test]
    fn a_container_asks_for_its_keys() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                request.push(byte[0]);
            }
            let body = r#"{"AccessKeyId":"C","SecretAccessKey":"c","Token":"t","Expiration":"2030-01-01T00:00:00Z"}"#;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8(request).unwrap().to_ascii_lowercase()
        });
        let variables = [
            ("HOME", "/nowhere"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let-me"),
        ];
        let keys = with(&variables, |outside| outside.credentials(None).unwrap());
        assert_eq!((keys.access_key_id.as_str(), keys.session_token.as_deref()), ("C", Some("t")));
        assert_eq!(keys.expires_ms, Some(1_893_456_000_000));
        let request = server.join().unwrap();
        assert!(request.starts_with("get /keys ") && request.contains("authorization: let-me"), "{request}");
    }

    #[test]
    fn where_there_are_none_all_places_are_told_and_no_key_is_shown() {
        let error = with(&[("HOME", "/nowhere")], |outside| outside.credentials(None).unwrap_err());
        let error = error.to_string();
        assert!(
            error.contains("AWS_ACCESS_KEY_ID") && error.contains("/nowhere/.aws/credentials"),
            "{error}"
        );
        let shown = Credentials {
            access_key_id: "key".into(),
            secret_access_key: "secret".into(),
            session_token: None,
            expires_ms: None,
        };
        assert_eq!(format!("{shown:?}"), "Credentials(…)");
    }
}
