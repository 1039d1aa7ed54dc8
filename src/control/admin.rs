//! The admin page: /metrics, /healthz, /readyz, /status and what is below it. Plain HTTP/1.1, read only.

use std::{
    convert::Infallible,
    io,
    net::{self, IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use super::status::State;
use crate::net::with_remedy;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// For a request's header, the wait on an idle connection included.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// After a failed accept (no file descriptors): a busy loop would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// Opens the address of the page. Connections wait until it is served.
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    net::TcpListener::bind(address).map_err(|error| {
        let error = with_remedy(address, &error);
        io::Error::new(error.kind(), format!("--admin {error}"))
    })
}

impl Admin {
    /// Needs a runtime around it.
    pub fn new(listener: net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            address,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Never returns; ends with the runtime.
    pub async fn serve(self, state: Arc<State>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log::warn!("admin page: accept failed: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let state = Arc::clone(&state);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(answer(&request, &state).await) }
                });
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_WAIT);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                    log::debug!("admin page: {error}");
                }
                drop(place);
            });
        }
    }
}

async fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "read only\n".into());
        refusal
            .headers_mut()
            .insert(ALLOW, "GET, HEAD".parse().expect("a header value"));
        return refusal;
    }
    match request.uri().path() {
        "/" => page(StatusCode::OK, TEXT, INDEX.into()),
        "/metrics" => page(StatusCode::OK, PROMETHEUS, state.metrics()),
        "/healthz" => page(StatusCode::OK, TEXT, "ok\n".into()),
        "/readyz" => match state.not_ready() {
            None => page(StatusCode::OK, TEXT, "ready\n".into()),
            Some(why) => page(
                StatusCode::SERVICE_UNAVAILABLE,
                TEXT,
                format!("not ready: {why}\n"),
            ),
        },
        "/status" => page(StatusCode::OK, JSON, state.status()),
        path if path.starts_with(CLIENT) => client(&path[CLIENT.len()..], state).await,
        _ => page(StatusCode::NOT_FOUND, TEXT, INDEX.into()),
    }
}

/// What is known of one address.
async fn client(typed: &str, state: &State) -> Response<Full<Bytes>> {
    let Ok(ip) = typed.parse::<IpAddr>() else {
        let why = "not an IP address, as in /status/client/192.0.2.1\n";
        return page(StatusCode::BAD_REQUEST, TEXT, why.into());
    };
    match state.explain(ip).await {
        Some(text) => page(StatusCode::OK, JSON, text),
        None => page(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            "no shard has answered\n".into(),
        ),
    }
}

const CLIENT: &str = "/status/client/";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "\
weir
/metrics  for Prometheus
/status   what weir is doing, as JSON
/status/client/ADDRESS  what it knows of an address, and what it would do
/healthz  200: the process is alive
/readyz   200: it accepts mail and an upstream is up
";

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind);
    response
        .body(Full::new(Bytes::from(text)))
        .expect("status and header are constants")
}
