//! Many members of presence channels with histories: each is a user with one connection, which
//! comes back as pusher-js does when a server has closed it, and resumes where it was.
//!
//! One thread runs some hundreds of members, so they must receive little: a member receives the
//! events of its own room, and the members of a room are few.

use crate::net::*;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The number of members of a room.
pub const ROOM: usize = 30;
/// The data of the last event of each room.
const LAST: usize = 999_999_999;

/// The room with this number.
pub fn room(number: usize) -> String {
    format!("presence-room-{number}")
}

/// What all threads of the swarm share.
pub struct Swarm {
    members: usize,
    /// Where members connect, each at the next one if one does not take it.
    addresses: Mutex<Vec<SocketAddr>>,
    /// The members that are in their rooms.
    present: AtomicUsize,
    /// The members that know of all others of their rooms.
    knowing: AtomicUsize,
    /// The members that have received the last event.
    done: AtomicUsize,
    /// How often a member has come back and was answered with `recovered: true`.
    recovered: AtomicUsize,
    /// Whether all have come, so that a report of a change of members is an error from now on.
    is_settled: AtomicBool,
    is_over: AtomicBool,
    /// The status of the answer to each publish, by its number; 0 if there was none.
    answers: Mutex<Vec<Publish>>,
    problems: Mutex<Vec<String>>,
}

/// A publish.
#[derive(Clone, Copy)]
struct Publish {
    publisher: usize,
    room: usize,
    status: u16,
}

/// How far the connection of a member is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Connected,
    Joining,
    Present,
}

struct Member {
    number: usize,
    /// The position of its address in the list.
    at: usize,
    stream: TcpStream,
    input: Vec<u8>,
    stage: Stage,
    position: Option<(String, u64)>,
    /// The users in its room, as far as they were reported to it before all had come.
    known: usize,
    /// The numbers of the events that it has received.
    heard: Vec<usize>,
    is_done: bool,
}

impl Swarm {
    pub fn new(members: usize, addresses: &[SocketAddr]) -> Arc<Swarm> {
        assert_eq!(members % ROOM, 0);
        Arc::new(Swarm {
            members,
            addresses: Mutex::new(addresses.to_vec()),
            present: AtomicUsize::new(0),
            knowing: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            recovered: AtomicUsize::new(0),
            is_settled: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            answers: Mutex::default(),
            problems: Mutex::default(),
        })
    }

    /// The number of rooms.
    pub fn rooms(&self) -> usize {
        self.members / ROOM
    }

    /// Lets members connect to another address instead of one.
    pub fn replace(&self, at: usize, address: SocketAddr) {
        self.addresses.lock().unwrap()[at] = address;
    }

    /// Waits until all members are in their rooms and know of each other. From then on a report of
    /// a change of members is an error.
    pub fn settle(&self) {
        self.wait("all members know each other", || {
            self.knowing.load(Ordering::Relaxed) == self.members
        });
        self.is_settled.store(true, Ordering::SeqCst);
    }

    /// Waits until all members are in their rooms.
    pub fn await_all(&self) {
        self.wait("all members are back", || self.present.load(Ordering::SeqCst) == self.members);
    }

    /// Waits for much longer than for one client; panics at the first problem.
    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            self.has_no_problem();
            assert!(
                begun.elapsed() < 6 * PATIENCE,
                "in vain: {what}; {} are present, {} know all, {} are done",
                self.present.load(Ordering::Relaxed),
                self.knowing.load(Ordering::Relaxed),
                self.done.load(Ordering::Relaxed),
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn has_no_problem(&self) {
        let problems = self.problems.lock().unwrap().clone();
        assert!(problems.is_empty(), "{:?}", &problems[..problems.len().min(9)]);
    }

    fn problem(&self, text: String) {
        self.problems.lock().unwrap().push(text);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// How often members have come back.
    pub fn returns(&self) -> usize {
        self.recovered.load(Ordering::SeqCst)
    }

    /// The number of publishes that were answered with this status, 0 for those without an answer.
    pub fn count(&self, status: u16) -> usize {
        self.answers.lock().unwrap().iter().filter(|it| it.status == status).count()
    }

    /// Publishes in all rooms by turns until the end, at most `per_s` events a second. Connects
    /// again, to another server, when a server has announced the end of its connection.
    pub fn publish(&self, publisher: usize, per_s: u64) {
        let mut kept: Option<Client> = None;
        let mut at = publisher;
        for turn in publisher.. {
            if self.is_over() {
                return;
            }
            let began = Instant::now();
            let number = {
                let mut answers = self.answers.lock().unwrap();
                answers.push(Publish { publisher, room: turn % self.rooms(), status: 0 });
                answers.len() - 1
            };
            let body = event_body(&room(turn % self.rooms()), &number.to_string());
            // The connection of a server that ends may be closed before it is used again.
            let mut client = kept.take().unwrap_or_else(|| {
                at += 1;
                self.connect(&mut at)
            });
            if let Some((status, ends)) = exchange(&mut client, &body) {
                self.answers.lock().unwrap()[number].status = status;
                kept = Some(client).filter(|_| !ends);
            }
            thread::sleep(Duration::from_micros(1_000_000 / per_s).saturating_sub(began.elapsed()));
        }
    }

    /// A connection to the first server from `at` on that takes one.
    fn connect(&self, at: &mut usize) -> Client {
        loop {
            let address = {
                let addresses = self.addresses.lock().unwrap();
                addresses[*at % addresses.len()]
            };
            if let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE) {
                return stream.into();
            }
            *at += 1;
        }
    }

    /// Ends the publishing, and publishes the last event of each room.
    pub fn end(&self, address: SocketAddr) {
        self.is_over.store(true, Ordering::SeqCst);
        // What was under way is answered by now, or not at all.
        thread::sleep(Duration::from_millis(100));
        let mut client = Client::connect(address);
        (0..self.rooms()).for_each(|number| client.publish(&room(number), &LAST.to_string()));
        self.wait("all members get the end", || self.done.load(Ordering::SeqCst) == self.members);
    }

    /// Runs a part of the members, one of `threads`, until all have the last event. Returns them
    /// with their connections, whose end would be reported to the members of other parts.
    fn run(self: &Arc<Swarm>, part: usize, threads: usize) -> Vec<Member> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut members = BTreeMap::new();
        for number in (part..self.members).step_by(threads) {
            let mut at = number;
            let stream = self.dial(number, &mut at, &poll);
            members.insert(number, Member::new(number, at, stream));
        }
        let mut events = Vec::with_capacity(1024);
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        while self.done.load(Ordering::SeqCst) < self.members
            && self.problems.lock().unwrap().is_empty()
        {
            events.clear();
            epoll::wait(&poll, spare_capacity(&mut events), Some(&pause)).unwrap();
            for event in &events {
                let number = event.data.u64() as usize;
                let member = members.get_mut(&number).expect("a member");
                if !member.reads(self) {
                    self.present.fetch_sub(usize::from(member.stage == Stage::Present), ORDER);
                    // To another node, as a balancer does, and not all to the same one.
                    member.at += 1 + number / 3 % 2;
                    member.stream = self.dial(number, &mut member.at, &poll);
                    (member.stage, member.input) = (Stage::Upgrading, Vec::new());
                }
            }
        }
        members.into_values().collect()
    }

    /// A connection of a member, which has asked for a WebSocket.
    fn dial(&self, number: usize, at: &mut usize, poll: impl std::os::fd::AsFd) -> TcpStream {
        let mut stream = self.connect(at).stream;
        let _ = stream.write_all(handshake(APP_PATH, "").as_bytes());
        stream.set_nonblocking(true).unwrap();
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(poll, &stream, data, epoll::EventFlags::IN).unwrap();
        stream
    }

    /// Judges which events of their rooms the members have received.
    fn judge(&self, members: &[Member]) {
        let answers = self.answers.lock().unwrap();
        let mut of_room: BTreeMap<usize, &[usize]> = BTreeMap::new();
        for Member { number, heard, .. } in members {
            let room = number / ROOM;
            // All are in their rooms all the time, so all receive the same.
            let first = of_room.entry(room).or_insert(heard);
            assert_eq!(first, heard, "{number} and another one of room {room}");
        }
        for (room, heard) in of_room {
            let unique: HashSet<usize> = heard.iter().copied().collect();
            assert_eq!(unique.len(), heard.len(), "twice in room {room}: {heard:?}");
            let mut last = BTreeMap::new();
            for number in heard {
                let Publish { publisher, room: of, status } = answers[*number];
                assert_eq!(of, room);
                assert_ne!(status, 503, "{number} was refused, and heard in room {room}");
                let before = (status == 200).then(|| last.insert(publisher, *number)).flatten();
                assert!(before.is_none_or(|it| it < *number), "{number} after {before:?}");
            }
            let mut owed = (0..answers.len())
                .filter(|it| answers[*it].room == room && answers[*it].status == 200);
            let lost = owed.find(|number| !unique.contains(number));
            assert_eq!(lost, None, "acknowledged, and not heard in room {room}: {heard:?}");
        }
    }
}

const ORDER: Ordering = Ordering::SeqCst;

/// Publishes; returns the status of the answer, and whether the connection ends with it.
fn exchange(client: &mut Client, body: &str) -> Option<(u16, bool)> {
    client.stream.write_all(&DEMO.request("POST", EVENTS, body)).ok()?;
    let mut text = String::new();
    let mut piece = [0; 2048];
    loop {
        let length = client.stream.read(&mut piece).ok().filter(|it| *it > 0)?;
        text += &String::from_utf8_lossy(&piece[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= field?.parse::<usize>().ok()? {
            let ends = head.to_ascii_lowercase().contains("connection: close");
            return Some((head.get(9..12)?.parse().ok()?, ends));
        }
    }
}

impl Member {
    fn new(number: usize, at: usize, stream: TcpStream) -> Member {
        let (input, heard, stage) = (Vec::new(), Vec::new(), Stage::Upgrading);
        let (position, known, is_done) = (None, 0, false);
        Member { number, at, stream, input, stage, position, known, heard, is_done }
    }

    /// Reads what has come. Returns false if the connection is to be replaced by another one.
    fn reads(&mut self, swarm: &Swarm) -> bool {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(length) => self.input.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        if self.stage == Stage::Upgrading {
            let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.input = input;
                return true;
            };
            if !rest.starts_with(b"HTTP/1.1 101") {
                // It is not one of the cluster any more, or not yet.
                return false;
            }
            (rest, self.stage) = (&rest[end + 4..], Stage::Connected);
        }
        while let Some((opcode, payload, behind)) = frame(rest) {
            rest = behind;
            match opcode {
                TEXT => self.takes(&String::from_utf8_lossy(payload), swarm),
                PING => self.sends(PONG, payload),
                CLOSE => {
                    let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                    if code != 4200 {
                        swarm.problem(format!("{} was closed with {code}", self.number));
                    }
                    return false;
                }
                _ => swarm.problem(format!("opcode {opcode}")),
            }
        }
        self.input = rest.to_vec();
        true
    }

    /// A connection that has ended is noticed by reading.
    fn sends(&mut self, opcode: u8, payload: &[u8]) {
        let _ = self.stream.write_all(&masked(true, opcode, payload));
    }

    fn takes(&mut self, text: &str, swarm: &Swarm) {
        if let Some(position) = position(text) {
            self.position = Some(position);
        }
        if let Some(rest) = text.strip_prefix(r#"{"event":"e","#) {
            let data = rest.split_once(r#""data":""#).and_then(|(_, rest)| rest.split_once('"'));
            match data.and_then(|(number, _)| number.parse().ok()) {
                Some(LAST) if !self.is_done => {
                    self.is_done = true;
                    swarm.done.fetch_add(1, ORDER);
                }
                Some(number) => self.heard.push(number),
                None => swarm.problem(text.to_owned()),
            }
        } else if text.contains("pusher:connection_established") {
            self.joins(text);
        } else if text.contains("subscription_succeeded") {
            self.joined(text, swarm);
        } else if text.contains("member_added") && !swarm.is_settled.load(ORDER) {
            self.knows(self.known + 1, swarm);
        } else if text.contains("pusher:ping") {
            self.sends(TEXT, br#"{"event":"pusher:pong","data":"{}"}"#);
        } else {
            swarm.problem(format!("{}: {text}", self.number));
        }
    }

    fn joins(&mut self, text: &str) {
        let id = text.split(r#"socket_id\":\""#).nth(1).and_then(|rest| rest.split('\\').next());
        let room = room(self.number / ROOM);
        let positions = self.position.as_ref().map_or(String::new(), |(stream, serial)| {
            format!(r#""{room}":{{"stream_id":"{stream}","serial":{serial}}}"#)
        });
        let resume = format!(r#"{{"channel_positions":{{{positions}}}}}"#);
        let resume = format!(r#"{{"event":"polycast:resume","data":{resume}}}"#);
        let data = format!(r#"{{"user_id":"u{}"}}"#, self.number);
        let auth = DEMO.auth(&format!("{}:{room}:{data}", id.unwrap_or_default()));
        let data = data.replace('"', r#"\""#);
        let data = format!(r#"{{"channel":"{room}","auth":"{auth}","channel_data":"{data}"}}"#);
        self.sends(TEXT, resume.as_bytes());
        let subscribe = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
        self.sends(TEXT, subscribe.as_bytes());
        self.stage = Stage::Joining;
    }

    fn joined(&mut self, text: &str, swarm: &Swarm) {
        let count = text.split(r#"\"count\":"#).nth(1).unwrap_or_default();
        let digits = count.split(|it: char| !it.is_ascii_digit()).next().unwrap_or_default();
        let count: usize = digits.parse().unwrap_or(0);
        if swarm.is_settled.load(ORDER) {
            let is_recovered = text.ends_with(r#""recovered":true}"#);
            if !is_recovered || count != ROOM {
                swarm.problem(format!("{}: {text}", self.number));
            }
            swarm.recovered.fetch_add(1, ORDER);
        } else {
            self.knows(count, swarm);
        }
        self.stage = Stage::Present;
        swarm.present.fetch_add(1, ORDER);
    }

    fn knows(&mut self, known: usize, swarm: &Swarm) {
        self.known = known;
        if known == ROOM {
            swarm.knowing.fetch_add(1, ORDER);
        }
    }
}

/// The position in a message that has one.
fn position(text: &str) -> Option<(String, u64)> {
    let (_, rest) = text.split_once(r#""stream_id":""#)?;
    let (stream, rest) = rest.split_once(r#"","serial":"#)?;
    let digits = rest.split(|it: char| !it.is_ascii_digit()).next()?;
    Some((stream.to_owned(), digits.parse().ok()?))
}

/// The opcode and payload of a server's first frame, and what follows it, if it is there as a
/// whole.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match head[1] {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u16::from_be_bytes(*length).into(), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length) as usize, rest)
        }
        length => (usize::from(length), rest),
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((head[0] & 0xf, payload, rest))
}

/// Runs members and publishers while `scene` runs, and judges what the members have received.
/// `scene` calls [`Swarm::end`] at its end.
pub fn run(
    swarm: &Arc<Swarm>,
    (threads, publishers, per_s): (usize, usize, u64),
    scene: impl FnOnce(),
) {
    let members = thread::scope(|scope| {
        let parts: Vec<_> =
            (0..threads).map(|part| scope.spawn(move || swarm.run(part, threads))).collect();
        // A scene that panics must not leave the others running.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            swarm.settle();
            for publisher in 0..publishers {
                scope.spawn(move || swarm.publish(publisher, per_s));
            }
            scene();
        }));
        swarm.is_over.store(true, ORDER);
        if let Err(panic) = outcome {
            // They may be the reason, because the members have ended.
            let problems = swarm.problems.lock().unwrap().clone();
            println!("{:?}", &problems[..problems.len().min(9)]);
            swarm.problem("the scene has ended".to_owned());
            std::panic::resume_unwind(panic);
        }
        parts.into_iter().flat_map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    swarm.has_no_problem();
    swarm.judge(&members);
}
