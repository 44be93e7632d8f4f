//! A small blocking HTTP/1.1 client.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }
}

/// `GET path` of the server on `port`.
pub(crate) fn get(port: u16, path: &str) -> Result<Answer, String> {
    let request = Request::get(path).header(HOST, "localhost").body(Full::default());
    send(port, request.expect("a valid request"))
}

/// `POST path` with `body`, its type, and its encoding unless that is empty.
pub(crate) fn post(
    port: u16,
    path: &str,
    kind: &str,
    encoding: &str,
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let mut request = Request::post(path).header(HOST, "localhost").header(CONTENT_TYPE, kind);
    if !encoding.is_empty() {
        request = request.header(CONTENT_ENCODING, encoding);
    }
    send(port, request.body(Full::new(body.into())).expect("a valid request"))
}

/// Sends any request.
pub(crate) fn send(port: u16, request: Request<Full<Bytes>>) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    runtime.block_on(async {
        let limited = tokio::time::timeout(Duration::from_secs(30), exchange).await;
        limited.unwrap_or_else(|_| Err("no answer within 30 s".to_owned()))
    })
}
