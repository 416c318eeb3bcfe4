//! What every client of HTTP here has: who is trusted, how long a request may take, and what of an address is shown.

use std::path::Path;
use std::time::Duration;

use levada_types::ConnectorError;
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::AgentScope;

/// A client. `ca` is a file with the authorities that are trusted instead of the public ones; `whose` it is, for
/// people: `the webhook's`.
pub(crate) fn agent(whose: &str, ca: Option<&Path>, timeout: Duration) -> Result<Agent, ConnectorError> {
    Ok(config(whose, ca)?.timeout_global(Some(timeout)).build().new_agent())
}

/// The same, but for how long a request may take.
pub(crate) fn config(whose: &str, ca: Option<&Path>) -> Result<ConfigBuilder<AgentScope>, ConnectorError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .tls_config(TlsConfig::builder().root_certs(authorities(whose, ca)?).build())
        .max_redirects_will_error(false);
    Ok(config)
}

/// Who is trusted to say who somebody is.
fn authorities(whose: &str, ca: Option<&Path>) -> Result<RootCerts, ConnectorError> {
    let Some(path) = ca else { return Ok(RootCerts::WebPki) };
    let failed =
        |why: &str| ConnectorError::configuration(format!("read {whose} `ca` {}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
    let mut authorities = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| failed(&error.to_string()))? {
            authorities.push(certificate);
        }
    }
    if authorities.is_empty() {
        return Err(failed("there is no certificate in it"));
    }
    Ok(RootCerts::new_with_certs(&authorities))
}

/// That an address is one of HTTP.
pub(crate) fn check_url(url: &str) -> Result<(), String> {
    match url.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() => Ok(()),
        _ => Err("the address has to begin with https:// or http://".into()),
    }
}

/// What of an address may be shown: neither a password nor a path that is a secret.
pub(crate) fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{}", host.rsplit('@').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_address_only_the_host_is_shown() {
        assert_eq!(shown("https://me:secret@hooks.example/services/T0/secret?a"), "https://hooks.example");
        assert_eq!(shown("http://127.0.0.1:80"), "http://127.0.0.1:80");
    }
}
