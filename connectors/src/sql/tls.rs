//! TLS to PostgreSQL: certificates are always checked.

use std::path::Path;
use std::sync::Arc;

use levada_types::ConnectorError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::table::Place;

/// What connects by TLS. `ca` is a file with the authorities that are trusted instead of the public ones.
pub(super) fn connector(place: &Place, ca: Option<&Path>) -> Result<MakeRustlsConnect, ConnectorError> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let failed = |why: String| place.wrong(format!("`ca` {}: {why}", path.display()));
            let certificates =
                CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            for certificate in certificates.map_err(|error| failed(error.to_string()))? {
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(failed("there is no certificate in it".into()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| place.wrong(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
