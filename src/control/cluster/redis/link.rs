//! One connection to a server.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, Value};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// How long one attempt to connect may take: a stopped server accepts and says nothing.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(2);

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestFailure {
    /// The connection is lost, was not made, or the server is silent.
    Lost(String),
    /// The server has answered with an error.
    Refused {
        /// The first word of the error.
        code: String,
        /// The error.
        text: String,
    },
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestFailure::Lost(text) | RequestFailure::Refused { text, .. } => f.write_str(text),
        }
    }
}

impl From<RedisError> for RequestFailure {
    fn from(error: RedisError) -> RequestFailure {
        match error.code() {
            Some(code) => {
                RequestFailure::Refused { code: code.to_owned(), text: error.to_string() }
            }
            None => RequestFailure::Lost(error.to_string()),
        }
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerAddress {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How to connect and log in.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) user: String,
    pub(super) password: String,
}

impl Login {
    /// The same without a user.
    pub(super) fn anonymous(&self) -> Login {
        Login { tls: self.tls.clone(), user: String::new(), password: String::new() }
    }

    fn info(&self) -> RedisConnectionInfo {
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        match self.user.is_empty() {
            true => info,
            false => info.set_username(&self.user).set_password(&self.password),
        }
    }
}

/// See the module's documentation.
pub(super) struct ServerLink {
    connection: MultiplexedConnection,
    /// The task of the connection; `None` if another value ends it.
    driver: Option<AbortHandle>,
}

impl Drop for ServerLink {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }
}

impl ServerLink {
    /// Connects and logs in, within a second.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the log-in.
    pub(super) async fn open(
        address: &ServerAddress,
        login: &Login,
    ) -> Result<ServerLink, RequestFailure> {
        let named = |text: String| format!("{address}: {text}");
        match timeout(CONNECT, ServerLink::connect(address, login)).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(RequestFailure::Lost(text))) => Err(RequestFailure::Lost(named(text))),
            Ok(Err(RequestFailure::Refused { code, text })) => {
                Err(RequestFailure::Refused { code, text: named(text) })
            }
            Err(_) => Err(RequestFailure::Lost(named("no answer".to_owned()))),
        }
    }

    async fn connect(address: &ServerAddress, login: &Login) -> Result<ServerLink, RequestFailure> {
        let lost = |error: io::Error| RequestFailure::Lost(error.to_string());
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await;
        let stream = stream.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let Some(tls) = &login.tls else { return ServerLink::begin(stream, login).await };
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|error| RequestFailure::Lost(error.to_string()))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(lost)?;
        ServerLink::begin(stream, login).await
    }

    /// Logs in, and runs the connection in a task.
    async fn begin<S>(stream: S, login: &Login) -> Result<ServerLink, RequestFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&login.info(), stream, config).await?;
        Ok(ServerLink { connection, driver: Some(spawn_local(driver).abort_handle()) })
    }

    /// The answer to a command.
    ///
    /// # Errors
    /// The server answers with an error, or not within this time.
    pub(super) async fn ask(
        &mut self,
        command: &Cmd,
        within: Duration,
    ) -> Result<Value, RequestFailure> {
        match timeout(within, self.connection.send_packed_command(command)).await {
            Ok(answer) => answered(answer?),
            Err(_) => Err(RequestFailure::Lost("no answer".to_owned())),
        }
    }

    /// The answers to several commands that are sent together.
    ///
    /// # Errors
    /// The server does not answer all of them within this time.
    pub(super) async fn ask_all(
        &mut self,
        commands: &Pipeline,
        within: Duration,
    ) -> Result<Vec<Result<Value, RequestFailure>>, RequestFailure> {
        let asked = self.connection.send_packed_commands(commands, 0, commands.len());
        match timeout(within, asked).await {
            Ok(answers) => Ok(answers?.into_iter().map(answered).collect()),
            Err(_) => Err(RequestFailure::Lost("no answer".to_owned())),
        }
    }

    /// Another user of the same connection, which lasts as long as the first one.
    pub(super) fn share(&self) -> ServerLink {
        ServerLink { connection: self.connection.clone(), driver: None }
    }
}

fn answered(value: Value) -> Result<Value, RequestFailure> {
    match value {
        Value::ServerError(error) => {
            let code = error.code().to_owned();
            let text = format!("{code} {}", error.details().unwrap_or_default());
            Err(RequestFailure::Refused { code, text })
        }
        value => Ok(value),
    }
}
