//! The delivery of the log from a position on.

use super::super::api::{self, ConsumerInfo, Delivered};
use super::shared::{Consumer, EngineState, Signal, request};
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

/// The first and the longest pause before a consumer that was refused is asked for again, in
/// milliseconds.
const PAUSE_MS: (u64, u64) = (200, 3200);

/// Why the delivery of entries that were asked for has ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// More can be asked for.
    Asked,
    /// The next entry is larger than was allowed.
    TooLarge,
    /// The consumer or the connection is lost, or something is missing.
    Broken,
    /// The server has refused to deliver, for this reason.
    Refused(String),
}

/// Delivers the log until that is interrupted, and then reports it.
pub(super) async fn deliver(shared: Rc<EngineState>, number: u64, after: u64) {
    if let Err(problem) = run(&shared, number, after).await {
        await_consumer(&shared, number, after, problem).await;
    }
    let _ = shared.signals.send(Signal::Broken(number));
}

/// Reports that the log cannot be read, and tries until there is a consumer again, which the next
/// delivery takes. Without one the node would begin again with each attempt, as if it could read.
async fn await_consumer(shared: &EngineState, number: u64, after: u64, problem: String) {
    let mut problem = problem;
    loop {
        shared.log(&format!("the log cannot be read: {problem}"));
        let _ = shared.signals.send(Signal::Unreadable(number));
        let failures = shared.failures.get();
        shared.failures.set(failures.saturating_add(1));
        tokio::time::sleep(pause(failures)).await;
        match create(shared, number, after).await {
            Ok(consumer) => return drop(shared.consumer.replace(Some(consumer))),
            Err(other) => problem = other,
        }
    }
}

/// The pause after so many failures.
fn pause(failures: u32) -> Duration {
    let (first, longest) = PAUSE_MS;
    Duration::from_millis((first << failures.min(8)).min(longest))
}

/// Makes a consumer.
///
/// # Errors
/// The server refuses it, or does not answer.
async fn create(shared: &EngineState, number: u64, after: u64) -> Result<Consumer, String> {
    let name = format!("{:016x}-{number}", shared.node);
    let what = format!("CONSUMER.CREATE.{}.{name}", shared.stream);
    let body = api::consumer(&shared.stream, &name, after).to_string();
    let info = request::<ConsumerInfo>(&shared.client, &what, body).await;
    let pending = info.map_err(|error| error.description)?.num_pending;
    Ok(Consumer { name, after, pending })
}

async fn run(shared: &EngineState, number: u64, after: u64) -> Result<(), String> {
    let inbox = shared.client.new_inbox();
    let subscribed = shared.client.subscribe(inbox.clone()).await;
    let mut messages = subscribed.map_err(|error| error.to_string())?;
    let made = shared.consumer.take().filter(|consumer| consumer.after == after);
    let consumer = match made {
        Some(consumer) => consumer,
        None => create(shared, number, after).await?,
    };
    if consumer.pending == 0 {
        shared.events.put(EngineEvent::Current);
    }
    let ask = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", shared.stream, consumer.name);
    let mut progress = Progress { delivered: 0, pending: consumer.pending };
    let mut wanted = (ENTRIES, Some(BYTES));
    loop {
        while shared.is_paused.get() {
            shared.resumed.notified().await;
        }
        let what = question(wanted.0, wanted.1);
        let asked = shared.client.publish_with_reply(ask.clone(), inbox.clone(), what.into());
        asked.await.map_err(|error| error.to_string())?;
        wanted = match progress.take_asked(shared, &mut messages, wanted.0).await {
            End::Asked => (ENTRIES, Some(BYTES)),
            // It comes alone, as large as it is.
            End::TooLarge => (1, None),
            End::Broken => return Ok(()),
            End::Refused(problem) => return Err(problem),
        }
    }
}

/// The request for so many entries with at most these bytes.
fn question(entries: u64, bytes: Option<u64>) -> String {
    let mut question = serde_json::json!({
        "batch": entries,
        "expires": EXPIRES_NS,
        "idle_heartbeat": HEARTBEAT_NS,
    });
    if let Some(bytes) = bytes {
        question["max_bytes"] = bytes.into();
    }
    question.to_string()
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
    async fn take_asked(
        &mut self,
        shared: &EngineState,
        messages: &mut Subscriber,
        entries: u64,
    ) -> End {
        let mut taken = 0;
        while taken < entries {
            let next = tokio::time::timeout(SILENCE, messages.next()).await;
            let Ok(Some(message)) = next else { return End::Broken };
            let Some(status) = message.status else {
                if !self.entry(shared, message) {
                    return End::Broken;
                }
                taken += 1;
                continue;
            };
            if status != StatusCode::IDLE_HEARTBEAT {
                return self.ended(status, message.description.unwrap_or_default(), taken > 0);
            }
            shared.failures.set(0);
            if self.pending == 0 {
                shared.events.put(EngineEvent::Current);
            }
        }
        shared.failures.set(0);
        End::Asked
    }

    /// Why the server ends a request, by its status. `has_entries` says that the request has had
    /// some.
    fn ended(&mut self, status: StatusCode, text: String, has_entries: bool) -> End {
        match status {
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                // Those that were still stored have expired.
                if !has_entries {
                    self.pending = 0;
                }
                End::Asked
            }
            StatusCode::REQUEST_TERMINATED => match text {
                // A limit of the server or of the account, which the next request exceeds as well.
                text if text.starts_with("Exceeded") => End::Refused(text),
                // The entries that were asked for are as large as was allowed.
                text if text.contains("MaxBytes") && !has_entries => End::TooLarge,
                text if text.contains("MaxBytes") || text.contains("Completed") => End::Asked,
                _ => End::Broken,
            },
            _ => End::Broken,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: StatusCode, text: &str, has_entries: bool) -> (End, u64) {
        let mut progress = Progress { delivered: 7, pending: 1 };
        let end = progress.ended(status, text.to_owned(), has_entries);
        assert_eq!(progress.delivered, 7);
        (end, progress.pending)
    }

    /// The last entry was still stored when the one before it was delivered, and has expired.
    #[test]
    fn cluster_nothing_is_stored_after_a_request_that_had_no_entry() {
        for status in [StatusCode::TIMEOUT, StatusCode::NOT_FOUND] {
            assert_eq!(ended(status, "Request Timeout", false), (End::Asked, 0));
            assert_eq!(ended(status, "Request Timeout", true), (End::Asked, 1));
        }
    }

    #[test]
    fn cluster_request_for_entries_ends_by_its_status() {
        let of = |text: &str, has| ended(StatusCode::REQUEST_TERMINATED, text, has);
        assert_eq!(of("Message Size Exceeds MaxBytes", true), (End::Asked, 1));
        assert_eq!(of("Message Size Exceeds MaxBytes", false), (End::TooLarge, 1));
        assert_eq!(of("Batch Completed", true), (End::Asked, 1));
        for text in ["Exceeded MaxRequestBatch of 100", "Exceeded MaxRequestMaxBytes of 1024"] {
            assert_eq!(of(text, false), (End::Refused(text.to_owned()), 1));
        }
        assert_eq!(of("Consumer Deleted", false), (End::Broken, 1));
        assert_eq!(ended(StatusCode::NO_RESPONDERS, "", false), (End::Broken, 1));
    }

    #[test]
    fn cluster_refused_consumer_is_asked_for_with_growing_pauses() {
        for (failures, ms) in [(0, 200), (1, 400), (4, 3200), (5, 3200), (u32::MAX, 3200)] {
            assert_eq!(pause(failures), Duration::from_millis(ms), "{failures}");
        }
    }
}
