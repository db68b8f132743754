//! NATS JetStream as the engine: one stream, which all nodes append to, and a consumer of this node
//! that delivers it from a position on.
//!
//! The consumer is asked for a bounded number of entries at a time, and has a heartbeat. Whatever
//! happens to it, to the connection or to a server, shows as a missing number or a missing
//! heartbeat. Then the state of the stream is asked for, and the node begins again after its
//! position with a new consumer. So live delivery, filling after a loss and reading at the start
//! are one thing.

mod connect;
mod deliver;
mod shared;

pub(crate) use connect::examine;

use super::api::{self, Acknowledgement, ApiError};
use crate::cluster::{Append, Engine, EngineEvent, Refusal};
use crate::config::Cluster;
use crate::control::results::Results;
use crate::mem::Notifier;
use async_nats::StatusCode;
use futures_util::StreamExt;
use shared::EngineState;
use std::io;
use std::rc::Rc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_local};

/// See the module's documentation.
pub(super) struct NatsEngine {
    shared: Rc<EngineState>,
    /// Entries on their way to the connection; the node bounds their number.
    appends: UnboundedSender<Append>,
    /// The task that delivers the log.
    delivery: Option<AbortHandle>,
}

impl NatsEngine {
    /// Begins to connect, and does so for ever.
    ///
    /// # Errors
    /// The certificate authorities, or what the process logs in with, cannot be used.
    pub(super) fn start(
        cluster: &Cluster,
        node: u64,
        notifier: &Notifier,
    ) -> io::Result<NatsEngine> {
        let (signals, received) = unbounded_channel();
        let (appends, to_send) = unbounded_channel();
        let options = connect::options(cluster, signals.clone())?;
        let client = connect::client(options, cluster)?;
        let events = Results::new(notifier);
        let shared = Rc::new(EngineState::new(client, cluster, node, events, signals));
        spawn_local(connect::watch(shared.clone(), received));
        spawn_local(connect::watch_size(shared.clone()));
        spawn_local(send(shared.clone(), to_send));
        Ok(NatsEngine { shared, appends, delivery: None })
    }
}

impl Drop for NatsEngine {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            delivery.abort();
        }
    }
}

impl Engine for NatsEngine {
    fn append(&mut self, append: Append) {
        // The task ends only with the thread.
        let _ = self.appends.send(append);
    }

    fn purge(&mut self, tokens: &str) {
        let shared = self.shared.clone();
        let filter = format!("{tokens}.>");
        spawn_local(async move { shared.purge(&filter).await });
    }

    fn follow(&mut self, after: u64) {
        if let Some(delivery) = self.delivery.take() {
            delivery.abort();
        }
        let number = self.shared.delivery.get() + 1;
        self.shared.delivery.set(number);
        let task = spawn_local(deliver::deliver(self.shared.clone(), number, after));
        self.delivery = Some(task.abort_handle());
    }

    fn look(&mut self) -> bool {
        let signal = shared::Signal::Broken(self.shared.delivery.get());
        self.shared.signals.send(signal).is_ok()
    }

    fn max_entry_bytes(&self) -> usize {
        self.shared.max_payload.get()
    }

    fn take(&mut self) -> Vec<EngineEvent> {
        self.shared.events.take()
    }

    fn pause(&mut self, is_paused: bool) {
        self.shared.is_paused.set(is_paused);
        if !is_paused {
            self.shared.resumed.notify_one();
        }
    }
}

/// Sends entries in their order, and reads the answers.
async fn send(shared: Rc<EngineState>, mut appends: UnboundedReceiver<Append>) {
    let inbox = shared.client.new_inbox();
    let Ok(mut answers) = shared.client.subscribe(format!("{inbox}.*")).await else { return };
    let reader = shared.clone();
    spawn_local(async move {
        while let Some(answer) = answers.next().await {
            let number = answer.subject.rsplit('.').next().and_then(|text| text.parse().ok());
            let Some(number) = number else { continue };
            let none = answer.status == Some(StatusCode::NO_RESPONDERS);
            answered(&reader, number, (!none).then_some(&answer.payload));
        }
    });
    while let Some(append) = appends.recv().await {
        let headers = api::headers(&append);
        let Append { number, subject, body, .. } = append;
        shared.note_sent(number);
        let reply = format!("{inbox}.{number}");
        let client = &shared.client;
        let sent = client.publish_with_reply_and_headers(subject, reply, headers, body.into());
        if let Err(error) = sent.await {
            // It is larger than the engine's max_payload, so it was not sent.
            shared.log(&format!("an entry cannot be sent: {error}"));
            shared.events.put(EngineEvent::Refused { number, refusal: Refusal::Never });
        }
    }
}

/// Handles the answer to an entry; `None` says that nobody stores it.
fn answered(shared: &EngineState, number: u64, payload: Option<&[u8]>) {
    let reply = match payload {
        Some(payload) => serde_json::from_slice::<Acknowledgement>(payload).ok(),
        None => Some(Acknowledgement { seq: 0, error: Some(ApiError::default()) }),
    };
    let sent = shared.sent.borrow_mut().remove(&number);
    match reply {
        Some(Acknowledgement { seq, error: None }) if seq > 0 => {
            let took_ns = sent.map_or(0, |sent| sent.elapsed().as_nanos() as u64);
            shared.events.put(EngineEvent::Stored { number, sequence: seq, took_ns });
        }
        Some(Acknowledgement { error: Some(error), .. }) => {
            let refusal = error.refusal();
            if !error.description.is_empty() && refusal != Refusal::Conflict {
                shared.log(&format!("an entry was refused: {}", error.description));
            }
            shared.events.put(EngineEvent::Refused { number, refusal });
        }
        // An answer that says nothing is none.
        _ => {}
    }
}
