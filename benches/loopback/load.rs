//! The load: many connections on one ring. The ring is polled and the thread never sleeps, so that
//! the server's CPU time has no wake-up of this thread in it.

use super::child::Child;
use super::ring::{RECEIVE, Ring, SEND};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long a run may be without a completion before it is given up.
const STALL: Duration = Duration::from_secs(5);

/// The cost of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub ops: u64,
    pub cpu: Duration,
    pub wall: Duration,
}

impl Sample {
    /// Server CPU time of one operation, in microseconds.
    pub fn us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.ops.max(1) as f64
    }
}

/// Makes a connection, in blocking mode for the handshake.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    Ok(stream)
}

/// Sends `words` and reads until `enough` accepts the received bytes.
pub fn ask(
    stream: &mut TcpStream,
    words: &[u8],
    enough: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    stream.write_all(words)?;
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while !enough(&got) {
        match stream.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(0) => {
                let text = String::from_utf8_lossy(&got).into_owned();
                return Err(io::Error::other(format!("the server hung up after {text:?}")));
            }
            Ok(n) => got.extend_from_slice(&piece[..n]),
        }
    }
    Ok(got)
}

pub fn ends_with(end: &str) -> impl Fn(&[u8]) -> bool {
    move |got| got.ends_with(end.as_bytes())
}

/// Connections to one server.
pub struct Load {
    ring: Ring,
    _streams: Vec<TcpStream>,
    done: Vec<super::ring::Done>,
    /// Bytes that each connection has received.
    received: Vec<u64>,
    total: u64,
    progress: Instant,
}

impl Load {
    pub fn new(streams: Vec<TcpStream>) -> io::Result<Load> {
        let mut ring = Ring::new(2048, 2048)?;
        let files: Vec<i32> = streams.iter().map(AsRawFd::as_raw_fd).collect();
        ring.io.submitter().register_files(&files)?;
        for index in 0..files.len() as u32 {
            ring.receive(index)?;
        }
        let received = vec![0; files.len()];
        let mut load = Load {
            ring,
            _streams: streams,
            done: Vec::new(),
            received,
            total: 0,
            progress: Instant::now(),
        };
        load.turn(&mut Vec::new())?;
        Ok(load)
    }

    /// Reaps the completions; the connections that have received bytes are added to `received`.
    fn turn(&mut self, received: &mut Vec<u32>) -> io::Result<()> {
        self.ring.turn(false, &mut self.done)?;
        let now = Instant::now();
        if self.done.is_empty() {
            if now - self.progress > STALL {
                let total = self.total;
                return Err(io::Error::other(format!("nothing comes after {total} bytes")));
            }
            // This helps only on a machine where the server shares this core.
            std::thread::yield_now();
            return Ok(());
        }
        self.progress = now;
        for at in 0..self.done.len() {
            let done = self.done[at];
            if done.op == SEND {
                let error = io::Error::from_raw_os_error(-done.result);
                return Err(io::Error::other(format!("a send: {error}")));
            }
            if let Some(buffer) = done.filled() {
                self.ring.buffers.give(buffer);
                self.received[done.index as usize] += done.result as u64;
                self.total += done.result as u64;
                received.push(done.index);
            }
            if done.op == RECEIVE && !done.more() {
                if done.result <= 0 && done.result != -libc::ENOBUFS {
                    return Err(io::Error::other("the server hung up"));
                }
                self.ring.receive(done.index)?;
            }
        }
        self.done.clear();
        Ok(())
    }

    /// Every connection sends `frame`, and sends it again after it has received `reply` bytes.
    pub fn echo(
        &mut self,
        server: &Child,
        frame: &'static [u8],
        reply: u64,
        time: Duration,
    ) -> io::Result<Sample> {
        let frames = vec![frame; self.received.len()];
        self.echo_own(server, &frames, reply, time)
    }

    /// As [`Load::echo`], with a different frame for each connection.
    pub fn echo_own(
        &mut self,
        server: &Child,
        frames: &[&'static [u8]],
        reply: u64,
        time: Duration,
    ) -> io::Result<Sample> {
        self.received.fill(0);
        self.progress = Instant::now();
        let count = self.received.len();
        for index in 0..count as u32 {
            self.ring.send(index, frames[index as usize])?;
        }
        let (mut under_way, mut ops) = (count, 0_u64);
        let mut from: Option<(Instant, Duration, u64)> = None;
        let mut sample = None;
        let begun = Instant::now();
        let mut received = Vec::new();
        while under_way > 0 {
            self.turn(&mut received)?;
            for index in received.drain(..) {
                let received = &mut self.received[index as usize];
                if *received < reply {
                    continue;
                }
                *received -= reply;
                ops += 1;
                match sample {
                    None => self.ring.send(index, frames[index as usize])?,
                    Some(_) => under_way -= 1,
                }
            }
            match from {
                None if begun.elapsed() > time / 8 => {
                    from = Some((Instant::now(), server.cpu(), ops));
                }
                Some((start, cpu, before)) if sample.is_none() && start.elapsed() > time => {
                    sample = Some(Sample {
                        ops: ops - before,
                        cpu: server.cpu() - cpu,
                        wall: start.elapsed(),
                    });
                }
                _ => {}
            }
        }
        sample.ok_or_else(|| io::Error::other("no sample"))
    }

    /// Sends `words` on connection 0. Returns how many bytes all connections receive until none
    /// arrives for a second.
    pub fn until_quiet(&mut self, words: &'static [u8]) -> io::Result<u64> {
        self.progress = Instant::now();
        self.total = 0;
        self.ring.send(0, words)?;
        let mut received = Vec::new();
        while self.total == 0 || self.progress.elapsed() < Duration::from_secs(1) {
            received.clear();
            self.turn(&mut received)?;
        }
        Ok(self.total)
    }

    /// Sends `words` on connection 0 once, and waits until all connections together have received
    /// `answer` bytes. That is `ops` operations.
    pub fn once(
        &mut self,
        server: &Child,
        words: &'static [u8],
        answer: u64,
        ops: u64,
    ) -> io::Result<Sample> {
        self.progress = Instant::now();
        let (start, cpu) = (Instant::now(), server.cpu());
        let mut received = Vec::new();
        self.total = 0;
        self.ring.send(0, words)?;
        while self.total < answer {
            received.clear();
            self.turn(&mut received)?;
        }
        match self.total == answer {
            true => Ok(Sample { ops, cpu: server.cpu() - cpu, wall: start.elapsed() }),
            false => Err(io::Error::other("more has come than was asked for")),
        }
    }

    /// Sends `words` on connection 0 repeatedly for `time`, each time after all connections
    /// together have received `answer` bytes. Each such round is `ops` operations.
    pub fn rounds(
        &mut self,
        server: &Child,
        words: &'static [u8],
        answer: u64,
        ops: u64,
        time: Duration,
    ) -> io::Result<Sample> {
        self.progress = Instant::now();
        let mut received = Vec::new();
        let mut round = |load: &mut Load| {
            load.total = 0;
            load.ring.send(0, words)?;
            while load.total < answer {
                received.clear();
                load.turn(&mut received)?;
            }
            match load.total == answer {
                true => Ok(()),
                false => Err(io::Error::other("more has come than was asked for")),
            }
        };
        let begun = Instant::now();
        while begun.elapsed() < time / 8 {
            round(self)?;
        }
        let (start, cpu) = (Instant::now(), server.cpu());
        let mut done = 0;
        while start.elapsed() < time {
            round(self)?;
            done += ops;
        }
        Ok(Sample { ops: done, cpu: server.cpu() - cpu, wall: start.elapsed() })
    }
}
