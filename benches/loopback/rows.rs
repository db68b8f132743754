//! The rows of the table: the connections of each, what they send, and what counts as one
//! operation.

use super::Plan;
use super::child::{Child, Kind, cpu_of};
use super::load::{Load, Sample, ask, connect, ends_with};
use super::rig;
use super::table::{Outcome, Row, Target, median};
use super::tls;
use polycast::uring::sys;
use std::io;
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

pub const ROWS: &[Row] = &[
    Row {
        name: "echo",
        what: "echo, 20 B, 200 connections, one message in flight each",
        unit: "us",
        target: Target::RatioAtMost(1.05),
        run: |plan| echo(plan, 200, 20),
    },
    Row {
        name: "echo512",
        what: "echo, 512 B, 1000 connections, one in flight each",
        unit: "us",
        target: Target::RatioAtMost(1.05),
        run: |plan| echo(plan, 1000, 512),
    },
    Row {
        name: "fan8",
        what: "64 B to 1000 subscribers, 8 publishes in flight",
        unit: "us",
        target: Target::RatioAtMost(1.25),
        run: |plan| fan_out(plan, 8, Kind::SendMessages),
    },
    Row {
        name: "fan1",
        what: "64 B to 1000 subscribers, one publish in flight",
        unit: "us",
        target: Target::RatioAtMost(1.1),
        run: |plan| fan_out(plan, 1, Kind::RingSends),
    },
    Row {
        name: "private",
        what: "signed subscribe and its end, against an echo of both",
        unit: "us",
        target: Target::RatioAtMost(1.5),
        run: subscribe_private,
    },
    Row {
        name: "api",
        what: "signed publish, keep-alive, 8 connections x 16 deep",
        unit: "us",
        target: Target::AtMost(6.667),
        run: publish,
    },
    Row {
        name: "publish",
        what: "publish by a WebSocket, 8 connections x 16 deep",
        unit: "us",
        target: Target::RatioAtMost(0.5),
        run: super::publisher::publish,
    },
    Row {
        name: "echo-tls",
        what: "echo through TLS 1.3, 512 B, 100 connections",
        unit: "us",
        target: Target::None,
        run: |plan| tls::echo(plan, 100, 512),
    },
    Row {
        name: "fan8-tls",
        what: "64 B to 200 subscribers through TLS 1.3, 8 in flight",
        unit: "us",
        target: Target::None,
        run: |plan| tls::fan_out(plan, 8),
    },
    Row {
        name: "idle-tls",
        what: "memory of an idle subscribed connection with TLS",
        unit: "bytes",
        target: Target::None,
        run: tls::idle,
    },
    Row {
        name: "idle",
        what: "memory of an idle subscribed connection",
        unit: "bytes",
        target: Target::AtMost(400.0),
        run: |plan| idle(plan, false),
    },
    Row {
        name: "idle-own",
        what: "the same, each subscribed to a channel of its own",
        unit: "bytes",
        target: Target::None,
        run: |plan| idle(plan, true),
    },
    Row {
        name: "block",
        what: "a block's events to 10 000 clients of 100 sets",
        unit: "us",
        target: Target::None,
        run: super::blocks::block,
    },
    Row {
        name: "cores",
        what: "deliveries of two shards on two cores, and of one",
        unit: "/us",
        target: Target::RatioAtLeast(1.8),
        run: cores,
    },
];

pub const HANDSHAKE_END: &str = "\r\n\r\n";
pub const CHANNEL: &str = "news";

pub(super) fn leak(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into())
}

/// Runs rounds of polycast and of the baseline alternately, so that a temporary disturbance of the
/// machine affects both.
pub fn interleave(
    plan: &Plan,
    mut ours: impl FnMut(Duration) -> io::Result<Sample>,
    mut base: impl FnMut(Duration) -> io::Result<Sample>,
) -> io::Result<(Outcome, Vec<Sample>)> {
    let mut outcome = Outcome::default();
    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        let (a, b) = if round % 2 == 0 {
            let a = ours(plan.time)?;
            (a, base(plan.time)?)
        } else {
            let b = base(plan.time)?;
            (ours(plan.time)?, b)
        };
        outcome.ours.push(a.us());
        outcome.base.push(b.us());
        samples.push(a);
        samples.push(b);
    }
    Ok((outcome, samples))
}

/// The operations per second and the CPU load of both servers.
pub fn rates(samples: &[Sample]) -> String {
    rates_of(samples, "polycast", "baseline")
}

/// The same, with the names of the two servers.
pub(super) fn rates_of(samples: &[Sample], ours: &str, base: &str) -> String {
    let of = |which: usize| {
        let every = || samples.iter().skip(which).step_by(2);
        let wall: f64 = every().map(|it| it.wall.as_secs_f64()).sum();
        let cpu: f64 = every().map(|it| it.cpu.as_secs_f64()).sum();
        let ops: u64 = every().map(|it| it.ops).sum();
        format!("{:.0}/s at {:.0} % of a core", ops as f64 / wall, 100.0 * cpu / wall)
    };
    format!("{ours} {}, {base} {}", of(0), of(1))
}

/// How much each of `counters` has grown for each count of `unit`.
pub(super) fn per(
    before: &std::collections::HashMap<String, u64>,
    after: &std::collections::HashMap<String, u64>,
    unit: &str,
    counters: &[&str],
) -> String {
    let grown = |name: &str| {
        let get = |map: &std::collections::HashMap<String, u64>| map.get(name).copied();
        (get(after).unwrap_or(0) - get(before).unwrap_or(0)) as f64
    };
    let each: Vec<String> = counters
        .iter()
        .map(|name| format!("{:.4} {name}", grown(name) / grown(unit).max(1.0)))
        .collect();
    format!("for each of {unit}: {}", each.join(", "))
}

fn echo(plan: &Plan, count: usize, payload: usize) -> io::Result<Outcome> {
    let frame = leak(rig::masked(&vec![b'a'; payload]));
    let reply = (frame.len() - 4) as u64;
    let mut server = Child::start(Kind::Polycast, plan.server)?;
    let bare = Child::start(Kind::Echo, plan.server)?;
    let mut ours = echoing(&server, count)?;
    let streams = (0..count).map(|_| connect(bare.address)).collect::<io::Result<_>>()?;
    let mut base = Load::new(streams)?;
    let before = server.stats();
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.echo(&server, frame, reply, time),
        |time| base.echo(&bare, frame, reply, time),
    )?;
    let after = server.stats();
    outcome.notes.push(rates(&samples));
    outcome.notes.push(per(&before, &after, "messages_received", &["turns", "sends"]));
    Ok(outcome)
}

/// Connections to the echo endpoint.
pub(super) fn echoing(server: &Child, count: usize) -> io::Result<Load> {
    let upgrade = rig::upgrade("/echo");
    let open = || {
        let mut stream = connect(server.address)?;
        ask(&mut stream, &upgrade, ends_with(HANDSHAKE_END))?;
        Ok(stream)
    };
    Load::new((0..count).map(|_| open()).collect::<io::Result<_>>()?)
}

/// One operation is a subscription to a private channel, which is answered, and its unsubscription,
/// which is not. The baseline is polycast's echo of the same bytes.
fn subscribe_private(plan: &Plan) -> io::Result<Outcome> {
    const COUNT: usize = 200;
    let mut server = Child::start(Kind::Polycast, plan.server)?;
    let echo = Child::start(Kind::Polycast, plan.server)?;
    let (mut ours, mut base, mut words) = (Vec::new(), Vec::new(), Vec::new());
    let mut reply = 0;
    for at in 0..COUNT {
        let mut stream = connect(server.address)?;
        let hello = ask(&mut stream, &rig::upgrade(rig::APP_PATH), ends_with("}\"}"))?;
        let frames = rig::subscribe_private(&hello, &format!("private-{at:03}"));
        let own = leak(frames.concat());
        let answer = ask(&mut stream, own, ends_with("\"{}\"}"))?;
        if !String::from_utf8_lossy(&answer).contains("subscription_succeeded") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
        reply = answer.len() as u64;
        words.push(own);
        ours.push(stream);
        let mut stream = connect(echo.address)?;
        ask(&mut stream, &rig::upgrade("/echo"), ends_with(HANDSHAKE_END))?;
        base.push(stream);
    }
    let (mut ours, mut base) = (Load::new(ours)?, Load::new(base)?);
    // All have the same length; the two frames are echoed without their masks.
    let echoed = words[0].len() as u64 - 8;
    let before = server.stats();
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.echo_own(&server, &words, reply, time),
        |time| base.echo_own(&echo, &words, echoed, time),
    )?;
    let after = server.stats();
    outcome.notes.push(rates(&samples));
    outcome.notes.push(per(&before, &after, "messages_received", &["turns", "sends"]));
    Ok(outcome)
}

/// A connection that has subscribed to `channel` and received the confirmation.
fn subscriber(server: &Child, channel: &str) -> io::Result<TcpStream> {
    let mut stream = connect(server.address)?;
    ask(&mut stream, &rig::upgrade(rig::APP_PATH), ends_with("}\"}"))?;
    let succeeded = |got: &[u8]| {
        let text = String::from_utf8_lossy(got);
        text.contains("subscription_succeeded") && text.ends_with("\"{}\"}")
    };
    ask(&mut stream, &rig::subscribe(channel), succeeded)?;
    Ok(stream)
}

/// A connection that has published once, and the length of the response.
pub(super) fn publisher(server: &Child, request: &[u8]) -> io::Result<(TcpStream, usize)> {
    let mut stream = connect(server.address)?;
    let answer = ask(&mut stream, request, ends_with("{}"))?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok((stream, answer.len())),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
    }
}

/// A publisher and its subscribers, and what they send and receive.
pub(super) struct FanOut {
    pub(super) load: Load,
    /// The bytes of one event, as a subscriber receives it.
    pub(super) frame: usize,
    /// The bytes of the response to one publish.
    pub(super) answer: usize,
}

impl FanOut {
    pub(super) const COUNT: usize = 1000;

    pub(super) fn new(server: &Child) -> io::Result<FanOut> {
        let (from, answer) = publisher(server, &rig::publish("nobody", rig::DATA))?;
        let mut streams = vec![from];
        for _ in 0..FanOut::COUNT {
            streams.push(subscriber(server, CHANNEL)?);
        }
        let frame = rig::pushed(CHANNEL, rig::DATA);
        let first = publisher(server, &rig::publish(CHANNEL, rig::DATA))?;
        for stream in &mut streams[1..] {
            if ask(stream, b"", |got| got.len() >= frame.len())? != frame {
                return Err(io::Error::other("another frame than the expected one came"));
            }
        }
        drop(first);
        Ok(FanOut { load: Load::new(streams)?, frame: frame.len(), answer })
    }
}

fn fan_out(plan: &Plan, depth: usize, kind: fn(usize, usize) -> Kind) -> io::Result<Outcome> {
    const COUNT: usize = FanOut::COUNT;
    let mut server = Child::start(Kind::Polycast, plan.server)?;
    let request = rig::publish(CHANNEL, rig::DATA);
    let unheard = rig::publish("nobody", rig::DATA);
    let FanOut { load: mut ours, frame, answer } = FanOut::new(&server)?;

    let bare = Child::start(kind(COUNT, frame), plan.server)?;
    let streams = (0..=COUNT).map(|_| connect(bare.address)).collect::<io::Result<_>>()?;
    let mut base = Load::new(streams)?;

    let ops = (depth * COUNT) as u64;
    let bytes = ops * frame as u64;
    let answers = (depth * answer) as u64;
    let (requests, events) = (leak(request.repeat(depth)), leak(vec![b'.'; depth]));
    let before = server.stats();
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.rounds(&server, requests, bytes + answers, ops, time),
        |time| base.rounds(&bare, events, bytes, ops, time),
    )?;
    let after = server.stats();
    let alone = leak(unheard.repeat(depth));
    let alone = ours.rounds(&server, alone, answers, depth as u64, plan.time)?.us();
    outcome.notes.push(rates(&samples));
    outcome.notes.push(per(&before, &after, "deliveries", &["turns", "sends", "http_requests"]));
    outcome.notes.push(format!(
        "polycast's CPU includes the publishes; one that nobody hears costs {alone:.2} us, which \
         is {:.4} us of each delivery",
        alone / COUNT as f64
    ));
    Ok(outcome)
}

fn publish(plan: &Plan) -> io::Result<Outcome> {
    const CONNECTIONS: usize = 8;
    const DEPTH: usize = 16;
    let mut server = Child::start(Kind::Polycast, plan.server)?;
    let request = rig::publish("nobody", rig::DATA);
    let mut streams = Vec::new();
    let mut answer = 0;
    for _ in 0..CONNECTIONS {
        let (stream, len) = publisher(&server, &request)?;
        answer = len;
        streams.push(stream);
    }
    let mut ours = Load::new(streams)?;
    let bare = Child::start(Kind::Canned(request.len(), answer), plan.server)?;
    let streams = (0..CONNECTIONS).map(|_| connect(bare.address)).collect::<io::Result<_>>()?;
    let mut base = Load::new(streams)?;
    let requests = leak(request.repeat(DEPTH));
    let answers = (answer * DEPTH) as u64;
    let each = |sample: Sample| Sample { ops: sample.ops * DEPTH as u64, ..sample };
    let before = server.stats();
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.echo(&server, requests, answers, time).map(each),
        |time| base.echo(&bare, requests, answers, time).map(each),
    )?;
    let after = server.stats();
    if after.get("http_errors") != Some(&0) {
        return Err(io::Error::other("requests were refused"));
    }
    outcome.notes.push(rates(&samples));
    outcome.notes.push(per(
        &before,
        &after,
        "http_requests",
        &["turns", "sends", "received_bytes"],
    ));
    if let Some(us) = median(&outcome.ours) {
        outcome.notes.push(format!("one core does {:.0} publishes a second", 1e6 / us));
    }
    outcome.notes.push("the baseline counts bytes and sends canned answers".to_owned());
    Ok(outcome)
}

/// Measures the memory of an idle connection, as the difference between some and all of the
/// connections, so that the costs of the first connections (touched buffers, new tables) are left
/// out.
fn idle(plan: &Plan, own: bool) -> io::Result<Outcome> {
    let server = Child::start(Kind::SmallPages, plan.server)?;
    let (each, note) = idle_memory(plan, &server, own)?;
    Ok(Outcome { ours: vec![each], base: Vec::new(), notes: vec![note] })
}

/// The memory of one idle connection in bytes, and a note about all of it.
pub(super) fn idle_memory(plan: &Plan, server: &Child, own: bool) -> io::Result<(f64, String)> {
    let limit = sys::raise_file_limit()? as usize;
    let count = plan.idle.min(limit.saturating_sub(200));
    let part = count / 4;
    let mut streams = Vec::new();
    let mut open_to = |count: usize| {
        while streams.len() < count {
            let name = if own { format!("news-{}", streams.len()) } else { CHANNEL.to_owned() };
            streams.push(subscriber(server, &name)?);
        }
        // Two sweeps happen in this time; they free the memory that an idle connection does not
        // need.
        std::thread::sleep(Duration::from_millis(900));
        server.memory()
    };
    let empty = server.memory()?;
    let first = open_to(part)?;
    let all = open_to(count)?;
    let each = (all as f64 - first as f64) / (count - part) as f64;
    let note = format!(
        "RssAnon {:.1} MiB empty, {:.1} MiB with {part}, {:.1} MiB with {count} connections",
        empty as f64 / 1048576.0,
        first as f64 / 1048576.0,
        all as f64 / 1048576.0
    );
    Ok((each, note))
}

/// The deliveries per microsecond of CPU time, of shards on `cores`, each with its own channels and
/// without a kernel. On a machine with two cores, a second reactor cannot be measured together with
/// a load.
fn shards(cores: &[usize], time: Duration) -> io::Result<f64> {
    const SUBSCRIBERS: usize = 100;
    let common = rig::common(cores.len() as u16);
    let barrier = Barrier::new(cores.len());
    let work = |core: usize| {
        let mut rig = rig::Rig::new(core as u16, &common);
        sys::pin(cores[core])?;
        let name = (0..).map(|n| format!("news-{n}")).find(|name| rig.is_home_of(name));
        let name = name.unwrap_or_default();
        for _ in 0..SUBSCRIBERS {
            rig.subscriber(&name);
        }
        let from = rig.open();
        let requests = rig::publish(&name, rig::DATA).repeat(8);
        barrier.wait();
        let (start, cpu) = (Instant::now(), cpu_of(libc::CLOCK_THREAD_CPUTIME_ID));
        let mut frames = 0;
        while start.elapsed() < time {
            rig.hear(from, &requests);
            frames += rig.drain().0 - 1;
        }
        let cpu = cpu_of(libc::CLOCK_THREAD_CPUTIME_ID) - cpu;
        Ok(frames as f64 / cpu.as_secs_f64() / 1e6)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> =
            (0..cores.len()).map(|core| scope.spawn(move || work(core))).collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|it| it.unwrap_or_else(|_| Err(io::Error::other("a panic")))).sum()
    })
}

fn cores(plan: &Plan) -> io::Result<Outcome> {
    if plan.server == plan.load {
        return Err(io::Error::other("SKIPPED, because there is one core only"));
    }
    let mut outcome = Outcome::default();
    for _ in 0..plan.rounds {
        outcome.ours.push(shards(&[plan.server, plan.load], plan.time)?);
        outcome.base.push(shards(&[plan.server], plan.time)?);
    }
    let note = "shards without a kernel, 8 publishes to 100 subscribers a turn, each in its own \
                CPU time: with a kernel, two cores have no third one for the load";
    outcome.notes.push(note.to_owned());
    Ok(outcome)
}
