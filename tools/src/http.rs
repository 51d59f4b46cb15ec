//! HTTP for tools: to named hosts only, within bounds, and never led elsewhere by a redirect.

mod address;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Method, Response, Url};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};

use self::address::Reach;
use crate::tool::{ErrorKind, Media, ToolError, ToolOutcome};

/// Redirects within a host that are followed at most.
const MAX_REDIRECTS: usize = 4;

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The hosts that it may speak to.
    pub hosts: Vec<HostRule>,
    /// Whether addresses that are not public are refused to hosts which only a rule with `*.` allows.
    pub refuse_private: bool,
    /// An exchange that takes longer has failed.
    pub time: Duration,
    /// A longer answer is refused, bytes.
    pub answer: usize,
}

/// A host that may be spoken to: `name`, `*.name` for all below a name, each with `:port` where it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    name: String,
    below: bool,
    port: Option<u16>,
}

impl HostRule {
    /// Reads a rule.
    pub fn new(text: &str) -> Option<Self> {
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The URL parser brings the name into the form that it has in URLs.
        let url = Url::parse(&format!("http://{rest}/")).ok()?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        let name = url.host_str().filter(|name| is_bare && !name.contains('*'))?.to_owned();
        let with_port = rest.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        let port = match with_port {
            Some((_, port)) => Some(port.parse().ok()?),
            None => None,
        };
        Some(Self { name, below, port })
    }

    fn fits(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        let is_host = match host.strip_suffix(self.name.as_str()) {
            Some("") => !self.below,
            Some(before) => self.below && before.ends_with('.'),
            None => false,
        };
        is_host
            && self
                .port
                .map_or(url.port().is_none(), |port| url.port_or_known_default() == Some(port))
    }
}

/// What is asked of a host.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: String,
    /// Headers beside those that every request has.
    pub headers: HeaderMap,
    /// The body with its type.
    pub body: Option<(&'static str, String)>,
}

/// A client that keeps to its bounds.
#[derive(Clone)]
pub struct Client {
    /// For hosts that are written out: they may be in a private network.
    written: reqwest::Client,
    /// For those below a name, where their addresses have to be public.
    below: Option<reqwest::Client>,
    bounds: Bounds,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// TLS cannot be set up.
    #[error("TLS for HTTP cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The client cannot be built.
    #[error("the HTTP client cannot be made: {0}")]
    Build(#[from] reqwest::Error),
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(bounds: Bounds) -> Result<Self, ClientError> {
        let client = |least| {
            let builder = plain_client()?
                .redirect(Policy::custom(stay))
                .timeout(bounds.time)
                .dns_resolver(Arc::new(Resolver { least }));
            Ok::<_, ClientError>(builder.build()?)
        };
        let is_apart = bounds.refuse_private && bounds.hosts.iter().any(|rule| rule.below);
        let below = is_apart.then(|| client(Reach::Public)).transpose()?;
        Ok(Self { written: client(Reach::Private)?, below, bounds })
    }

    /// Asks, and brings in the answer.
    ///
    /// # Errors
    /// When the host is not one of those allowed, does not answer within the bounds, or answers with a failure.
    pub async fn exchange(&self, exchange: Exchange) -> Result<ToolOutcome, ToolError> {
        let (client, url) = self.allowed(&exchange.url)?;
        let mut request = client.request(exchange.method, url).headers(exchange.headers);
        if let Some((kind, body)) = exchange.body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static(kind)).body(body);
        }
        let answer = request.send().await.map_err(failure)?;
        self.outcome(answer).await
    }

    /// The client that may ask for a URL.
    fn allowed(&self, text: &str) -> Result<(&reqwest::Client, Url), ToolError> {
        let invalid = |text: String| ToolError::new(ErrorKind::Invalid, text);
        // Neither this nor any other error repeats the URL, in which there may be a secret.
        let url = Url::parse(text).map_err(|fault| invalid(format!("this is no URL: {fault}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("use a URL that begins with https:// or http://".into()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("a URL must not carry a user or password".into()));
        }
        let mut rules = self.bounds.hosts.iter().filter(|rule| rule.fits(&url)).peekable();
        if rules.peek().is_none() {
            let text =
                format!("the host {} is not one of those allowed", url.host_str().unwrap_or(""));
            return Err(ToolError::new(ErrorKind::Refused, text));
        }
        // An address in place of a name fits no rule but the one in which it is written out.
        let client = match &self.below {
            Some(below) if rules.all(|rule| rule.below) => below,
            _ => &self.written,
        };
        Ok((client, url))
    }

    async fn outcome(&self, mut answer: Response) -> Result<ToolOutcome, ToolError> {
        let status = answer.status();
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let mime =
            kind.unwrap_or("text/plain").split(';').next().unwrap_or("").trim().to_lowercase();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failure)? {
            if bytes.len() + chunk.len() > self.bounds.answer {
                let text = format!("the answer is longer than {} bytes", self.bounds.answer);
                return Err(ToolError::new(ErrorKind::Failed, text));
            }
            bytes.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            // Pages of errors often repeat what was asked.
            if let Some(query) = answer.url().query().filter(|query| !query.is_empty()) {
                text = text.replace(query, "…").replace(&query.replace('&', "&amp;"), "…");
            }
            return Err(ToolError {
                kind: ErrorKind::Failed,
                for_model: format!("the host answered {status}"),
                for_operator: format!("{status}: {}", text.chars().take(500).collect::<String>()),
            });
        }
        Ok(brought(&mime, bytes, status.as_u16()))
    }
}

fn brought(mime: &str, bytes: Vec<u8>, status: u16) -> ToolOutcome {
    if mime.starts_with("image/") || mime.starts_with("audio/") {
        return ToolOutcome {
            media: vec![Media { mime: mime.into(), bytes }],
            ..ToolOutcome::default()
        };
    }
    let json = || serde_json::from_slice::<Value>(&bytes).ok();
    match (mime == "application/json" || mime.ends_with("+json")).then(json).flatten() {
        Some(value) => ToolOutcome::data(json!({ "status": status, "body": value })),
        None => ToolOutcome::text(String::from_utf8_lossy(&bytes)),
    }
}

/// A client that trusts the system's authorities and uses no proxy; the environment has no say.
pub(crate) fn plain_client() -> Result<reqwest::ClientBuilder, ClientError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let agent = concat!("outpost/", env!("CARGO_PKG_VERSION"));
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().user_agent(agent))
}

/// Follows a redirect to the same host over the same protocol only.
fn stay(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let origin = attempt.previous().first().map(Url::origin);
    if origin != Some(attempt.url().origin()) {
        return attempt.error("the host redirects to another one, which is not followed");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("the host redirects too often");
    }
    attempt.follow()
}

/// Neither the model nor a log is told the address, in which there may be a secret.
fn failure(fault: reqwest::Error) -> ToolError {
    let fault = fault.without_url();
    let causes = || {
        let first = std::error::Error::source(&fault);
        std::iter::successors(first, |fault| fault.source())
    };
    let (kind, for_model) = if fault.is_timeout() {
        (ErrorKind::Timeout, "the host did not answer in time")
    } else if fault.is_redirect() {
        (ErrorKind::Refused, "the host redirects elsewhere, which is not followed")
    } else if causes().any(<dyn std::error::Error>::is::<Barred>) {
        (ErrorKind::Refused, "the host has no address that may be spoken to")
    } else if fault.is_connect() {
        (ErrorKind::Unavailable, "the host cannot be reached")
    } else {
        (ErrorKind::Failed, "the exchange with the host failed")
    };
    let for_operator = causes().fold(fault.to_string(), |told, cause| format!("{told}: {cause}"));
    ToolError { kind, for_model: for_model.into(), for_operator }
}

/// Looks up names, and leaves out addresses that do not reach far enough.
///
/// The connection goes to the addresses that were judged here: the name is not looked up once more in between.
#[derive(Debug)]
struct Resolver {
    least: Reach,
}

/// A name has no address that may be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("{name} leads to {address}, {}", self.remedy())]
struct Barred {
    name: String,
    address: IpAddr,
}

impl Barred {
    fn remedy(&self) -> &'static str {
        match Reach::of(self.address) {
            Reach::Link => "which a name must not: write the address itself if it is meant",
            _ => "which is not public: write the host out in `hosts`, without *., if it is meant",
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let least = self.least;
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let (may, barred): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|found| Reach::of(found.ip()) >= least);
            match barred.first() {
                Some(barred) if may.is_empty() => {
                    Err(Barred { name: name.as_str().to_owned(), address: barred.ip() }.into())
                }
                _ => Ok(Box::new(may.into_iter()) as Addrs),
            }
        })
    }
}

/// The scheme and host of a URL, as far as it has them: what can be shown of it, since there may be a secret in the rest.
pub fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let mark = if scheme.is_empty() { "" } else { "://" };
    let more = if authority.len() < rest.len() { "/…" } else { "" };
    format!("{scheme}{mark}{host}{more}")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn rules(rules: &[&str]) -> Vec<HostRule> {
        rules.iter().map(|rule| HostRule::new(rule).unwrap()).collect()
    }

    fn bounds(hosts: &[&str]) -> Bounds {
        let (time, answer) = (Duration::from_secs(20), 1000);
        Bounds { hosts: rules(hosts), refuse_private: false, time, answer }
    }

    /// Serves answers one after the other, each on its own connection; gives what was asked.
    fn serve(answers: Vec<String>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = std::thread::spawn(move || {
            let serve = |answer: String| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut asked, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    asked += &line;
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                stream.write_all(answer.as_bytes()).ok();
                asked + &String::from_utf8(body).unwrap()
            };
            answers.into_iter().map(serve).collect()
        });
        (port, served)
    }

    fn answer(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }

    fn get(url: String) -> Exchange {
        Exchange { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }

    #[test]
    fn a_rule_fits_its_host_and_no_other() {
        let fits =
            |rule: &str, url: &str| HostRule::new(rule).unwrap().fits(&Url::parse(url).unwrap());
        for (rule, url, expected) in [
            ("example.org", "https://example.org/x", true),
            ("example.org", "http://EXAMPLE.org:80/", true),
            ("example.org", "https://example.org:8443/", false),
            ("example.org:8443", "https://example.org:8443/", true),
            ("example.org", "https://a.example.org/", false),
            ("example.org", "https://badexample.org/", false),
            ("example.org", "https://example.org.evil.net/", false),
            ("*.example.org", "https://a.b.example.org/", true),
            ("*.example.org", "https://example.org/", false),
            ("*.example.org", "https://badexample.org/", false),
            ("127.0.0.1", "http://2130706433/", true),
            ("[::1]:8080", "http://[::1]:8080/", true),
        ] {
            assert_eq!(fits(rule, url), expected, "{rule} {url}");
        }
        for rule in ["", "*", "a/b", "a b", "user@host", "*.*.x", "host:port", "a?b"] {
            assert!(HostRule::new(rule).is_none(), "{rule}");
        }
    }

    #[tokio::test]
    async fn hosts_that_are_not_listed_are_refused() {
        let client = Client::new(bounds(&["example.org"])).unwrap();
        for url in [
            "http://127.0.0.1/",
            "file:///etc/passwd",
            "https://example.org@127.0.0.1/",
            "https://u:p@example.org/",
            "nonsense",
        ] {
            let error = client.exchange(get(url.into())).await.unwrap_err();
            assert!(
                matches!(error.kind, ErrorKind::Invalid | ErrorKind::Refused),
                "{url}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn an_address_that_is_written_out_is_spoken_to_and_no_name_leads_to_the_machine_itself() {
        let (port, served) = serve(vec![answer("200 OK", "", "here")]);
        let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        for refuse_private in [false, true] {
            let bounds = Bounds { refuse_private, ..bounds(&hosts) };
            let client = Client::new(bounds).unwrap();
            let error = client.exchange(get(format!("http://localhost:{port}/?k=s3cret"))).await;
            let error = error.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{error:?}");
            assert!(error.for_operator.contains("localhost leads to"), "{error:?}");
            assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
        }
        let client = Client::new(Bounds { refuse_private: true, ..bounds(&hosts) }).unwrap();
        let done = client.exchange(get(format!("http://2130706433:{port}/"))).await.unwrap();
        assert_eq!(done.text.unwrap(), "here");
        served.join().unwrap();
    }

    #[tokio::test]
    async fn addresses_of_names_are_held_against_how_far_they_have_to_reach() {
        for (least, fits) in [(Reach::Link, true), (Reach::Private, false), (Reach::Public, false)]
        {
            let found = Resolver { least }.resolve("localhost".parse().unwrap()).await;
            assert_eq!(found.is_ok(), fits, "{least:?}");
        }
    }

    #[test]
    fn only_hosts_that_are_written_out_may_be_in_a_private_network() {
        let is_public = |hosts: &[&str], refuse_private, url: &str| {
            let client = Client::new(Bounds { refuse_private, ..bounds(hosts) }).unwrap();
            let (chosen, _) = client.allowed(url).unwrap();
            !std::ptr::eq(chosen, &raw const client.written)
        };
        for (hosts, url, expected) in [
            (vec!["nas.lan"], "http://nas.lan/", false),
            (vec!["*.lan"], "http://nas.lan/", true),
            (vec!["*.lan", "nas.lan"], "http://nas.lan/", false),
            (vec!["*.lan", "nas.lan"], "http://box.lan/", true),
            // Written out for another port.
            (vec!["*.lan", "nas.lan:8080"], "http://nas.lan/", true),
            (vec!["*.lan", "nas.lan:8080"], "http://nas.lan:8080/", false),
        ] {
            assert_eq!(is_public(&hosts, true, url), expected, "{hosts:?} {url}");
            assert!(!is_public(&hosts, false, url), "{hosts:?} {url}");
        }
    }

    #[tokio::test]
    async fn a_secret_in_a_url_is_in_no_error() {
        let echo = "Cannot GET /x?user=u&key=s3cret";
        let elsewhere = "location: http://127.0.0.2/?key=s3cret\r\n";
        let (port, served) = serve(vec![
            answer("404 Not Found", "", echo),
            answer("404 Not Found", "", &echo.replace('&', "&amp;")),
            answer("302 Found", elsewhere, ""),
            "nonsense\r\n\r\n".into(),
        ]);
        let host = format!("127.0.0.1:{port}");
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let client = Client::new(bounds(&[&host, &closed, "no.such.invalid"])).unwrap();
        let secret = "x?user=u&key=s3cret";
        let mut urls = vec![format!("http://{host}/{secret}"); 4];
        urls.extend([
            format!("http://{closed}/{secret}"),
            format!("http://no.such.invalid/{secret}"),
            format!("http://elsewhere.example/{secret}"),
            format!("http://user:s3cret@{host}/"),
            format!("http://[1:2/{secret}"),
            format!("ftp://{host}/{secret}"),
        ]);
        for url in urls {
            let error = client.exchange(get(url.clone())).await.unwrap_err();
            assert!(!format!("{error:?} {error}").contains("s3cret"), "{url}: {error:?}");
        }
        served.join().unwrap();
    }

    #[test]
    fn of_a_url_its_scheme_and_host_are_shown() {
        for (url, expected) in [
            ("https://user:s3cret@example.org:80/s3cret?key=s3cret", "https://example.org:80/…"),
            ("https://user:s3cret@example.org", "https://example.org"),
            ("https://example.org?s3cret", "https://example.org/…"),
            ("ftp://a@s3cret@host#s3cret", "ftp://host/…"),
            ("user:s3cret@host", "host"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn answers_come_as_what_they_are() {
        let json =
            answer("200 OK", "content-type: application/json; charset=utf-8\r\n", r#"{"t": 21}"#);
        let picture = answer("200 OK", "content-type: image/png\r\n", "PNG");
        let text = answer("200 OK", "", "hello");
        let missing = answer("404 Not Found", "", "no such page");
        let (port, served) = serve(vec![json, picture, text, missing]);
        let client = Client::new(bounds(&[&format!("127.0.0.1:{port}")])).unwrap();
        let url = format!("http://127.0.0.1:{port}/x");
        let posted = Exchange {
            method: Method::POST,
            body: Some(("application/json", r#"{"a": 1}"#.into())),
            ..get(url.clone())
        };
        let done = client.exchange(posted).await.unwrap();
        assert_eq!(done.data, Some(json!({"status": 200, "body": {"t": 21}})));
        let done = client.exchange(get(url.clone())).await.unwrap();
        assert_eq!(done.media, [Media { mime: "image/png".into(), bytes: b"PNG".to_vec() }]);
        assert_eq!(client.exchange(get(url.clone())).await.unwrap().text.unwrap(), "hello");
        let error = client.exchange(get(url)).await.unwrap_err();
        assert!(error.for_model.contains("404") && !error.for_model.contains("no such page"));
        let asked = served.join().unwrap();
        assert!(asked[0].starts_with("POST /x HTTP/1.1") && asked[0].ends_with(r#"{"a": 1}"#));
    }

    #[tokio::test]
    async fn a_redirect_is_followed_within_the_host_only() {
        let (other, elsewhere) = (TcpListener::bind("127.0.0.1:0").unwrap(), "to another port");
        let place =
            format!("location: http://127.0.0.1:{}/\r\n", other.local_addr().unwrap().port());
        let (port, served) = serve(vec![
            answer("302 Found", "location: /there\r\n", ""),
            answer("200 OK", "", "here"),
            answer("302 Found", &place, ""),
        ]);
        let other = format!("127.0.0.1:{}", other.local_addr().unwrap().port());
        let client = Client::new(bounds(&[&format!("127.0.0.1:{port}"), &other])).unwrap();
        let url = format!("http://127.0.0.1:{port}/");
        assert_eq!(client.exchange(get(url.clone())).await.unwrap().text.unwrap(), "here");
        let error = client.exchange(get(url)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused, "{elsewhere}: {error}");
        served.join().unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_or_too_slow_is_refused() {
        let (port, served) = serve(vec![answer("200 OK", "", &"x".repeat(1001))]);
        let client = Client::new(bounds(&[&format!("127.0.0.1:{port}")])).unwrap();
        let error = client.exchange(get(format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
        assert!(error.for_model.contains("longer than 1000"), "{error}");
        served.join().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
        let bounds = Bounds { time: Duration::from_millis(200), ..bounds(&[&host]) };
        let error = Client::new(bounds).unwrap().exchange(get(format!("http://{host}/"))).await;
        assert_eq!(error.unwrap_err().kind, ErrorKind::Timeout);
    }
}
