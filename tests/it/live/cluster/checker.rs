//! A checker of histories: publishers and subscribers write down what they sent, were answered and
//! heard, and in the end it is judged whether all of that fits together.
//!
//! - Each event is heard at most once by each connection.
//! - Any two connections hear the events that both hear of one channel in the same order.
//! - A publisher's events on a channel are heard in the order in which they were published, those
//!   whose outcome is not known excepted.
//! - An event that was acknowledged is heard by every connection that was subscribed all the time.
//! - An event that was refused with 503 is received by no client.

use crate::net::*;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What was published, with the status of the answer.
#[derive(Default)]
pub struct Checker {
    answers: Mutex<BTreeMap<String, u16>>,
}

/// A connection that was subscribed all the time.
pub struct Hearer {
    client: Client,
    /// Channel and data of each event, in the order in which they came.
    pub heard: Vec<(String, String)>,
}

impl Hearer {
    /// Hears this number of events.
    pub fn hear(&mut self, count: usize) {
        for _ in 0..count {
            self.hear_one();
        }
    }

    /// Hears events until one has this data.
    pub fn hear_until(&mut self, data: &str) {
        while self.heard.last().is_none_or(|(_, last)| last != data) {
            self.hear_one();
        }
    }

    /// Asserts that the server has sent nothing more.
    pub fn hear_nothing(&mut self) {
        self.client.sync();
    }

    fn hear_one(&mut self) {
        let text = self.client.text();
        let rest = text.strip_prefix(r#"{"event":"e","channel":""#);
        let found = rest.and_then(|rest| rest.split_once(r#"","data":""#));
        let (channel, data) = found.unwrap_or_else(|| panic!("{text}"));
        let data = data.strip_suffix("\"}").unwrap_or_else(|| panic!("{text}"));
        self.heard.push((channel.to_owned(), data.to_owned()));
    }

    fn of<'h>(&'h self, channel: &'h str) -> impl Iterator<Item = &'h str> {
        let heard = self.heard.iter().filter(move |(of, _)| of == channel);
        heard.map(|(_, data)| data.as_str())
    }
}

impl Checker {
    pub fn subscriber(&self, address: SocketAddr, channels: &[&str]) -> Hearer {
        let (mut client, _) = Client::app(address);
        channels.iter().for_each(|channel| client.subscribe(channel));
        Hearer { client, heard: Vec::new() }
    }

    /// Publishes event `n` of a publisher, and returns the status of the answer.
    pub fn publish(&self, client: &mut Client, channel: &str, publisher: usize, n: usize) -> u16 {
        let data = format!("{publisher}-{n}");
        client.send(&DEMO.request("POST", EVENTS, &event_body(channel, &data)));
        let status = client.response().status;
        self.note(channel, &data, status);
        status
    }

    /// Publishes at each of the addresses while `meanwhile` runs, with a pause after each event.
    /// The events of a publisher take the channels in turn.
    pub fn publish_while(
        &self,
        addresses: &[SocketAddr],
        channels: &[&str],
        pause: Duration,
        meanwhile: impl FnOnce(),
    ) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for (number, address) in addresses.iter().enumerate() {
                let over = &over;
                scope.spawn(move || {
                    let mut client = Client::connect(*address);
                    for n in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
                        self.publish(&mut client, channels[n % channels.len()], number, n);
                        thread::sleep(pause);
                    }
                });
            }
            // The publishers end if it panics, too.
            let outcome = panic::catch_unwind(AssertUnwindSafe(meanwhile));
            over.store(true, Ordering::Relaxed);
            outcome.unwrap_or_else(|panic| panic::resume_unwind(panic));
        });
    }

    fn note(&self, channel: &str, data: &str, status: u16) {
        self.answers.lock().unwrap().insert(format!("{channel} {data}"), status);
    }

    /// The number of publishes that were answered with this status.
    pub fn count(&self, status: u16) -> usize {
        self.answers.lock().unwrap().values().filter(|it| **it == status).count()
    }

    /// Panics if something does not fit.
    pub fn judge(&self, hearers: &[Hearer]) {
        if let Err(problem) = self.check(hearers) {
            panic!("{problem}");
        }
    }

    fn check(&self, hearers: &[Hearer]) -> Result<(), String> {
        let answers = self.answers.lock().unwrap();
        let channels: HashSet<&str> =
            answers.keys().filter_map(|key| Some(key.split_once(' ')?.0)).collect();
        for (number, hearer) in hearers.iter().enumerate() {
            for channel in &channels {
                let heard: Vec<&str> = hearer.of(channel).collect();
                let unique: HashSet<&str> = heard.iter().copied().collect();
                if unique.len() < heard.len() {
                    return Err(format!("{number} has heard something of {channel} twice"));
                }
                one_order(&heard, hearers[0].of(channel).collect())
                    .map_err(|it| format!("{number} and 0 on {channel}: {it}"))?;
                let status = |data: &str| answers.get(&format!("{channel} {data}")).copied();
                in_turn(heard.iter().copied().filter(|data| status(data) == Some(200)))
                    .map_err(|it| format!("{number} on {channel}: {it}"))?;
                if let Some(data) = heard.iter().find(|data| status(data) == Some(503)) {
                    return Err(format!("{number} has heard {data}, which was refused"));
                }
            }
            let heard: HashSet<String> =
                hearer.heard.iter().map(|(channel, data)| format!("{channel} {data}")).collect();
            let acknowledged = answers.iter().filter(|(_, status)| **status == 200);
            if let Some((lost, _)) = acknowledged.into_iter().find(|(key, _)| !heard.contains(*key))
            {
                return Err(format!("{number} has not heard {lost}, which was acknowledged"));
            }
        }
        Ok(())
    }
}

/// Whether two connections have heard in the same order what both have heard.
fn one_order(ours: &[&str], theirs: Vec<&str>) -> Result<(), String> {
    let common: HashSet<&str> = ours.iter().copied().filter(|it| theirs.contains(it)).collect();
    let of = |list: &[&str]| -> Vec<String> {
        list.iter().filter(|it| common.contains(**it)).map(|it| (*it).to_owned()).collect()
    };
    let (ours, theirs) = (of(ours), of(&theirs));
    match ours.iter().zip(&theirs).position(|(our, their)| our != their) {
        None => Ok(()),
        Some(at) => Err(format!("{} and {} at {at}", ours[at], theirs[at])),
    }
}

/// Whether each publisher's events come in its order.
fn in_turn<'h>(heard: impl Iterator<Item = &'h str>) -> Result<(), String> {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for data in heard {
        let Some((publisher, n)) = data.split_once('-') else { continue };
        let n: usize = n.parse().map_err(|_| data.to_owned())?;
        if last.insert(publisher, n).is_some_and(|before| before > n) {
            return Err(format!("{data} after a later one"));
        }
    }
    Ok(())
}

/// The checker finds what is planted.
#[test]
fn cluster_checker_finds_inversion_loss_repetition_and_a_lie() {
    let Some(server) = start(config()) else { return };
    let check = |lists: [&[&str]; 2], answers: &[(&str, u16)]| {
        let checker = Checker::default();
        answers.iter().for_each(|(data, status)| checker.note("c", data, *status));
        let hearers = lists.map(|list| {
            let mut hearer = checker.subscriber(server.addresses()[0], &[]);
            hearer.heard.extend(list.iter().map(|it| ("c".to_owned(), (*it).to_owned())));
            hearer
        });
        checker.check(&hearers).err().unwrap_or_default()
    };
    let ok: &[_] = &[("0-1", 200), ("1-1", 200)];
    assert_eq!(check([&["0-1", "1-1"], &["0-1", "1-1"]], ok), "");
    assert!(check([&["0-1", "1-1"], &["1-1", "0-1"]], ok).contains("at 0"));
    assert!(check([&["0-1", "1-1"], &["0-1"]], ok).contains("acknowledged"));
    assert!(check([&["0-1", "1-1", "0-1"], &["0-1", "1-1"]], ok).contains("twice"));
    assert!(check([&["0-1"], &["0-1"]], &[("0-1", 503)]).contains("refused"));
    let late: &[_] = &[("0-1", 200), ("0-2", 200)];
    assert!(check([&["0-2", "0-1"], &["0-2", "0-1"]], late).contains("after a later one"));
    // Whose outcome is not known may come late, or not.
    let unknown: &[_] = &[("0-1", 504), ("0-2", 200)];
    assert_eq!(check([&["0-2", "0-1"], &["0-2"]], unknown), "");
}
