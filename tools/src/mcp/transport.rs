//! Streamable HTTP, with an end to requests that a server refuses without naming them.
//!
//! A server that was restarted knows nothing of the session, and many then answer with an error under the id `null`: nobody
//! would ever learn that it belongs to the request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};
use serde_json::json;
use sse_stream::Sse;

/// How long it may take to ask a server that refused a request for its status.
const STATUS: Duration = Duration::from_secs(5);

/// A client that gives every request an answer.
#[derive(Debug, Clone)]
pub(super) struct Answering(pub(super) reqwest::Client);

type Headers = HashMap<HeaderName, HeaderValue>;
type Failure = StreamableHttpError<reqwest::Error>;
type EventStream = BoxStream<'static, Result<Sse, SseError>>;

impl StreamableHttpClient for Answering {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        self.0.post_message(uri, message, session, auth, headers).await.map_err(bare)
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let id = match &message {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let target = (Arc::clone(&uri), session.clone(), headers.clone());
        let response = self
            .0
            .post_message_with_response_limits(uri, message, session, auth, headers, limits)
            .await
            .map_err(bare)?;
        let refusal = match (&response, id) {
            (StreamableHttpPostResponse::Json(JsonRpcMessage::Error(error), _), Some(id))
                if error.id.as_ref() != Some(&id) =>
            {
                error.error.message.to_string()
            }
            _ => return Ok(response),
        };
        drop(response);
        let text = format!("{}: {refusal}", self.status(target).await);
        Err(StreamableHttpError::UnexpectedServerResponse(text.into()))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), Failure> {
        self.0.delete_session(uri, session, auth, headers).await.map_err(bare)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<EventStream, Failure> {
        self.0.get_stream(uri, session, last_event, auth, headers).await.map_err(bare)
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
        most: usize,
    ) -> Result<EventStream, Failure> {
        self.0
            .get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, most)
            .await
            .map_err(bare)
    }
}

/// Without the URL, in which there may be a secret: rmcp and we log such failures.
fn bare(fault: Failure) -> Failure {
    match fault {
        StreamableHttpError::Client(fault) => StreamableHttpError::Client(fault.without_url()),
        other => other,
    }
}

impl Answering {
    /// The HTTP status with which the session is refused, which the answer above no longer has: a ping gets it too.
    async fn status(
        &self,
        (uri, session, headers): (Arc<str>, Option<Arc<str>>, Headers),
    ) -> String {
        let mut all: HeaderMap = headers.into_iter().collect();
        all.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(session) = session.and_then(|session| HeaderValue::from_str(&session).ok()) {
            all.insert(HeaderName::from_static("mcp-session-id"), session);
        }
        let ping = json!({"jsonrpc": "2.0", "id": "status", "method": "ping"});
        let request = self.0.post(&*uri).headers(all).timeout(STATUS).json(&ping);
        match request.send().await {
            Ok(response) => format!("HTTP {}", response.status().as_u16()),
            Err(fault) => fault.without_url().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_does_not_tell_the_secret_in_the_address_of_a_server() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let uri: Arc<str> = format!("http://{closed}/mcp?api_key=s3cret").into();
        let client = Answering(crate::http::plain_client().unwrap().build().unwrap());
        let ping = || serde_json::from_value(json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        let none = Headers::new;
        let limits = StreamableHttpResponseLimits::default();
        let faults = [
            client.post_message(uri.clone(), ping().unwrap(), None, None, none()).await.err(),
            client
                .post_message_with_response_limits(
                    uri.clone(),
                    ping().unwrap(),
                    None,
                    None,
                    none(),
                    limits,
                )
                .await
                .err(),
            client.delete_session(uri.clone(), "1".into(), None, none()).await.err(),
            client.get_stream(uri.clone(), None, None, None, none()).await.err(),
            client
                .get_stream_with_max_sse_event_size(uri, None, None, None, none(), 100)
                .await
                .err(),
        ];
        for fault in faults {
            let fault = fault.expect("nobody is there");
            assert!(!format!("{fault} {fault:?}").contains("s3cret"), "{fault:?}");
        }
    }
}
