//! Asking an endpoint: what `wasmflow status` and the commands that act do.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::address::Address;
use super::token::Token;

/// Limit: an agent that lives takes a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit: the answer to a question. What acts answers when it is done, however long that takes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Limit: an answer that is read; a status of ten thousand stages has some ten megabytes.
const ANSWER_BYTES: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no agent answers at {address}")]
    Connect { address: Address, source: io::Error },
    #[error("the agent at {address} did not answer within {} s", limit.as_secs())]
    Timeout { address: Address, limit: Duration },
    #[error("the agent at {address} broke off")]
    Http { address: Address, source: hyper::Error },
    #[error("what answers at {address} is no agent of this version: {what}")]
    Foreign { address: Address, what: String },
}

/// One agent.
#[derive(Debug, Clone)]
pub struct Client {
    pub address: Address,
    pub token: Option<Token>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Client {
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply, ClientError> {
        let timeout = ClientError::Timeout { address: self.address.clone(), limit: ANSWER_TIMEOUT };
        tokio::time::timeout(ANSWER_TIMEOUT, self.ask("GET", path, None)).await.unwrap_or(Err(timeout))
    }

    /// Waits until it is done.
    ///
    /// # Errors
    /// When there is no answer: nobody knows then what has been done.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply, ClientError> {
        self.ask("POST", path, Some(body)).await
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Reply, ClientError> {
        let failed = |source| ClientError::Connect { address: self.address.clone(), source };
        let host = match &self.address {
            Address::Unix(_) => "localhost",
            Address::Tcp(address) => address,
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = self.token.as_ref().filter(|_| body.is_some()) {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        let request = request.map_err(|error| failed(io::Error::other(error)))?;
        match &self.address {
            Address::Unix(path) => {
                self.send(connected(UnixStream::connect(path)).await.map_err(failed)?, request).await
            }
            Address::Tcp(address) => {
                self.send(connected(TcpStream::connect(address)).await.map_err(failed)?, request).await
            }
        }
    }

    async fn send<S>(&self, stream: S, request: Request<Body>) -> Result<Reply, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broke_off = |source| ClientError::Http { address: self.address.clone(), source };
        let foreign = |what: String| ClientError::Foreign { address: self.address.clone(), what };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke_off)?;
        let asking = async {
            let answer = sender.send_request(request).await.map_err(broke_off)?;
            let status = answer.status().as_u16();
            let bytes = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_BYTES).await;
            let bytes = bytes.map_err(|error| foreign(error.to_string()))?;
            let body = serde_json::from_slice(&bytes).map_err(|error| foreign(format!("status {status}: {error}")))?;
            Ok(Reply { status, body })
        };
        // The connection has to be driven while it is asked; how it ends then is of no interest.
        tokio::select! {
            reply = asking => reply,
            never = async { _ = connection.await; std::future::pending().await } => never,
        }
    }
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>) -> io::Result<S> {
    let timeout = || Err(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| timeout())
}
