//! The delivery of the log from a position on.

use super::super::api::{self, ConsumerInfo, Delivered};
use super::shared::{EngineState, Signal, request};
use crate::cluster::EngineEvent;
use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use std::rc::Rc;
use std::time::Duration;

/// The number of entries that are asked for at a time.
const ENTRIES: u64 = 256;
/// The maximum size of these entries in bytes.
const BYTES: u64 = 8 * 1024 * 1024;
/// How long the consumer waits for entries before it is asked again, in nanoseconds.
const EXPIRES_NS: u64 = 30_000_000_000;
/// The time between two heartbeats of a consumer without entries, in nanoseconds.
const HEARTBEAT_NS: u64 = 500_000_000;
/// The silence after which the delivery is interrupted: three heartbeats are missing.
const SILENCE: Duration = Duration::from_millis(1600);

/// Why the delivery of entries that were asked for has ended.
enum End {
    /// More can be asked for.
    Asked,
    /// The consumer or the connection is gone, or something is missing.
    Broken,
}

/// Delivers the log until that is interrupted, and then reports it.
pub(super) async fn deliver(shared: Rc<EngineState>, number: u64, after: u64) {
    if let Err(problem) = run(&shared, number, after).await {
        tracing::debug!(problem, "the delivery of the cluster's log is interrupted");
    }
    let _ = shared.signals.send(Signal::Broken(number));
}

async fn run(shared: &EngineState, number: u64, after: u64) -> Result<(), String> {
    let inbox = shared.client.new_inbox();
    let subscribed = shared.client.subscribe(inbox.clone()).await;
    let mut messages = subscribed.map_err(|error| error.to_string())?;
    let name = format!("{:016x}-{number}", shared.node);
    let create = format!("CONSUMER.CREATE.{}.{name}", shared.stream);
    let body = api::consumer(&shared.stream, &name, after).to_string();
    let info = request::<ConsumerInfo>(&shared.client, &create, body).await;
    let info = info.map_err(|error| error.description)?;
    if info.num_pending == 0 {
        shared.events.put(EngineEvent::Current);
    }
    let ask = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", shared.stream);
    let what = serde_json::json!({
        "batch": ENTRIES,
        "max_bytes": BYTES,
        "expires": EXPIRES_NS,
        "idle_heartbeat": HEARTBEAT_NS,
    });
    let what = what.to_string();
    let mut progress = Progress { delivered: 0, pending: info.num_pending };
    loop {
        while shared.is_paused.get() {
            shared.resumed.notified().await;
        }
        let asked =
            shared.client.publish_with_reply(ask.clone(), inbox.clone(), what.clone().into());
        asked.await.map_err(|error| error.to_string())?;
        match progress.take_asked(shared, &mut messages).await {
            End::Asked => {}
            End::Broken => return Ok(()),
        }
    }
}

/// How far the consumer is.
struct Progress {
    /// The number of the last delivery of the consumer.
    delivered: u64,
    /// The number of entries that were stored after the last one that was delivered.
    pending: u64,
}

impl Progress {
    /// Takes the entries that were asked for, until all of them are here or the time is over.
    async fn take_asked(&mut self, shared: &EngineState, messages: &mut Subscriber) -> End {
        let mut left = ENTRIES;
        while left > 0 {
            let next = tokio::time::timeout(SILENCE, messages.next()).await;
            let Ok(Some(message)) = next else { return End::Broken };
            match message.status {
                None => match self.entry(shared, message) {
                    true => left -= 1,
                    false => return End::Broken,
                },
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    if self.pending == 0 {
                        shared.events.put(EngineEvent::Current);
                    }
                }
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => return End::Asked,
                Some(StatusCode::REQUEST_TERMINATED) => {
                    // The entries that were asked for are as large as was allowed.
                    let text = message.description.unwrap_or_default();
                    let is_full = text.contains("MaxBytes") || text.contains("Completed");
                    return if is_full { End::Asked } else { End::Broken };
                }
                Some(_) => return End::Broken,
            }
        }
        End::Asked
    }

    /// Takes one entry. Returns false if a delivery before it is missing.
    fn entry(&mut self, shared: &EngineState, message: Message) -> bool {
        let Some(place) = message.reply.as_deref().and_then(Delivered::read) else { return false };
        if place.number != self.delivered + 1 {
            return false;
        }
        (self.delivered, self.pending) = (place.number, place.pending);
        shared.events.put(EngineEvent::Entry {
            sequence: place.sequence,
            stored_ms: place.stored_ms,
            is_last: place.pending == 0,
            body: message.payload.into(),
        });
        true
    }
}
