//! The delivery of the log from a position on.

use super::link::{REQUEST, RequestFailure, ServerLink};
use super::page::{self, EntryPage, PageSize};
use super::shared::{RedisSignal, RedisState};
use crate::cluster::EngineEvent;
use redis::{Cmd, Value, cmd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long the server waits for entries, in milliseconds.
const BLOCK_MS: u64 = 500;
/// The silence after which the delivery is interrupted.
const SILENCE: Duration = Duration::from_millis(1600);
/// The pause before an interrupted delivery begins again.
const AGAIN: Duration = Duration::from_millis(200);

/// Delivers the log until that is interrupted, and then reports it.
pub(super) async fn deliver(shared: Rc<RedisState>, delivery: u64, after: u64) {
    if let Err(failure) = run(&shared, after).await {
        if let RequestFailure::Refused { .. } = failure {
            shared.log(&format!("the log cannot be read: {failure}"));
        }
        tokio::time::sleep(AGAIN).await;
        let _ = shared.signals.send(RedisSignal::Broken(delivery));
    }
}

async fn run(shared: &RedisState, after: u64) -> Result<(), RequestFailure> {
    let mut link = shared.open().await?;
    let mut after = after;
    let mut is_live = false;
    let standstill = SILENCE.max(Duration::from_secs(shared.cluster.keep_s) / 2);
    loop {
        let began = Instant::now();
        shared.until_resumed().await;
        let size = shared.page_size.get();
        let asked = Instant::now();
        let page = match is_live {
            true => live(shared, &mut link, after, size).await,
            false => stored(shared, &mut link, after, size).await,
        };
        let took = page.as_ref().ok().map(|_| asked.elapsed());
        shared.page_size.set(size.after(took));
        let page = page?;
        // Entries that were to come next may have expired meanwhile.
        if began.elapsed() > standstill {
            return Err(RequestFailure::Lost("the delivery stood still".to_owned()));
        }
        // Entries that live longer than the stream keeps them are not in it, if they are before
        // those that came.
        let has_hole = page.entries.first().is_some_and(|first| first.sequence != after + 1);
        if is_live && has_hole {
            is_live = false;
            continue;
        }
        is_live = page.is_last;
        let is_empty = page.entries.is_empty();
        after = shared.put(page, after);
        if is_empty && is_live {
            shared.events.put(EngineEvent::Current);
        }
    }
}

/// Waits for entries after a position.
async fn live(
    shared: &RedisState,
    link: &mut ServerLink,
    after: u64,
    size: PageSize,
) -> Result<EntryPage, RequestFailure> {
    let mut read = cmd("XREAD");
    read.arg("COUNT").arg(size.entries()).arg("BLOCK").arg(BLOCK_MS);
    read.arg("STREAMS").arg(&shared.keys.log).arg(format!("{after}-0"));
    let answer = link.ask(&read, SILENCE).await?;
    page::of_xread(answer, size).ok_or_else(|| malformed("XREAD"))
}

/// Reads the next entries after a position, those that live longer among them.
async fn stored(
    shared: &RedisState,
    link: &mut ServerLink,
    after: u64,
    size: PageSize,
) -> Result<EntryPage, RequestFailure> {
    let mut pipeline = redis::pipe();
    for command in reads(shared, after, size) {
        pipeline.add_command(command);
    }
    let mut answers = link.ask_all(&pipeline, REQUEST).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Value::Nil));
    let (kept, stream, time) = (next()?, next()?, next()?);
    let now_ms = page::time_ms(time).ok_or_else(|| malformed("TIME"))?;
    let page = page::merged(kept, stream, size).ok_or_else(|| malformed("XRANGE"))?;
    Ok(page.without_expired(now_ms))
}

/// The kept entries are asked for first: an entry that leaves the stream meanwhile is among them.
fn reads(shared: &RedisState, after: u64, size: PageSize) -> [Cmd; 3] {
    let mut kept = cmd("ZRANGEBYSCORE");
    kept.arg(&shared.keys.kept).arg(format!("({after}")).arg("+inf");
    kept.arg("LIMIT").arg(0).arg(size.entries());
    let mut stream = cmd("XRANGE");
    stream.arg(&shared.keys.log).arg(format!("({after}-0")).arg("+");
    stream.arg("COUNT").arg(size.entries());
    [kept, stream, cmd("TIME")]
}

fn malformed(command: &str) -> RequestFailure {
    RequestFailure::Lost(format!("an answer to {command} is malformed"))
}

impl RedisState {
    async fn until_resumed(&self) {
        while self.is_paused.get() {
            self.resumed.notified().await;
        }
    }

    /// Delivers entries. Returns the position after them.
    fn put(&self, page: EntryPage, after: u64) -> u64 {
        let EntryPage { entries, is_last, end } = page;
        let last = entries.last().map_or(0, |last| last.sequence);
        for entry in entries {
            let is_last = is_last && entry.sequence == last;
            let (sequence, stored_ms, body) = (entry.sequence, entry.stored_ms, entry.body);
            self.events.put(EngineEvent::Entry { sequence, stored_ms, is_last, body });
        }
        let end = end.max(after);
        self.note_seen(self.known.get().epoch, end);
        end
    }
}
