//! The cost of TLS: the same messages to the same server, with and without TLS. The load uses
//! blocking sockets in both cases, so that the server gets the same batches.

use super::Plan;
use super::child::{Child, Kind};
use super::load::{Sample, connect};
use super::rig;
use super::rows::{CHANNEL, interleave, rates};
use super::table::Outcome;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The folder with the server's certificate and `ca.pem`, which verifies it.
pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

fn client() -> io::Result<Arc<ClientConfig>> {
    let ca = CertificateDer::from_pem_file(format!("{FIXTURES}/ca.pem"));
    let mut roots = RootCertStore::empty();
    roots.add(ca.map_err(io::Error::other)?).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A connection to `server`, with TLS if `client` is given.
fn open(server: &Child, client: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Wire>> {
    let stream: TcpStream = connect(server.address)?;
    let Some(client) = client else { return Ok(Box::new(stream)) };
    let name = "localhost".try_into().map_err(io::Error::other)?;
    let tls = ClientConnection::new(client.clone(), name).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(tls, stream)))
}

/// Sends `words` and reads until the received bytes end with `end`.
fn ask(wire: &mut dyn Wire, words: &[u8], end: &str) -> io::Result<usize> {
    wire.write_all(words)?;
    wire.flush()?;
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while !got.ends_with(end.as_bytes()) {
        match wire.read(&mut piece)? {
            0 => return Err(io::Error::other(String::from_utf8_lossy(&got).into_owned())),
            n => got.extend_from_slice(&piece[..n]),
        }
    }
    Ok(got.len())
}

/// Repeats `round`, which is `ops` operations, for `time`.
fn repeat(
    server: &Child,
    ops: u64,
    time: Duration,
    mut round: impl FnMut() -> io::Result<()>,
) -> io::Result<Sample> {
    round()?;
    let (start, cpu) = (Instant::now(), server.cpu());
    let mut sample = Sample::default();
    while start.elapsed() < time {
        round()?;
        sample.ops += ops;
    }
    Ok(Sample { cpu: server.cpu() - cpu, wall: start.elapsed(), ..sample })
}

pub fn echo(plan: &Plan, count: usize, payload: usize) -> io::Result<Outcome> {
    let frame = rig::masked(&vec![b'a'; payload]);
    let mut reply = vec![0; frame.len() - 4];
    let server = Child::start(Kind::Secure, plan.server)?;
    let plain = Child::start(Kind::Polycast, plan.server)?;
    let client = client()?;
    let wires = |server: &Child, client: Option<&Arc<ClientConfig>>| {
        let mut wires = Vec::new();
        for _ in 0..count {
            let mut wire = open(server, client)?;
            ask(&mut *wire, &rig::upgrade("/echo"), "\r\n\r\n")?;
            wires.push(wire);
        }
        io::Result::Ok(wires)
    };
    let (mut ours, mut base) = (wires(&server, Some(&client))?, wires(&plain, None)?);
    let mut run = |wires: &mut [Box<dyn Wire>], server: &Child, time| {
        repeat(server, count as u64, time, || {
            for wire in &mut *wires {
                wire.write_all(&frame)?;
                wire.flush()?;
            }
            wires.iter_mut().try_for_each(|wire| wire.read_exact(&mut reply))
        })
    };
    let run = std::cell::RefCell::new(&mut run);
    let (mut outcome, samples) = interleave(
        plan,
        |time| run.borrow_mut()(&mut ours, &server, time),
        |time| run.borrow_mut()(&mut base, &plain, time),
    )?;
    outcome.notes.push(format!("{}; the baseline is plain TCP", rates(&samples)));
    Ok(outcome)
}

pub fn fan_out(plan: &Plan, depth: usize) -> io::Result<Outcome> {
    const COUNT: usize = 200;
    let server = Child::start(Kind::Secure, plan.server)?;
    let plain = Child::start(Kind::Polycast, plan.server)?;
    let client = client()?;
    let unheard = rig::publish("nobody", rig::DATA);
    let mut answer = 0;
    let mut wires = |server: &Child, client: Option<&Arc<ClientConfig>>| {
        let mut from = open(server, client)?;
        answer = ask(&mut *from, &unheard, "{}")?;
        let mut wires = vec![from];
        for _ in 0..COUNT {
            let mut wire = open(server, client)?;
            ask(&mut *wire, &rig::upgrade(rig::APP_PATH), "}\"}")?;
            ask(&mut *wire, &rig::subscribe(CHANNEL), "\"{}\"}")?;
            wires.push(wire);
        }
        io::Result::Ok(wires)
    };
    let (mut ours, mut base) = (wires(&server, Some(&client))?, wires(&plain, None)?);
    let requests = rig::publish(CHANNEL, rig::DATA).repeat(depth);
    let frames = rig::pushed(CHANNEL, rig::DATA).len() * depth;
    let run = |wires: &mut [Box<dyn Wire>], server: &Child, time| {
        let mut bytes = vec![0; frames.max(answer * depth)];
        repeat(server, (depth * COUNT) as u64, time, || {
            wires[0].write_all(&requests)?;
            wires[0].flush()?;
            wires[0].read_exact(&mut bytes[..answer * depth])?;
            wires[1..].iter_mut().try_for_each(|wire| wire.read_exact(&mut bytes[..frames]))
        })
    };
    let (mut outcome, samples) = interleave(
        plan,
        |time| run(&mut ours, &server, time),
        |time| run(&mut base, &plain, time),
    )?;
    outcome.notes.push(format!("{}; the baseline is plain TCP", rates(&samples)));
    Ok(outcome)
}

/// As the row `idle`, with TLS: the memory of a connection, as the difference between some and all
/// of the connections.
pub fn idle(plan: &Plan) -> io::Result<Outcome> {
    let server = Child::start(Kind::SecureSmallPages, plan.server)?;
    let count = plan.idle.min(2000);
    let client = client()?;
    let mut wires = Vec::new();
    let mut open_to = |count: usize| {
        while wires.len() < count {
            let mut wire = open(&server, Some(&client))?;
            ask(&mut *wire, &rig::upgrade(rig::APP_PATH), "}\"}")?;
            ask(&mut *wire, &rig::subscribe(CHANNEL), "\"{}\"}")?;
            wires.push(wire);
        }
        std::thread::sleep(Duration::from_millis(900));
        server.memory()
    };
    let (first, all) = (open_to(count / 4)?, open_to(count)?);
    let each = (all as f64 - first as f64) / (count - count / 4) as f64;
    Ok(Outcome { ours: vec![each], base: Vec::new(), notes: Vec::new() })
}
