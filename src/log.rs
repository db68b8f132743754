//! Log lines to standard error and, if they are configured, events to standard output. Logging
//! never blocks the server and never makes it fail.
//!
//! A bounded queue carries the lines to a thread that writes them. Lines that the thread cannot
//! write (the disk is full, the pipe is closed, the reader of the pipe has stopped) are lost and
//! counted.

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

/// The maximum number of lines that wait to be written.
const QUEUE_LINES: usize = 1024;
/// Directives in front of the configured ones, which may name the same targets: the client of the
/// cluster's engine logs each attempt to connect, and what matters is logged by the cluster.
const QUIET_TARGETS: &str = "async_nats=off";
/// How long the process waits before its exit for the lines in the queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts logging for the whole process. `namespace` is the namespace in the lines of events.
pub(crate) fn start(log: &Log, namespace: &str) -> Vec<Flush> {
    let (lines, flush) = LossyWriter::spawn(io::stderr(), &LOG_WRITE_ERRORS);
    let mut flushes = vec![flush];
    let text = layer().with_writer(lines).with_ansi(false).log_internal_errors(false);
    let text = match log.format {
        LogFormat::Text => text.boxed(),
        LogFormat::Json => text.json().boxed(),
    };
    let events = log.events_to_stdout.then(|| {
        let (lines, flush) = LossyWriter::spawn(io::stdout(), &LOG_WRITE_ERRORS);
        flushes.push(flush);
        // Callsites that are no events are disabled for this layer, so they cost nothing here.
        let is_event = filter_fn(|it| it.fields().field("event").is_some() && is_ours(it.target()));
        let is_event = is_event.with_max_level_hint(LevelFilter::DEBUG);
        EventLines::new(namespace, lines).with_filter(is_event)
    });
    let text = text.with_filter(EnvFilter::new(format!("{QUIET_TARGETS},{}", log.level)));
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
struct LossyWriter {
    jobs: SyncSender<Job>,
    /// Counts the lines that are lost.
    lost: &'static AtomicU64,
}

enum Job {
    Line(Vec<u8>),
    Done(SyncSender<()>),
}

impl LossyWriter {
    /// Starts the thread that writes to `out`. Lost lines are counted in `lost`; these are all
    /// lines if the thread cannot be started.
    fn spawn(out: impl Write + Send + 'static, lost: &'static AtomicU64) -> (LossyWriter, Flush) {
        let (sender, jobs) = sync_channel(QUEUE_LINES);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // A failure drops the receiver, so that every later send fails and is counted.
        drop(thread.spawn(move || write_all(jobs, out, lost)));
        (LossyWriter { jobs: sender.clone(), lost }, Flush(sender))
    }
}

fn write_all(jobs: Receiver<Job>, mut out: impl Write, lost: &AtomicU64) {
    for job in jobs {
        match job {
            Job::Line(line) => {
                if out.write_all(&line).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
            Job::Done(answer) => drop(answer.send(())),
        }
    }
}

impl Write for LossyWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.jobs.try_send(Job::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
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

    /// A counter for one writer, because the tests of this file run in parallel.
    fn counter() -> &'static AtomicU64 {
        Box::leak(Box::default())
    }

    fn lost(lines: usize, out: impl Write + Send + 'static) -> u64 {
        let lost = counter();
        let (mut writer, flush) = LossyWriter::spawn(out, lost);
        for _ in 0..lines {
            assert_eq!(writer.write(b"a line\n").unwrap(), 7);
        }
        drop(flush);
        lost.load(Ordering::Relaxed)
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
        let (mut writer, flush) = LossyWriter::spawn(pipe, counter());
        writer.write_all(b"one\n").unwrap();
        writer.write_all(b"two\n").unwrap();
        drop(flush);
        let mut text = [0; 8];
        io::Read::read_exact(&mut reader, &mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }
}
