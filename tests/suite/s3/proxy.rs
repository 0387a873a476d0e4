//! A proxy in front of the S3 server that misbehaves as a test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::{ACCESS_KEY, SECRET_KEY};

/// What is done with a request.
#[derive(Clone, Default)]
pub enum Act {
    /// It is passed on.
    #[default]
    Pass,
    /// It is passed on without this header, signed anew.
    Without(&'static str),
    /// It is passed on, and the connection is closed instead of an answer.
    DropAnswer,
    /// It is passed on; the first is told when that is done, and when the second is, the connection is closed.
    HoldAnswer(Arc<Notify>, Arc<Notify>),
    /// It is not passed on; this is the answer.
    Answer(u16, &'static str),
    /// It is passed on after a while.
    Late(Duration),
}

/// A request as a rule sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    /// How many like it (same method and path) there were before.
    pub before: usize,
}

impl Seen {
    /// Whether it puts an object that is no probe.
    pub fn is_put(&self) -> bool {
        self.method == Method::PUT && !self.is_probe()
    }

    pub fn is_probe(&self) -> bool {
        self.path.contains("/.probe/")
    }
}

type Rule = Box<dyn Fn(&Seen) -> Act + Send + Sync>;

/// The proxy; it ends with the test's runtime.
pub struct Proxy {
    addr: String,
    shared: Arc<Shared>,
}

struct Shared {
    rule: Mutex<Rule>,
    log: Mutex<Vec<(Method, String)>>,
    client: reqwest::Client,
}

impl Proxy {
    pub async fn start(rule: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Proxy {
        super::server();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (rule, log) = (Mutex::new(Box::new(rule) as Rule), Mutex::default());
        let shared = Arc::new(Shared { rule, log, client: reqwest::Client::new() });
        let accept = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(accept.clone(), stream));
            }
        });
        Proxy { addr, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Another rule from now on.
    pub fn rule(&self, rule: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        *self.shared.rule.lock().unwrap() = Box::new(rule);
    }

    /// The requests since the last call, such as `PUT a.json`: the last part of the path.
    pub fn requests(&self) -> Vec<String> {
        let taken = std::mem::take(&mut *self.shared.log.lock().unwrap());
        taken.iter().map(|(method, path)| format!("{method} {}", path.rsplit('/').next().unwrap_or(path))).collect()
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let answer = service_fn(move |request| answer(shared.clone(), request));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.map_err(std::io::Error::other)?;
    let seen = {
        let mut log = shared.log.lock().unwrap();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let before = log.iter().filter(|(m, p)| *m == method && *p == path).count();
        log.push((method.clone(), path.clone()));
        Seen { method, path, headers: head.headers.clone(), before }
    };
    let act = (shared.rule.lock().unwrap())(&seen);
    let mut headers = head.headers;
    let closed = || std::io::Error::other("closed");
    match act {
        Act::Answer(status, body) => {
            let status = StatusCode::from_u16(status).unwrap();
            return Ok(Response::builder().status(status).body(Body::from(body)).unwrap());
        }
        Act::Late(pause) => tokio::time::sleep(pause).await,
        Act::Without(name) if headers.remove(name).is_some() => sign(&head.method, &head.uri, &mut headers, &body),
        _ => {}
    }
    let url = format!("{}{}", super::endpoint(), head.uri);
    let passed = shared.client.request(head.method, url).headers(headers).body(body).send().await;
    let passed = passed.map_err(std::io::Error::other)?;
    let mut answer = Response::builder().status(passed.status());
    for (name, value) in passed.headers() {
        if name != header::TRANSFER_ENCODING && name != header::CONNECTION {
            answer = answer.header(name, value);
        }
    }
    let body = passed.bytes().await.map_err(std::io::Error::other)?;
    match act {
        Act::DropAnswer => Err(closed()),
        Act::HoldAnswer(acted, release) => {
            acted.notify_one();
            release.notified().await;
            Err(closed())
        }
        _ => Ok(answer.body(Body::from(body)).unwrap()),
    }
}

/// Signs a request for the server itself; what was signed before was signed for the proxy, with other headers.
fn sign(method: &Method, uri: &Uri, headers: &mut HeaderMap, body: &Bytes) {
    for name in ["host", "authorization", "x-amz-date", "x-amz-content-sha256"] {
        headers.remove(name);
    }
    let credential = AwsCredential { key_id: ACCESS_KEY.into(), secret_key: SECRET_KEY.into(), token: None };
    let url = format!("{}{uri}", super::endpoint());
    let mut request = Request::builder().method(method).uri(url).body(body.clone().into()).unwrap();
    *request.headers_mut() = std::mem::take(headers);
    AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut request, None).unwrap();
    *headers = std::mem::take(request.headers_mut());
}
