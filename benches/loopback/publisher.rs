//! The row of publishers: what a publish on an authenticated WebSocket costs, against a signed
//! request of the HTTP API.

use super::Plan;
use super::child::{Child, Kind};
use super::load::{Load, Sample, ask, connect, ends_with};
use super::rig;
use super::rows::{interleave, leak, per, publisher, rates};
use super::table::{Outcome, median};
use std::io;
use std::net::TcpStream;

/// The connections of each side, and the publishes in flight on each.
const CONNECTIONS: usize = 8;
const DEPTH: usize = 16;

/// A connection that has authenticated and published once, and the length of the answer.
fn authenticated(server: &Child, frame: &[u8]) -> io::Result<(TcpStream, usize)> {
    let mut stream = connect(server.address)?;
    let hello = ask(&mut stream, &rig::upgrade(rig::APP_PATH), ends_with("}\"}"))?;
    ask(&mut stream, &rig::authenticate(&hello), ends_with("\"publisher\"}}"))?;
    let answer = ask(&mut stream, frame, ends_with("}}"))?;
    match answer.ends_with(br#"{"event":"polycast:published","data":{"id":1}}"#) {
        true => Ok((stream, answer.len())),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())),
    }
}

pub fn publish(plan: &Plan) -> io::Result<Outcome> {
    let mut server = Child::start(Kind::Polycast, plan.server)?;
    let api = Child::start(Kind::Polycast, plan.server)?;
    let frame = rig::publish_frame("nobody", rig::DATA);
    let request = rig::publish("nobody", rig::DATA);
    let (mut ours, mut base, mut answer, mut response) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..CONNECTIONS {
        let (stream, len) = authenticated(&server, &frame)?;
        answer = len;
        ours.push(stream);
        let (stream, len) = publisher(&api, &request)?;
        response = len;
        base.push(stream);
    }
    let (mut ours, mut base) = (Load::new(ours)?, Load::new(base)?);
    let (frames, requests) = (leak(frame.repeat(DEPTH)), leak(request.repeat(DEPTH)));
    let (answers, responses) = ((answer * DEPTH) as u64, (response * DEPTH) as u64);
    let each = |sample: Sample| Sample { ops: sample.ops * DEPTH as u64, ..sample };
    let before = server.stats();
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.echo(&server, frames, answers, time).map(each),
        |time| base.echo(&api, requests, responses, time).map(each),
    )?;
    let after = server.stats();
    if after.get("publishes_refused") != Some(&0) {
        return Err(io::Error::other("publishes were refused"));
    }
    outcome.notes.push(rates(&samples));
    outcome.notes.push(per(&before, &after, "published", &["turns", "sends", "received_bytes"]));
    if let (Some(us), Some(base)) = (median(&outcome.ours), median(&outcome.base)) {
        let (socket, api) = (1e6 / us, 1e6 / base);
        let text = format!("one core does {socket:.0} publishes a second, by the API {api:.0}");
        outcome.notes.push(text);
    }
    outcome.notes.push("the baseline is polycast's signed HTTP API".to_owned());
    Ok(outcome)
}
