//! Headers of HTTP, and the secrets in them: read for each use, and shown to nobody.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::fault::Faults;
use crate::tool::{ErrorKind, ToolError};

/// The value of a header.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Header {
    /// As it is.
    Text(String),
    /// From elsewhere, read for each use.
    Secret(Secret),
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// What stands before it, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
    /// A file that holds it.
    pub file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    pub env: Option<String>,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // There may be a secret in it all the same.
            Self::Text(_) => f.write_str("(text)"),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

impl Header {
    /// Notes what is wrong with it.
    pub(crate) fn check(&self, name: &str, key: &str, faults: &mut Faults) {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            faults.add(key, "", "this is no name of a header");
        }
        match self {
            Self::Text(text) => {
                let fits = HeaderValue::from_str(text).is_ok();
                faults.require(fits, key, "", "use one line of plain letters");
            }
            Self::Secret(secret) => {
                let fits = secret.file.is_some() != secret.env.is_some();
                faults.require(fits, key, "", "give either file or env");
            }
        }
    }

    /// The header, ready to be sent.
    ///
    /// # Errors
    /// When the secret cannot be read; the model is not told more than that.
    pub(crate) fn ready(&self, name: &str) -> Result<(HeaderName, HeaderValue), ToolError> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Secret(secret) => secret.reveal(name)?,
        };
        let fault = || hidden(name, "it cannot be sent: use one line of plain letters");
        let mut value = HeaderValue::from_str(&text).map_err(|_| fault())?;
        value.set_sensitive(true);
        Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?, value))
    }
}

impl Secret {
    fn reveal(&self, header: &str) -> Result<String, ToolError> {
        let secret = match (&self.file, &self.env) {
            (Some(path), _) => std::fs::read_to_string(path)
                .map_err(|fault| hidden(header, &format!("{}: {fault}", path.display())))?,
            (None, Some(name)) => {
                std::env::var(name).map_err(|fault| hidden(header, &format!("${name}: {fault}")))?
            }
            (None, None) => String::new(),
        };
        Ok(format!("{}{}", self.prefix, secret.trim_end()))
    }
}

fn hidden(header: &str, text: &str) -> ToolError {
    ToolError {
        kind: ErrorKind::Failed,
        for_model: "the tool is not set up".into(),
        for_operator: format!("the header {header}: {text}"),
    }
}
