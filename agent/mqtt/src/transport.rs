//! Address, TLS and credentials. Read again for each connection, so that a renewed password or
//! certificate is picked up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outpost_agent_core::config::{MqttConfig, TlsConfig, Transport};
use rumqttc::TlsConfiguration;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// Invalid connection settings.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The password cannot be read.
    #[error("mqtt.password_file {}: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A PEM file is invalid.
    #[error("{key} {}: {source}; a PEM file is expected", path.display())]
    Pem {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// No authority is trusted.
    #[error(
        "no certificate authority is trusted: name one with mqtt.tls.ca, or install the package ca-certificates"
    )]
    NoAuthority,
    /// The certificates do not match.
    #[error("mqtt.tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where and how to connect.
#[derive(Clone)]
pub(super) struct Target {
    /// A host name, or a URL for a WebSocket.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) transport: rumqttc::Transport,
    /// User and password.
    pub(super) login: Option<(String, String)>,
}

impl Target {
    /// From the configuration; `embedded` is the address of the embedded broker.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub(super) fn new(
        config: &MqttConfig,
        embedded: Option<SocketAddr>,
    ) -> Result<Self, TransportError> {
        let (host, port) = match (&config.host, embedded) {
            (Some(host), _) => (host.clone(), config.port),
            (None, Some(address)) => (address.ip().to_string(), address.port()),
            (None, None) => ("localhost".into(), config.port),
        };
        let tls = || Ok::<_, TransportError>(TlsConfiguration::Rustls(tls_config(&config.tls)?));
        let transport = match (config.transport, config.tls.enabled) {
            (Transport::Tcp, false) => rumqttc::Transport::Tcp,
            (Transport::Tcp, true) => rumqttc::Transport::Tls(tls()?),
            (Transport::Ws, false) => rumqttc::Transport::Ws,
            (Transport::Ws, true) => rumqttc::Transport::Wss(tls()?),
        };
        let scheme = if config.tls.enabled { "wss" } else { "ws" };
        let address = match config.transport {
            Transport::Tcp => host,
            Transport::Ws => format!("{scheme}://{host}:{port}{}", config.ws_path),
        };
        Ok(Self { address, port, transport, login: login(config)? })
    }

    /// A broker on plain TCP.
    pub(super) fn plain(broker: SocketAddr) -> Self {
        let address = broker.ip().to_string();
        let port = broker.port();
        Self { address, port, transport: rumqttc::Transport::Tcp, login: None }
    }
}

/// User and password of the configuration, if it has some.
///
/// # Errors
/// If the password's file cannot be read.
pub fn login(config: &MqttConfig) -> Result<Option<(String, String)>, TransportError> {
    let Some(username) = config.username.clone() else { return Ok(None) };
    if let Some(password) = &config.password {
        return Ok(Some((username, password.reveal().to_owned())));
    }
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|folder| Path::new(&folder).join("mqtt-password"))
        .filter(|path| path.exists());
    let password = match config.password_file.clone().or(credential) {
        Some(path) => std::fs::read_to_string(&path)
            .map_err(|source| TransportError::Password { path, source })?,
        None => String::new(),
    };
    Ok(Some((username, password.trim_end().to_owned())))
}

fn tls_config(config: &TlsConfig) -> Result<Arc<ClientConfig>, TransportError> {
    let mut roots = RootCertStore::empty();
    let authorities = match &config.ca {
        Some(path) => certificates("mqtt.tls.ca", path)?,
        // Skip unreadable system certificates; the others may do.
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(authorities);
    if roots.is_empty() {
        return Err(TransportError::NoAuthority);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("mqtt.tls.certificate", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(pem_error("mqtt.tls.key", key))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    read().map_err(pem_error(key, path))
}

fn pem_error(key: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TransportError {
    let path = path.to_owned();
    move |source| TransportError::Pem { key, path, source }
}
