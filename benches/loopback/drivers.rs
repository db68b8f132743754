//! The rows that compare polycast's two drivers: epoll, with io_uring as the baseline.

use super::Plan;
use super::child::{Child, Kind};
use super::rig;
use super::rows::{CHANNEL, FanOut, echoing, idle_memory, interleave, leak, per, rates_of};
use super::table::{Outcome, Row, Target};
use std::io;

pub const ROWS: &[Row] = &[
    Row {
        name: "echo",
        what: "echo, 20 B, 200 connections, one message in flight each",
        unit: "us",
        target: Target::None,
        run: |plan| echo(plan, 200, 20),
    },
    Row {
        name: "fan8",
        what: "64 B to 1000 subscribers, 8 publishes in flight",
        unit: "us",
        target: Target::None,
        run: |plan| fan_out(plan, 8),
    },
    Row {
        name: "fan1",
        what: "64 B to 1000 subscribers, one publish in flight",
        unit: "us",
        target: Target::None,
        run: |plan| fan_out(plan, 1),
    },
    Row {
        name: "idle",
        what: "memory of an idle subscribed connection",
        unit: "bytes",
        target: Target::None,
        run: idle,
    },
];

/// A server on epoll and one on io_uring.
fn pair(plan: &Plan, kind: Kind) -> io::Result<(Child, Child)> {
    let on = |driver| Child::start_on(driver, kind, plan.server);
    Ok((on("epoll")?, on("io_uring")?))
}

/// What the two servers did for each count of `unit`.
fn notes(servers: [(&str, &mut Child); 2], unit: &str, counters: &[&str]) -> Vec<String> {
    let nothing = Default::default();
    let note = |(driver, server): (&str, &mut Child)| {
        format!("{driver}: {}", per(&nothing, &server.stats(), unit, counters))
    };
    servers.into_iter().map(note).collect()
}

fn echo(plan: &Plan, count: usize, payload: usize) -> io::Result<Outcome> {
    let frame = leak(rig::masked(&vec![b'a'; payload]));
    let reply = (frame.len() - 4) as u64;
    let (mut epoll, mut ring) = pair(plan, Kind::Polycast)?;
    let (mut ours, mut base) = (echoing(&epoll, count)?, echoing(&ring, count)?);
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.echo(&epoll, frame, reply, time),
        |time| base.echo(&ring, frame, reply, time),
    )?;
    outcome.notes.push(rates_of(&samples, "epoll", "io_uring"));
    let servers = [("epoll", &mut epoll), ("io_uring", &mut ring)];
    outcome.notes.extend(notes(servers, "messages_received", &["turns", "sends"]));
    Ok(outcome)
}

fn fan_out(plan: &Plan, depth: usize) -> io::Result<Outcome> {
    let (mut epoll, mut ring) = pair(plan, Kind::Polycast)?;
    let (mut ours, mut base) = (FanOut::new(&epoll)?, FanOut::new(&ring)?);
    let ops = (depth * FanOut::COUNT) as u64;
    let bytes = ops * ours.frame as u64 + (depth * ours.answer) as u64;
    let requests = leak(rig::publish(CHANNEL, rig::DATA).repeat(depth));
    let (mut outcome, samples) = interleave(
        plan,
        |time| ours.load.rounds(&epoll, requests, bytes, ops, time),
        |time| base.load.rounds(&ring, requests, bytes, ops, time),
    )?;
    outcome.notes.push(rates_of(&samples, "epoll", "io_uring"));
    let servers = [("epoll", &mut epoll), ("io_uring", &mut ring)];
    outcome.notes.extend(notes(servers, "deliveries", &["turns", "sends"]));
    Ok(outcome)
}

fn idle(plan: &Plan) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    for (driver, values) in [("epoll", &mut outcome.ours), ("io_uring", &mut outcome.base)] {
        let server = Child::start_on(driver, Kind::SmallPages, plan.server)?;
        let (each, note) = idle_memory(plan, &server, false)?;
        values.push(each);
        outcome.notes.push(format!("{driver}: {note}"));
    }
    Ok(outcome)
}
