//! Upgrades while clients connect and publish.

use super::child::*;
use super::upgrade::{Installed, wait_end};
use crate::net::*;
use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The number of subscribers that stay until they are closed, and then come again.
const SUBSCRIBERS: usize = 24;
const UPGRADES: usize = 3;
/// The number that ends the subscribers.
const LAST: usize = 999_999_999;

/// How long before the end of a subscription an event must be acknowledged that it must have got.
const TRAVEL: Duration = Duration::from_secs(1);

/// An acknowledged publish.
struct Publish {
    publisher: usize,
    number: usize,
    begun: Instant,
    ended: Instant,
}

/// What one subscription has received: when it was confirmed, when it ended, and the numbers.
struct Subscription {
    from: Instant,
    to: Instant,
    numbers: Vec<usize>,
}

/// What all threads of the load share.
struct Load {
    address: SocketAddr,
    stop: AtomicBool,
    /// Connects that were served.
    connects: AtomicUsize,
    publishes: Mutex<Vec<Publish>>,
    numbers: AtomicUsize,
    subscriptions: Mutex<Vec<Subscription>>,
    /// Publishes on a kept connection that was closed before the answer.
    kept_closed: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    fn new(address: SocketAddr) -> Load {
        Load {
            address,
            stop: AtomicBool::new(false),
            connects: AtomicUsize::new(0),
            publishes: Mutex::default(),
            numbers: AtomicUsize::new(0),
            subscriptions: Mutex::default(),
            kept_closed: AtomicUsize::new(0),
            failures: Mutex::default(),
        }
    }

    fn runs(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, text: String) {
        self.failures.lock().unwrap().push(text);
    }

    /// Opens a WebSocket again and again: each must be answered with 101.
    fn connect(&self) {
        while self.runs() {
            match answer(self.address, &handshake("/echo", "").into_bytes()) {
                Ok(text) if text.starts_with("HTTP/1.1 101") => {
                    self.connects.fetch_add(1, Ordering::Relaxed);
                }
                Ok(text) => self.fail(format!("connect: {text}")),
                Err(error) => self.fail(format!("connect: {error}")),
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Publishes numbers, each on a connection of its own, or on one that is kept until the server
    /// announces its end.
    fn publish(&self, publisher: usize, keeps: bool) {
        let mut kept: Option<TcpStream> = None;
        while self.runs() {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let request = publish("c", &number.to_string());
            let begun = Instant::now();
            let reused = kept.take();
            let was_kept = reused.is_some();
            let answered = match reused {
                Some(stream) => exchange(stream, &request),
                None => connect(self.address).and_then(|stream| exchange(stream, &request)),
            };
            match answered {
                Ok((text, stream)) if text.starts_with("HTTP/1.1 200") => {
                    let publish = Publish { publisher, number, begun, ended: Instant::now() };
                    self.publishes.lock().unwrap().push(publish);
                    let is_last = text.to_ascii_lowercase().contains("connection: close");
                    kept = Some(stream).filter(|_| keeps && !is_last);
                }
                Ok((text, _)) => self.fail(format!("publish {number}: {text}")),
                // A server may close an idle connection at any time.
                Err(_) if was_kept => _ = self.kept_closed.fetch_add(1, Ordering::Relaxed),
                Err(error) => self.fail(format!("publish {number}: {error}")),
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Subscribes, and again after each close.
    fn subscribe(&self) {
        while self.runs() {
            let mut client = Client::subscriber(self.address, "c");
            let from = Instant::now();
            let mut numbers = Vec::new();
            while let Some(frame) = client.try_frame() {
                let text = String::from_utf8(frame.payload).unwrap_or_default();
                let number = text.split(r#""data":""#).nth(1);
                let number = number.map(|rest| rest.trim_end_matches("\"}").parse().unwrap());
                numbers.extend(number);
                if frame.opcode != TEXT || number == Some(LAST) {
                    break;
                }
            }
            let subscription = Subscription { from, to: Instant::now(), numbers };
            self.subscriptions.lock().unwrap().push(subscription);
        }
    }

    /// What the subscriptions must have, and what of that is missing; and what came twice or before
    /// an earlier event of the same publisher.
    fn compare(&self) -> [usize; 3] {
        let publishes = self.publishes.lock().unwrap();
        let publisher_of: HashMap<usize, usize> =
            publishes.iter().map(|publish| (publish.number, publish.publisher)).collect();
        let [mut owed, mut missing, mut disordered] = [0; 3];
        for subscription in self.subscriptions.lock().unwrap().iter() {
            let mut last: HashMap<usize, usize> = HashMap::new();
            for number in &subscription.numbers {
                // An event that was not acknowledged has no known publisher, and is not owed.
                let Some(publisher) = publisher_of.get(number) else { continue };
                let before = last.insert(*publisher, *number);
                disordered += usize::from(before.is_some_and(|before| before >= *number));
            }
            let heard: HashSet<usize> = subscription.numbers.iter().copied().collect();
            for Publish { publisher, number, begun, ended } in publishes.iter() {
                // Whoever gets an event has got all earlier ones of the same publisher.
                let is_earlier = last.get(publisher).is_some_and(|last| number <= last);
                if *begun < subscription.from || !is_earlier && *ended + TRAVEL > subscription.to {
                    continue;
                }
                owed += 1;
                missing += usize::from(!heard.contains(number));
            }
        }
        [owed, missing, disordered]
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads the answer, which has no long body.
fn exchange(mut stream: TcpStream, request: &[u8]) -> std::io::Result<(String, TcpStream)> {
    stream.write_all(request)?;
    let mut text = String::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece)?;
        text += &String::from_utf8_lossy(&piece[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if length == 0 {
                return Err(std::io::Error::other(format!("the connection has ended: {text:?}")));
            }
            continue;
        };
        let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        if body.len() >= field.map_or(0, |length| length.parse().unwrap()) || length == 0 {
            return Ok((text, stream));
        }
    }
}

/// What a server answers to a request on a connection of its own.
pub fn answer(address: SocketAddr, request: &[u8]) -> std::io::Result<String> {
    Ok(exchange(connect(address)?, request)?.0)
}

#[test]
fn upgrade_under_load_loses_no_connect_no_request_and_no_event() {
    if !has_uring() {
        return;
    }
    let mut installed = Installed::start("upgrade-load", &format!("{BASE}drain_s = 15\n"));
    let load = Load::new(installed.process.address);
    std::thread::scope(|scope| {
        (0..4).for_each(|_| _ = scope.spawn(|| load.connect()));
        for (publisher, keeps) in [false, false, true].into_iter().enumerate() {
            let load = &load;
            scope.spawn(move || load.publish(publisher, keeps));
        }
        (0..SUBSCRIBERS).for_each(|_| _ = scope.spawn(|| load.subscribe()));
        sleep(Duration::from_millis(500));
        for _ in 0..UPGRADES {
            let before = Instant::now();
            let (old, _) = installed.upgrade();
            let taken = before.elapsed();
            wait_end(old);
            println!("ready after {taken:?}, the old process ended after {:?}", before.elapsed());
            sleep(Duration::from_millis(500));
        }
        // The subscribers wait for the last number.
        load.stop.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(300));
        let mut client = Client::connect(load.address);
        client.publish("c", &LAST.to_string());
    });
    assert_eq!(installed.process.ended().code(), Some(0));
    let failures = load.failures.lock().unwrap();
    let [owed, missing, disordered] = load.compare();
    let publishes = load.publishes.lock().unwrap().len();
    let (connects, kept) = (load.connects.into_inner(), load.kept_closed.into_inner());
    println!(
        "{UPGRADES} upgrades on {}: {connects} WebSockets opened and {publishes} events published, \
         {} failed, {kept} on a kept connection; {owed} deliveries owed, {missing} missing, \
         {disordered} twice or in another order",
        io(),
        failures.len()
    );
    assert!(failures.is_empty(), "{:?} {}", &failures[..], installed.process.logged());
    assert_eq!((missing, disordered), (0, 0), "{}", installed.process.logged());
    assert!(connects > 100 && publishes > 100 && owed > 1000, "{connects} {publishes} {owed}");
    assert!(kept <= UPGRADES, "{kept} requests on kept connections were not answered");
}
