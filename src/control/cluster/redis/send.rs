//! Sends entries and reads the answers.

use super::link::ServerLink;
use super::script::{Outcome, number, outcome};
use super::shared::{RedisSignal, RedisState};
use crate::cluster::{Append, EngineEvent, Refusal};
use crate::config::ClusterAcks;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

/// The maximum number of entries that are sent together.
const BATCH: usize = 1024;
/// How long the server may take for them.
const ANSWER: Duration = Duration::from_secs(3);
/// How long a replica may take to have them, in milliseconds.
const REPLICA_MS: u64 = 1000;

/// Sends entries in their order, all that have waited together, until the connection with this
/// number is lost.
pub(super) async fn send(
    shared: Rc<RedisState>,
    mut link: ServerLink,
    life: u64,
    mut appends: UnboundedReceiver<Append>,
) {
    while let Some(first) = appends.recv().await {
        let mut batch = vec![first];
        while batch.len() < BATCH {
            let Ok(append) = appends.try_recv() else { break };
            batch.push(append);
        }
        if let Err(signal) = send_batch(&shared, &mut link, life, batch).await {
            let _ = shared.signals.send(signal);
        }
    }
}

async fn send_batch(
    shared: &RedisState,
    link: &mut ServerLink,
    life: u64,
    batch: Vec<Append>,
) -> Result<(), RedisSignal> {
    let waits = shared.cluster.acks == ClusterAcks::Replica;
    let epoch = shared.known.get().epoch;
    let mut pipeline = redis::pipe();
    for append in &batch {
        pipeline.add_command(shared.keys.append(append, epoch, &shared.cluster));
    }
    if waits {
        pipeline.cmd("WAIT").arg(1).arg(REPLICA_MS);
    }
    let began = Instant::now();
    let answers = link.ask_all(&pipeline, ANSWER).await;
    let mut answers = answers.map_err(|failure| RedisSignal::Lost(life, failure.to_string()))?;
    // Without a replica that has them they are not acknowledged, and so are sent again.
    let has_replica = match waits {
        true => matches!(answers.pop(), Some(Ok(count)) if number(&count) > Some(0)),
        false => true,
    };
    if !has_replica {
        shared.log("no replica of the engine has acknowledged what was stored");
    }
    let took_ns = began.elapsed().as_nanos() as u64;
    let mut signal = Ok(());
    for (append, answer) in batch.iter().zip(answers) {
        let number = append.number;
        let refused = |refusal| shared.events.put(EngineEvent::Refused { number, refusal });
        match outcome(answer) {
            Outcome::Stored(sequence) if has_replica => {
                shared.note_seen(epoch, sequence);
                shared.events.put(EngineEvent::Stored { number, sequence, took_ns });
            }
            Outcome::Stored(_) => {}
            Outcome::Refused(refusal) => refused(refusal),
            Outcome::Changed => {
                refused(Refusal::Later);
                signal = Err(RedisSignal::Changed(life));
            }
            Outcome::Moved(text) => {
                refused(Refusal::Later);
                signal = Err(RedisSignal::Lost(life, text));
            }
        }
    }
    signal
}
