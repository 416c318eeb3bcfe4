//! Asking a registry over HTTP.
//!
//! API: Confluent Schema Registry, `GET /schemas/ids/{id}`, `GET /subjects/{subject}/versions/{version}`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use levada_types::ConnectorError;
use serde::Deserialize;
use ureq::Agent;
use ureq::http::StatusCode;

use super::RegistryConfig;
use super::store::Answer;
use crate::https::{agent, shown};

const WHOSE: &str = "the schema registry's";
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// The most schemas that one may name, with those that they name.
const MAX_REFERENCES: usize = 256;
/// What a registry says of an id that it does not know.
const SCHEMA_NOT_FOUND: u32 = 40403;

/// A client of one registry.
#[derive(Debug)]
pub struct Client {
    config: RegistryConfig,
    /// Made with the first request, and who asks.
    made: Mutex<Option<(Agent, Option<String>)>>,
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

/// What came of a request: an answer, or that there is no such thing.
type Found = Result<SchemaAnswer, Refusal>;

impl Client {
    pub fn new(config: &RegistryConfig) -> Client {
        Client { config: config.clone(), made: Mutex::default() }
    }

    /// Its address, for people.
    pub fn shown(&self) -> String {
        shown(&self.config.url)
    }

    /// Asks for the schema of an id.
    pub fn ask(&self, id: u32) -> Result<Answer, ConnectorError> {
        let found = match self.get(&format!("schemas/ids/{id}"))? {
            Ok(found) => found,
            Err(refusal) if refusal.error_code == SCHEMA_NOT_FOUND => {
                return Ok(Answer::Unknown(refusal.message));
            }
            Err(_) => {
                return Err(self.wrong("it answered 404 Not Found: is `url` that of a schema registry?"));
            }
        };
        match found.kind.as_deref() {
            None | Some("AVRO") => {}
            Some(kind) => return Ok(Answer::Other(kind.to_owned())),
        }
        let mut references = Vec::new();
        self.follow(&found.references, &mut Vec::new(), &mut references)?;
        Ok(Answer::Avro { schema: found.schema, references })
    }

    /// Adds the schemas that are named to `texts`, each behind those that it names itself and once.
    fn follow(
        &self,
        references: &[Reference],
        seen: &mut Vec<(String, i64)>,
        texts: &mut Vec<String>,
    ) -> Result<(), ConnectorError> {
        for Reference { subject, version } in references {
            let name = (subject.clone(), *version);
            if seen.contains(&name) {
                continue;
            }
            if seen.len() >= MAX_REFERENCES {
                return Err(self.wrong(&format!("a schema names more than {MAX_REFERENCES} others")));
            }
            seen.push(name);
            let path = format!("subjects/{}/versions/{version}", escaped(subject));
            let found = self.get(&path)?.map_err(|refusal| {
                self.wrong(&format!("it does not have version {version} of {subject}: {}", refusal.message))
            })?;
            self.follow(&found.references, seen, texts)?;
            texts.push(found.schema);
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Found, ConnectorError> {
        let (agent, authorization) = self.made()?;
        let url = format!("{}/{path}", self.config.url.trim_end_matches('/'));
        let mut request = agent
            .get(&url)
            .header("accept", "application/vnd.schemaregistry.v1+json, application/json")
            .header("user-agent", "levada");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.call().map_err(|error| self.away(&error.to_string()))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let body = body.map_err(|error| self.away(&error.to_string()))?;
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map(Ok).map_err(|error| {
                self.wrong(&format!("its answer to GET {path} is none of a schema registry: {error}"))
            }),
            StatusCode::NOT_FOUND => Ok(Err(serde_json::from_slice(&body).unwrap_or_default())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(self.wrong(&format!("it answered {status}; check `user` and `password`")))
            }
            // Whatever else it is, no record is to blame.
            _ => Err(self.away(&format!("it answered {status}"))),
        }
    }

    fn made(&self) -> Result<(Agent, Option<String>), ConnectorError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        let authorization = match (&self.config.user, &self.config.password) {
            (Some(user), Some(password)) => {
                let both = [user.as_bytes(), b":", &password.read(WHOSE)?].concat();
                Some(format!("Basic {}", STANDARD.encode(both)))
            }
            _ => None,
        };
        let agent = agent(WHOSE, self.config.ca.as_deref(), TIMEOUT)?;
        Ok(made.insert((agent, authorization)).clone())
    }

    fn away(&self, why: &str) -> ConnectorError {
        ConnectorError::outage(format!("ask the schema registry {}: {why}", self.shown()))
    }

    fn wrong(&self, why: &str) -> ConnectorError {
        ConnectorError::configuration(format!("ask the schema registry {}: {why}", self.shown()))
    }
}

/// A part of a path, percent-encoded.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
