//! NATS with a bare client: what an append and a delivery cost without polycast.

use super::clock::due;
use super::engine::Engine;
use super::table::{Latencies, Row};
use super::{CHANNELS, DATA_BYTES, ENTRY_BYTES, Plan};
use async_nats::HeaderMap;
use futures_util::StreamExt;
use std::io;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Appends at the rate of the plan, and measures.
pub fn run(plan: &Plan, nats: &Engine) -> io::Result<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(plan, nats)).map_err(io::Error::other)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn measure(plan: &Plan, nats: &Engine) -> Result<Row, Failure> {
    let urls = nats.urls();
    let (sender, receiver) = (async_nats::connect(&urls).await?, async_nats::connect(&urls).await?);
    let begin = Instant::now();
    let stream = serde_json::json!({
        "name": "bare", "subjects": ["bare.>"], "storage": "file", "num_replicas": nats.count(),
        "discard": "new", "max_bytes": 1 << 30, "duplicate_window": 20_000_000_000_u64,
        "allow_msg_ttl": true, "allow_rollup_hdrs": true,
    });
    ask(&sender, "STREAM.CREATE.bare", &stream).await?;
    // Each run has a consumer of its own, which begins behind what is stored.
    let name = format!("c{}", begin.elapsed().as_nanos());
    let inbox = receiver.new_inbox();
    let mut deliveries = receiver.subscribe(inbox.clone()).await?;
    let consumer = serde_json::json!({
        "stream_name": "bare",
        "config": {
            "name": name, "deliver_subject": inbox, "deliver_policy": "new", "ack_policy": "none",
            "replay_policy": "instant", "mem_storage": true,
        },
    });
    ask(&sender, &format!("CONSUMER.CREATE.bare.{name}"), &consumer).await?;
    let replies = sender.new_inbox();
    let mut answers = sender.subscribe(format!("{replies}.*")).await?;
    let (count, before) = (plan.count(), nats.cpu()?);
    let begin = Instant::now() + Duration::from_millis(100);
    let filler = "x".repeat(DATA_BYTES + ENTRY_BYTES - 8);
    let publish = async {
        for number in 0..count {
            tokio::time::sleep_until(due(plan, begin, number).into()).await;
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", format!("{:016x}-{number}", begin.elapsed().as_nanos()));
            headers.insert("Nats-TTL", "60s");
            let (subject, reply) =
                (format!("bare.{}", number % CHANNELS), format!("{replies}.{number}"));
            let body = format!("{number:08}{filler}").into_bytes().into();
            sender.publish_with_reply_and_headers(subject, reply, headers, body).await?;
        }
        Ok::<_, Failure>(())
    };
    let answered = async {
        let mut latencies = Latencies::default();
        for _ in 0..count {
            let answer = answers.next().await.ok_or("the connection ended")?;
            if answer.payload.windows(7).any(|it| it == b"\"error\"") {
                return Err(String::from_utf8_lossy(&answer.payload).into_owned().into());
            }
            let number = answer.subject.rsplit('.').next().and_then(|text| text.parse().ok());
            latencies.push(due(plan, begin, number.ok_or("not an answer")?).elapsed());
        }
        Ok::<_, Failure>(latencies)
    };
    let delivered = async {
        let mut latencies = Latencies::default();
        for _ in 0..count {
            let entry = deliveries.next().await.ok_or("the connection ended")?;
            let number = entry.payload.get(..8).and_then(|it| str::from_utf8(it).ok());
            let number = number.and_then(|text| text.parse().ok()).ok_or("not an entry")?;
            latencies.push(due(plan, begin, number).elapsed());
        }
        Ok::<_, Failure>(latencies)
    };
    let all = async { tokio::try_join!(publish, answered, delivered) };
    let ((), acknowledged, delivered) = tokio::time::timeout(plan.time + PATIENCE, all)
        .await
        .map_err(|_| "entries are missing")??;
    let engine_us = (nats.cpu()? - before).as_secs_f64() * 1e6 / count as f64;
    ask(&sender, "STREAM.DELETE.bare", &serde_json::json!({})).await?;
    Ok(Row { delivered, acknowledged, engine_us, nodes_us: None, name: "" })
}

async fn ask(
    client: &async_nats::Client,
    what: &str,
    body: &serde_json::Value,
) -> Result<(), Failure> {
    let answer = client.request(format!("$JS.API.{what}"), body.to_string().into()).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    match answer.get("error") {
        None => Ok(()),
        Some(error) => Err(format!("{what}: {error}").into()),
    }
}
