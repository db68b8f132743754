//! Requests and frames that the benchmarks send to a server, and a shard without a kernel that they
//! can be given to.

#![allow(dead_code, reason = "each bench uses a part of this")]

use polycast::config::Config;
use polycast::crypto::{HmacKey, hex, md5};
use polycast::dialect::Env;
use polycast::hub::Hasher;
use polycast::mem::Slot;
use polycast::shard::{Common, Shard};
use polycast::stats::Counters;
use polycast::time::Now;
use polycast::ws::{Opcode, frame};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The masking key of every frame.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The event name of every publish.
const EVENT: &str = "tick";

/// The seconds since 1970, which a signed request must contain.
pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A WebSocket handshake request for `path`.
pub fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    .into_bytes()
}

/// The path of the demo application's WebSocket.
pub const APP_PATH: &str = "/app/app-key?protocol=7&client=bench&version=1";

/// A masked text frame.
pub fn masked(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, Opcode::Text, payload, Some(KEY));
    out
}

/// A client's subscription to a public channel.
pub fn subscribe(channel: &str) -> Vec<u8> {
    masked(format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#).as_bytes())
}

/// The frames of a signed subscription to a private channel and of its end, for a connection that
/// has received the greeting `hello`.
pub fn subscribe_private(hello: &[u8], channel: &str) -> [Vec<u8>; 2] {
    let auth = sign(hello, channel);
    let begin = format!(r#"{{"channel":"{channel}","auth":"{auth}"}}"#);
    let end = format!(r#"{{"channel":"{channel}"}}"#);
    [("subscribe", begin), ("unsubscribe", end)].map(|(verb, data)| {
        masked(format!(r#"{{"event":"pusher:{verb}","data":{data}}}"#).as_bytes())
    })
}

/// The signature of `text` for a connection that has received the greeting `hello`, with the key.
fn sign(hello: &[u8], text: &str) -> String {
    let hello = String::from_utf8_lossy(hello);
    let after = hello.split(r#"socket_id\":\""#).nth(1).unwrap_or_default();
    let socket = after.split('\\').next().unwrap_or_default();
    let text = format!("{socket}:{text}");
    let signature = hex::<32, 64>(&HmacKey::new(b"app-secret").sign(&[text.as_bytes()]));
    format!("app-key:{}", String::from_utf8_lossy(&signature))
}

/// The frame by which a connection that has received the greeting `hello` becomes a publisher.
pub fn authenticate(hello: &[u8]) -> Vec<u8> {
    let data = format!(r#"{{"auth":"{}","role":"publisher"}}"#, sign(hello, "polycast:publisher"));
    masked(format!(r#"{{"event":"polycast:authenticate","data":{data}}}"#).as_bytes())
}

/// The frame with which a publisher publishes what [`publish`] does.
pub fn publish_frame(channel: &str, data: &str) -> Vec<u8> {
    let event = format!(r#""name":"{EVENT}","channels":["{channel}"],"data":"{data}""#);
    masked(format!(r#"{{"event":"polycast:publish","data":{{"id":1,{event}}}}}"#).as_bytes())
}

/// A signed HTTP request that publishes `data`, which must need no JSON escapes, on `channel`.
pub fn publish(channel: &str, data: &str) -> Vec<u8> {
    let body = format!(r#"{{"name":"{EVENT}","channels":["{channel}"],"data":"{data}"}}"#);
    let digest = hex::<16, 32>(&md5(body.as_bytes()));
    let query = format!(
        "auth_key=app-key&auth_timestamp={}&auth_version=1.0&body_md5={}",
        unix_s(),
        String::from_utf8_lossy(&digest),
    );
    let text = format!("POST\n/apps/1/events\n{query}");
    let signature = hex::<32, 64>(&HmacKey::new(b"app-secret").sign(&[text.as_bytes()]));
    format!(
        "POST /apps/1/events?{query}&auth_signature={} HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        String::from_utf8_lossy(&signature),
        body.len(),
    )
    .into_bytes()
}

/// The frame that a subscriber receives for [`publish`].
pub fn pushed(channel: &str, data: &str) -> Vec<u8> {
    let text = format!(r#"{{"event":"{EVENT}","channel":"{channel}","data":"{data}"}}"#);
    frame::frozen(Opcode::Text, text.as_bytes())
}

/// The data of every publish in the fan-out benchmarks: 64 bytes.
pub const DATA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The state that all shards of one benchmark share.
pub fn common(cores: u16) -> Common {
    common_of(Config::demo(), cores)
}

/// The state that all shards share with this configuration.
pub fn common_of(mut config: Config, cores: u16) -> Common {
    config.pusher.activity_timeout_s = 86_400;
    Common {
        env: Arc::new(Env::new(config, 1).unwrap()),
        hasher: Hasher::new(7),
        cores,
        mail_bound: 4096,
    }
}

/// A shard that is driven as a reactor drives it.
pub struct Rig {
    pub shard: Shard,
    now: Now,
    cores: u16,
    opened: u32,
    input: Vec<u8>,
}

impl Rig {
    pub fn new(core: u16, common: &Common) -> Rig {
        let shard = Shard::new(core, common, Arc::new(Counters::default()));
        Rig {
            shard,
            now: Now { ms: 1, unix_s: unix_s() },
            cores: common.cores,
            opened: 0,
            input: Vec::new(),
        }
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// Opens a connection.
    pub fn open(&mut self) -> Slot {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let slot = self.shard.open(self.opened, peer, self.now);
        self.opened += 1;
        slot
    }

    /// Opens a WebSocket at `path`.
    pub fn socket(&mut self, path: &str) -> Slot {
        let slot = self.open();
        self.hear(slot, &upgrade(path));
        self.drain();
        slot
    }

    /// Opens a WebSocket and subscribes it to `channel`.
    pub fn subscriber(&mut self, channel: &str) -> Slot {
        let slot = self.socket(APP_PATH);
        self.hear(slot, &subscribe(channel));
        self.drain();
        slot
    }

    /// Opens a WebSocket at `path` and sends `message` on it.
    pub fn socket_with(&mut self, path: &str, message: &str) -> Slot {
        let slot = self.socket(path);
        self.hear(slot, &masked(message.as_bytes()));
        self.drain();
        slot
    }

    /// Opens a subscriber of `channel` and closes it.
    pub fn visit(&mut self, channel: &str) {
        let slot = self.subscriber(channel);
        self.shard.close(slot);
        self.opened -= 1;
    }

    /// Whether this shard is the home of `channel`.
    pub fn is_home_of(&mut self, channel: &str) -> bool {
        let slot = self.subscriber(channel);
        let asked = self.shard.mail().is_empty();
        self.shard.close(slot);
        self.opened -= 1;
        for core in 0..self.cores {
            self.shard.mail().to(core).up.clear();
        }
        asked
    }

    /// Gives the shard received bytes. They are copied first, because the shard changes them in
    /// place.
    pub fn hear(&mut self, slot: Slot, bytes: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(bytes);
        self.shard.receive(slot, &mut self.input, self.now);
    }

    /// Takes every batch and reports it as sent. Returns the number of segments and of bytes.
    pub fn drain(&mut self) -> (usize, usize) {
        let (mut segments, mut total) = (0, 0);
        while let Some(slot) = self.shard.next_listed() {
            if self.shard.wants(slot).is_none() {
                continue;
            }
            let Some(mut batch) = self.shard.take_batch(slot) else { continue };
            let bytes = batch.iter().map(|segment| segment.len()).sum();
            segments += batch.len();
            total += bytes;
            batch.clear();
            self.shard.sent(slot, bytes, Some(batch), self.now);
        }
        (segments, total)
    }
}
