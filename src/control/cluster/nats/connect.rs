//! The connection to the servers, and the stream.

use super::super::api::{self, Acknowledgement, ApiError, StreamConfig, StreamInfo};
use super::super::pause::reconnect_pause;
use super::super::probe;
use super::super::tls;
use super::shared::{EngineState, Signal, request};
use crate::cluster::{EngineEvent, LogInfo, subject};
use crate::config::{Cluster, NatsIdentity};
use crate::crypto::sha256;
use crate::uring::sys;
use async_nats::{Client, ConnectOptions, Event, ServerInfo};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::spawn_local;

/// How long one attempt to connect may take: a stopped server accepts and says nothing.
const CONNECT: Duration = Duration::from_secs(1);
/// The time between two pings; after three without an answer the connection is lost.
const PING: Duration = Duration::from_secs(1);
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(2);
/// The pause before the stream is asked for again.
const AGAIN: Duration = Duration::from_millis(500);
/// The time between two questions for the size of the stream.
const SIZE: Duration = Duration::from_secs(2);

/// The settings of the connection.
///
/// # Errors
/// The certificate authorities, or what the process logs in with, cannot be used.
pub(super) fn options(
    cluster: &Cluster,
    signals: UnboundedSender<Signal>,
) -> io::Result<ConnectOptions> {
    let mut options = login(cluster)?
        .retry_on_initial_connect()
        .max_reconnects(None)
        // The first attempt is made at once.
        .reconnect_delay_callback(|attempts| match attempts {
            0 => Duration::ZERO,
            _ => reconnect_pause(attempts as u32 - 1),
        })
        .event_callback(move |event| {
            let signals = signals.clone();
            async move {
                let _ = signals.send(Signal::Client(event));
            }
        });
    options = options.ping_interval(PING);
    Ok(options)
}

/// How to log in, and to whom to connect.
fn login(cluster: &Cluster) -> io::Result<ConnectOptions> {
    let mut options = ConnectOptions::new()
        .name(format!("polycast {}", cluster.name))
        .connection_timeout(CONNECT)
        .request_timeout(Some(REQUEST));
    if !cluster.user.is_empty() {
        let password = cluster.password.expose().to_owned();
        options = options.user_and_password(cluster.user.clone(), password);
    }
    if !cluster.token.expose().is_empty() {
        options = options.token(cluster.token.expose().to_owned());
    }
    options = match &cluster.identity {
        Some(NatsIdentity::Credentials(text)) => options.credentials(text.expose())?,
        Some(NatsIdentity::Seed(seed)) => options.nkey(seed.expose().to_owned()),
        None => options,
    };
    if cluster.has_tls() {
        options = options.tls_client_config(tls::client_config(cluster)?).require_tls(true);
    }
    Ok(options)
}

/// The client, which connects in the background.
///
/// # Errors
/// A URL is malformed.
pub(super) fn client(options: ConnectOptions, cluster: &Cluster) -> io::Result<Client> {
    let mut connecting = Box::pin(options.connect(&cluster.engine[..]));
    // With `retry_on_initial_connect` this is ready at once.
    let waker = std::task::Waker::noop();
    match connecting.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(client) => client.map_err(io::Error::other),
        std::task::Poll::Pending => Err(io::Error::other("the client does not start")),
    }
}

/// Follows the state of the connection for ever.
pub(super) async fn watch(shared: Rc<EngineState>, mut signals: UnboundedReceiver<Signal>) {
    let (mut is_connected, mut is_up) = (false, false);
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Client(Event::Connected) => is_connected = true,
            Signal::Client(Event::Disconnected | Event::Closed) => {
                is_connected = false;
                if std::mem::take(&mut is_up) {
                    shared.events.put(EngineEvent::Down);
                    shared.log("the connection to the engine is lost");
                }
                continue;
            }
            Signal::Client(event) => {
                note(&shared, &event);
                continue;
            }
            Signal::Broken(delivery) if delivery != shared.delivery.get() => continue,
            Signal::Broken(_) => {}
            // A node that does not receive what is published publishes nothing, and is not ready.
            Signal::Unreadable(delivery) => {
                if delivery == shared.delivery.get() && std::mem::take(&mut is_up) {
                    shared.events.put(EngineEvent::Down);
                }
                continue;
            }
            Signal::Again if is_up => continue,
            Signal::Again => {}
        }
        if !is_connected {
            continue;
        }
        match attach(&shared).await {
            Ok(log) => {
                is_up = true;
                // The delivery before may have reported its end meanwhile. The node asks for a new
                // one.
                shared.delivery.set(shared.delivery.get() + 1);
                shared.events.put(EngineEvent::Up(log));
                if !std::mem::take(&mut *shared.logged.borrow_mut()).is_empty() {
                    tracing::info!("cluster: the engine can be used again");
                }
            }
            Err(problem) => {
                shared.log(&problem);
                if std::mem::take(&mut is_up) {
                    shared.events.put(EngineEvent::Down);
                }
                let signals = shared.signals.clone();
                spawn_local(async move {
                    tokio::time::sleep(AGAIN).await;
                    let _ = signals.send(Signal::Again);
                });
            }
        }
    }
}

/// Reports the size of the stream for ever.
pub(super) async fn watch_size(shared: Rc<EngineState>) {
    let info = format!("STREAM.INFO.{}", shared.stream);
    loop {
        tokio::time::sleep(SIZE).await;
        let answer = request::<StreamInfo>(&shared.client, &info, String::new()).await;
        if let Ok(info) = answer {
            shared.events.put(EngineEvent::Size(info.state.bytes));
        }
    }
}

/// Logs what the connection reports besides its beginning and its end.
fn note(shared: &EngineState, event: &Event) {
    match event {
        // The client says little.
        Event::ClientError(error) => {
            shared.log(&format!("the engine cannot be reached: {error}; see `polycast doctor`"));
        }
        Event::ServerError(error) => shared.log(&format!("the engine reports: {error}")),
        _ => {}
    }
}

/// Asks for the stream, and makes it if there is none.
async fn attach(shared: &EngineState) -> Result<LogInfo, String> {
    let ServerInfo { version, max_payload, .. } = shared.client.server_info();
    shared.max_payload.set(max_payload);
    if !api::is_new_enough(&version) {
        return Err(too_old(&version));
    }
    let info = find_stream(&shared.client, &shared.cluster).await?;
    // The same on all nodes, also of other releases.
    let digest = sha256(&[info.created.as_bytes()]);
    let epoch = u64::from_be_bytes(std::array::from_fn(|at| digest[at]));
    Ok(LogInfo { epoch, last: info.state.last_seq })
}

fn too_old(version: &str) -> String {
    format!(
        "the engine has version {version}, but 2.11 or newer is needed, which lets single \
         messages expire"
    )
}

async fn find_stream(client: &Client, cluster: &Cluster) -> Result<StreamInfo, String> {
    let (name, wanted) = (api::stream_name(cluster), StreamConfig::new(cluster));
    let info = request::<StreamInfo>(client, &format!("STREAM.INFO.{name}"), String::new()).await;
    let info = match info {
        Err(error) if error.err_code == ApiError::NO_STREAM => {
            let body = serde_json::to_string(&wanted).unwrap_or_default();
            request::<StreamInfo>(client, &format!("STREAM.CREATE.{name}"), body).await
        }
        info => info,
    };
    let info = info.map_err(|error| {
        format!("the stream {name} cannot be used: {} ({})", error.description, error.code)
    })?;
    let max_payload = client.server_info().max_payload;
    match wanted.difference(&info.config, max_payload) {
        Some(words) => Err(format!(
            "the stream {name} has other settings: {words}; change the stream or the section \
             `cluster`, or remove the stream while no node runs"
        )),
        None => Ok(info),
    }
}

/// Logs in at the engine once and reports what it has and what it lacks, in lines of text. The
/// second value says whether a node could use it.
pub(crate) fn examine(cluster: &Cluster, event_bytes: usize) -> (String, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut report = String::new();
    let errors = ServerErrors::default();
    let examined = match runtime {
        Ok(runtime) => {
            let examined = examined(cluster, event_bytes, &errors, &mut report);
            runtime.block_on(examined)
        }
        Err(error) => Err(error.to_string()),
    };
    let is_usable = examined.is_ok();
    if let Err(problem) = examined {
        let _ = writeln!(report, "engine: {problem}");
    }
    // A permission that is missing is named there only; its request gets no answer.
    for error in errors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(report, "engine: reports {error}");
    }
    (report, is_usable)
}

/// What the server has reported besides answers.
type ServerErrors = Arc<Mutex<BTreeSet<String>>>;

async fn examined(
    cluster: &Cluster,
    event_bytes: usize,
    errors: &ServerErrors,
    report: &mut String,
) -> Result<(), String> {
    let noted = errors.clone();
    let options = login(cluster).map_err(|error| error.to_string())?;
    let options = options.event_callback(move |event| {
        if let Event::ServerError(error) = event {
            noted.lock().unwrap_or_else(PoisonError::into_inner).insert(error.to_string());
        }
        std::future::ready(())
    });
    let client = options.connect(&cluster.engine[..]).await;
    let client = client.map_err(|error| format!("cannot be reached or refuses us: {error}"))?;
    let server = client.server_info();
    let _ = writeln!(report, "engine: NATS {} at {}", server.version, server.host);
    if !api::is_new_enough(&server.version) {
        return Err(too_old(&server.version));
    }
    let _ = writeln!(report, "engine: entries of up to {} bytes", server.max_payload);
    if let Some(warning) = api::too_small(server.max_payload, event_bytes) {
        let _ = writeln!(report, "engine: warning: {warning}");
    }
    let began = Instant::now();
    let info = find_stream(&client, cluster).await?;
    let StreamInfo { config, state, .. } = &info;
    let ms = began.elapsed().as_micros() as f64 / 1000.0;
    let _ = writeln!(
        report,
        "engine: the stream {} has {} of {} bytes, on {} server(s), in {}; asked in {ms} ms",
        config.name, state.bytes, config.max_bytes, config.num_replicas, config.storage
    );
    let mut problems = missing_rights(&client, cluster, &info).await;
    match measure(&client, cluster).await {
        Ok(times) => drop(writeln!(report, "{}", probe::summary(times))),
        Err(problem) => problems.push(problem),
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Does what a node does besides, and returns what is not answered. All of it is tried, so that
/// every permission that is missing is found at once.
async fn missing_rights(client: &Client, cluster: &Cluster, info: &StreamInfo) -> Vec<String> {
    let stream = &info.config.name;
    let consumer = format!("doctor-{:016x}", sys::random_u64().unwrap_or_default());
    let create = api::consumer(stream, &consumer, info.state.last_seq).to_string();
    // No entry has this subject.
    let none = format!("{}.none", subject::of_probes(&cluster.name));
    let purge = serde_json::json!({ "filter": none });
    let next = serde_json::json!({ "batch": 1, "no_wait": true });
    let mut problems = Vec::new();
    for (what, body) in [
        (format!("CONSUMER.CREATE.{stream}.{consumer}"), create),
        (format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"), next.to_string()),
        (format!("STREAM.PURGE.{stream}"), purge.to_string()),
    ] {
        let answer = client.request(format!("$JS.API.{what}"), body.into()).await;
        problems.extend(answer.err().map(|error| format!("no answer to {what}: {error}")));
    }
    problems
}

/// How long each of some entries takes that are stored one after the other.
async fn measure(client: &Client, cluster: &Cluster) -> Result<Vec<Duration>, String> {
    let run = sys::random_u64().map_err(|error| error.to_string())?;
    let mut times = Vec::new();
    for number in 0..probe::TRIES {
        let append = probe::append(cluster, run, number);
        let began = Instant::now();
        let headers = api::headers(&append);
        let stored = client.request_with_headers(append.subject, headers, append.body.into());
        let stored = stored.await.map_err(|error| format!("an entry is not stored: {error}"))?;
        times.push(began.elapsed());
        let answer: Acknowledgement = serde_json::from_slice(&stored.payload)
            .map_err(|error| format!("the answer to an entry cannot be read: {error}"))?;
        if let Some(error) = answer.error {
            return Err(format!("an entry is refused: {}", error.description));
        }
    }
    Ok(times)
}
