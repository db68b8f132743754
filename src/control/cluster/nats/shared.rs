//! What the tasks of the engine share.

use super::super::api::{self, ApiError, Reply};
use crate::cluster::EngineEvent;
use crate::config::Cluster;
use crate::control::results::Results;
use async_nats::{Client, Event};
use serde::de::DeserializeOwned;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Instant;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

/// The number of entries whose time of sending is kept. Those that were given up are in it until
/// it is emptied.
const SENT: usize = 65_536;

/// What the task that watches the connection is sent.
#[derive(Debug)]
pub(super) enum Signal {
    /// By the connection.
    Client(Event),
    /// The delivery with this number is interrupted.
    Broken(u64),
    /// The delivery with this number cannot begin: the log cannot be read.
    Unreadable(u64),
    /// Ask for the stream again.
    Again,
}

/// A consumer of the stream, which was made and is not asked yet.
pub(super) struct Consumer {
    pub(super) name: String,
    /// After which entry it begins.
    pub(super) after: u64,
    /// The number of later entries.
    pub(super) pending: u64,
}

/// See the module's documentation.
pub(super) struct EngineState {
    pub(super) client: Client,
    pub(super) cluster: Cluster,
    pub(super) stream: String,
    /// The number of this node, in the names of its consumers.
    pub(super) node: u64,
    pub(super) events: Results<EngineEvent>,
    pub(super) signals: UnboundedSender<Signal>,
    /// When each entry without an answer was sent.
    pub(super) sent: RefCell<HashMap<u64, Instant>>,
    /// The number of the delivery that is in force.
    pub(super) delivery: Cell<u64>,
    /// How many deliveries one after the other were refused.
    pub(super) failures: Cell<u32>,
    /// A consumer for the next delivery.
    pub(super) consumer: RefCell<Option<Consumer>>,
    /// The maximum size of an entry with its headers, in bytes.
    pub(super) max_payload: Cell<usize>,
    pub(super) is_paused: Cell<bool>,
    pub(super) resumed: Notify,
    /// The last failure that was logged, so that a lasting one is one line.
    pub(super) logged: RefCell<String>,
}

impl EngineState {
    pub(super) fn new(
        client: Client,
        cluster: &Cluster,
        node: u64,
        events: Results<EngineEvent>,
        signals: UnboundedSender<Signal>,
    ) -> EngineState {
        EngineState {
            client,
            cluster: cluster.clone(),
            stream: api::stream_name(cluster),
            node,
            events,
            signals,
            sent: RefCell::default(),
            delivery: Cell::new(0),
            failures: Cell::new(0),
            consumer: RefCell::default(),
            max_payload: Cell::new(usize::MAX),
            is_paused: Cell::new(false),
            resumed: Notify::new(),
            logged: RefCell::default(),
        }
    }

    /// Notes that an entry is sent now.
    pub(super) fn note_sent(&self, number: u64) {
        let mut sent = self.sent.borrow_mut();
        if sent.len() >= SENT {
            sent.clear();
        }
        sent.insert(number, Instant::now());
    }

    /// Removes the entries of the subjects that a filter matches.
    pub(super) async fn purge(&self, filter: &str) {
        let what = format!("STREAM.PURGE.{}", self.stream);
        let body = serde_json::json!({ "filter": filter }).to_string();
        let done: Result<serde_json::Value, ApiError> = request(&self.client, &what, body).await;
        if let Err(error) = done {
            self.log(&format!("entries cannot be removed: {}", error.description));
        }
    }

    /// Logs a failure, unless it was the last one that was logged.
    pub(super) fn log(&self, text: &str) {
        if *self.logged.borrow() != text {
            tracing::error!("cluster: {text}");
            text.clone_into(&mut self.logged.borrow_mut());
        }
    }
}

/// Sends a request to JetStream.
pub(super) async fn request<T: DeserializeOwned>(
    client: &Client,
    what: &str,
    body: String,
) -> Result<T, ApiError> {
    let failed = |description: String| ApiError { description, ..ApiError::default() };
    let answer = client.request(format!("$JS.API.{what}"), body.into()).await;
    let answer = answer.map_err(|error| failed(format!("no answer to {what}: {error}")))?;
    let reply: Reply<serde_json::Value> = serde_json::from_slice(&answer.payload)
        .map_err(|error| failed(format!("an answer to {what} is malformed: {error}")))?;
    if let Some(error) = reply.error {
        return Err(error);
    }
    let content = reply.content.unwrap_or_default();
    serde_json::from_value(content)
        .map_err(|error| failed(format!("an answer to {what} is malformed: {error}")))
}
