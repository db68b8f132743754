//! Log lines to standard error, and events to standard output where they are asked for, without
//! ever making the server wait for them or fail.
//!
//! A bounded queue carries the lines to a thread of their own. If that thread cannot write (the
//! disk is full, the pipe is closed, its reader has stopped reading), lines are lost and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use polycast::config::{Log, LogFormat};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer};

use crate::events::EventLines;

/// Log lines that were lost since the start.
pub(crate) static LOG_WRITE_ERRORS: AtomicU64 = AtomicU64::new(0);

/// Lines that may wait to be written.
const QUEUE_LINES: usize = 1024;
/// How long the process waits at its end for the lines in the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts logging; the subscriber is for the whole process. Events are told as of `namespace`.
pub(crate) fn start(log: &Log, namespace: &str) -> Vec<Flush> {
    let (lines, flush) = LossyWriter::spawn(io::stderr());
    let mut flushes = vec![flush];
    let text = layer().with_writer(lines).with_ansi(false).log_internal_errors(false);
    let text = match log.format {
        LogFormat::Text => text.boxed(),
        LogFormat::Json => text.json().boxed(),
    };
    let events = log.events_to_stdout.then(|| {
        let (lines, flush) = LossyWriter::spawn(io::stdout());
        flushes.push(flush);
        // What is no event costs as little as without this layer.
        let is_event = filter_fn(|it| it.fields().field("event").is_some() && is_ours(it.target()));
        let is_event = is_event.with_max_level_hint(LevelFilter::DEBUG);
        EventLines::new(namespace, lines).with_filter(is_event)
    });
    let text = text.with_filter(EnvFilter::new(&log.level));
    if tracing_subscriber::registry().with(text).with(events).try_init().is_err() {
        LOG_WRITE_ERRORS.fetch_add(1, Ordering::Relaxed);
    }
    flushes
}

fn is_ours(target: &str) -> bool {
    target.split("::").next() == Some(env!("CARGO_PKG_NAME"))
}

/// A writer whose writes neither fail nor block; each write is one line.
#[derive(Clone)]
struct LossyWriter(SyncSender<Job>);

enum Job {
    Line(Vec<u8>),
    Done(SyncSender<()>),
}

impl LossyWriter {
    /// Starts the thread that writes to `out`. If it cannot be started, every line is lost and
    /// counted.
    fn spawn(out: impl Write + Send + 'static) -> (LossyWriter, Flush) {
        let (sender, jobs) = sync_channel(QUEUE_LINES);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // A failure drops the receiver, so that every later send fails and is counted.
        drop(thread.spawn(move || write_all(jobs, out)));
        (LossyWriter(sender.clone()), Flush(sender))
    }
}

fn write_all(jobs: Receiver<Job>, mut out: impl Write) {
    for job in jobs {
        match job {
            Job::Line(line) => {
                if out.write_all(&line).is_err() {
                    LOG_WRITE_ERRORS.fetch_add(1, Ordering::Relaxed);
                }
            }
            Job::Done(answer) => drop(answer.send(())),
        }
    }
}

impl Write for LossyWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Job::Line(line.to_vec())).is_err() {
            LOG_WRITE_ERRORS.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LossyWriter {
    type Writer = LossyWriter;

    fn make_writer(&self) -> LossyWriter {
        self.clone()
    }
}

/// When it is dropped, waits (at most a second) until the lines so far are written.
pub(crate) struct Flush(SyncSender<Job>);

impl Drop for Flush {
    fn drop(&mut self) {
        let (answer, done) = sync_channel(1);
        match self.0.try_send(Job::Done(answer)) {
            Ok(()) => drop(done.recv_timeout(FLUSH_TIMEOUT)),
            // The queue is full because nothing reads it: there is nothing to wait for.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::sync::Mutex;

    /// The process has one counter, and the tests of this file run in parallel.
    static COUNTING: Mutex<()> = Mutex::new(());

    fn lost(lines: usize, out: impl Write + Send + 'static) -> u64 {
        let _alone = COUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = LOG_WRITE_ERRORS.load(Ordering::Relaxed);
        let (mut writer, flush) = LossyWriter::spawn(out);
        for _ in 0..lines {
            assert_eq!(writer.write(b"a line\n").unwrap(), 7);
        }
        drop(flush);
        LOG_WRITE_ERRORS.load(Ordering::Relaxed) - before
    }

    #[test]
    fn log_counts_lines_lost_to_a_full_disk() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(lost(3, full), 3);
    }

    #[test]
    fn log_counts_lines_lost_to_a_closed_pipe() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(lost(3, writer), 3);
    }

    #[test]
    fn log_loses_lines_without_waiting_when_its_reader_stops() {
        let (reader, writer) = io::pipe().unwrap();
        // The pipe holds 64 KiB, which is less than 20 000 lines.
        let lost = lost(20_000, writer);
        assert!(lost > 0 && lost < 20_000, "{lost}");
        drop(reader);
    }

    #[test]
    fn log_writes_lines_in_order_before_the_end() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let (mut writer, flush) = LossyWriter::spawn(pipe);
        writer.write_all(b"one\n").unwrap();
        writer.write_all(b"two\n").unwrap();
        drop(flush);
        let mut text = [0; 8];
        io::Read::read_exact(&mut reader, &mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }
}
