//! Asking, and telling, others over HTTP. One request, one answer, and limits to all of it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::package::Endpoint;

/// The longest answer.
const LONGEST: usize = 64 << 10;

/// Sends JSON to somebody, and returns what is answered.
///
/// # Errors
///
/// What went wrong, or that it took too long.
pub(in crate::control) async fn post(
    to: &Endpoint,
    headers: &[(&'static str, String)],
    body: Bytes,
    within: Duration,
) -> Result<(StatusCode, Bytes), String> {
    match tokio::time::timeout(within, exchange(to, headers, body)).await {
        Ok(answer) => answer.map_err(|e| format!("{to}: {e}")),
        Err(_) => Err(format!("{to}: no answer within {}", humantime::format_duration(within))),
    }
}

async fn exchange(
    to: &Endpoint,
    headers: &[(&'static str, String)],
    body: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with this function, whatever comes of it.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = Request::post(&to.path)
        .header(HOST, to.authority())
        .header(USER_AGENT, concat!("mvedsuad/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await?.to_bytes();
    Ok((status, body))
}
