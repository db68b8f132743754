//! Hostile clients beside healthy ones, driven by a seed: floods, invalid tokens, expensive
//! messages, and peers that do not read. In every turn the work and the bytes held for each
//! connection are bounded, and healthy clients are answered after a few turns.
//!
//! `HOSTILE_SEED=n cargo test --test it hostile` repeats one seed.

use crate::machine::{Machine, SWEEP_MS, config};
use crate::peer::{self, Received};
use fastrand::Rng;
use polycast::config::Config;
use polycast::jwt::Algorithm;
use polycast::work;
use polycast::ws::Opcode;
use std::net::Ipv4Addr;

const SEEDS: u64 = 5;
const TURNS: usize = 100;
/// The bytes that a reactor receives for one connection in one turn in this test.
const RECEIVED: usize = 64 * 1024;
/// The maximum number of turns until a healthy client is answered, with the number of hostile
/// clients here.
const PATIENCE: usize = 12;
/// The work of the most expensive single operation here, in nanoseconds: a signature and a message
/// for a model.
const DEAREST: u64 = work::MODEL + work::MODEL_BYTE * 32 * 1024 + Algorithm::ES256.cost_us() * 1000;
/// The maximum number of bytes held for one connection: two turns' input, the write queue's bound
/// with a quarter of it in replies, and what one step adds.
const WAITING: usize = 2 * RECEIVED + (65_536 + 65_536 / 4) + RECEIVED;

fn rules() -> Config {
    let pem = include_str!("../../keys/p256.pub");
    config(&format!(
        "[limits]\nwrite_queue_bytes = 65536\ncontrol_frames_per_s = 60000\n\
         [timeouts]\nsend_ms = 20000\n\
         [[guards]]\nname = 'g'\nkeys = [{{ kid = 'k', pem = '''{pem}''' }}]\n\
         [[routes]]\nwhen = [{{ path = '/free' }}]\nendpoint = 'echo'\n\
         [[routes]]\nwhen = [{{ path = '/model' }}]\nendpoint = 'echo'\n\
         [routes.model]\nreceived.text = {{ model = 'json' }}\n\
         [[routes]]\nwhen = [{{ path = '/guarded' }}]\nendpoint = 'echo'\n\
         guarded = {{ g = [] }}\n\
         [[routes]]\nwhen = []\nendpoint = 'apps'\n"
    ))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Sends pings.
    Pings,
    /// Sends messages of one byte.
    Messages,
    /// Sends requests with invalid tokens, each time on a new connection after a close.
    Tokens,
    /// Sends large documents for a model.
    Documents,
    /// Subscribes and unsubscribes.
    Channels,
    /// Sends messages that are echoed, and does not read.
    Deaf,
}

const KINDS: [Kind; 6] =
    [Kind::Pings, Kind::Messages, Kind::Tokens, Kind::Documents, Kind::Channels, Kind::Deaf];

struct Actor {
    kind: Kind,
    at: usize,
    /// The bytes that the actor sends repeatedly.
    says: Vec<u8>,
}

impl Actor {
    fn new(kind: Kind, machine: &mut Machine, rng: &mut Rng) -> Actor {
        let mut actor = Actor { kind, at: 0, says: kind.says(rng) };
        actor.connect(machine, rng);
        actor
    }

    fn connect(&mut self, machine: &mut Machine, rng: &mut Rng) {
        self.at = machine.open_from(Ipv4Addr::new(10, 0, 0, rng.u8(1..4)));
        let target = match self.kind {
            Kind::Tokens => return,
            Kind::Documents => "/model",
            Kind::Channels => "/app/app-key?protocol=7",
            Kind::Pings | Kind::Messages | Kind::Deaf => "/free",
        };
        machine.receive_in_turn(self.at, &peer::handshake(target, ""));
        machine.wire(self.at).stalls = self.kind == Kind::Deaf;
    }

    /// Sends as many bytes as the server reads in one turn.
    fn acts(&mut self, machine: &mut Machine, rng: &mut Rng) {
        if machine.wire(self.at).closed {
            return self.connect(machine, rng);
        }
        let mut replies = 0;
        let max = rng.usize(1..=RECEIVED);
        while replies < max && machine.wants_read(self.at) {
            let n = self.says.len().min(max - replies);
            machine.receive_in_turn(self.at, &self.says[..n]);
            // A message that was cut continues with the next piece.
            self.says.rotate_left(n);
            replies += n;
        }
        // The replies are not checked.
        machine.wire(self.at).received.clear();
    }
}

impl Kind {
    fn says(self, rng: &mut Rng) -> Vec<u8> {
        match self {
            Kind::Pings => peer::framed(Opcode::Ping, b"").repeat(300),
            Kind::Messages => peer::text("x").repeat(300),
            Kind::Documents => {
                let member = format!(r#""{}":[1,2,{{"a":null}}]"#, rng.u32(..));
                peer::text(&format!("{{{}}}", vec![member; rng.usize(1..900)].join(",")))
            }
            Kind::Channels => {
                let channel = |verb: &str, n: usize| {
                    let data = format!(r#"{{"channel":"c{n}"}}"#);
                    peer::text(&format!(r#"{{"event":"pusher:{verb}","data":{data}}}"#))
                };
                let pair = |n| [channel("subscribe", n), channel("unsubscribe", n)].concat();
                (0..20).flat_map(pair).collect()
            }
            Kind::Deaf => peer::text(&"x".repeat(rng.usize(1..5000))),
            Kind::Tokens => {
                // The header {"alg":"ES256","kid":"k"}, the claims {}, and a signature of the right
                // length.
                let token = format!("eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.e30.{}", "A".repeat(86));
                let fields = format!("Host: a\r\nAuthorization: Bearer {token}\r\n");
                format!("GET /guarded HTTP/1.1\r\n{fields}\r\n").into_bytes()
            }
        }
    }
}

fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut machine = Machine::new(rules());
    let healthy = machine.open();
    machine.receive(healthy, &peer::handshake("/free", ""));
    machine.wire(healthy).received.clear();
    let count = rng.usize(4..20);
    let mut actors = Vec::new();
    for _ in 0..count {
        let kind = KINDS[rng.usize(0..KINDS.len())];
        actors.push(Actor::new(kind, &mut machine, &mut rng));
    }
    machine.turn();
    let mut asked: Option<(usize, String)> = None;
    for turn in 0..TURNS {
        let before = machine.shard.work();
        rng.shuffle(&mut actors);
        for actor in &mut actors {
            actor.acts(&mut machine, &mut rng);
        }
        if asked.is_none() {
            asked = Some((turn, format!("hello {turn}")));
            machine.receive_in_turn(healthy, &peer::text(&format!("hello {turn}")));
        }
        machine.turn();
        let spent = machine.shard.work() - before;
        // The rest of this turn's work, and the whole work of the next turn for connections that
        // waited.
        assert!(spent <= 2 * (work::TURN + DEAREST), "{spent} ns of work in turn {turn}");
        for actor in &actors {
            let bytes = machine.waiting_bytes(actor.at);
            assert!(bytes <= WAITING, "{bytes} bytes wait of {:?}", actor.kind);
        }
        let received = std::mem::take(&mut machine.wire(healthy).received);
        let (since, text) = asked.take().expect("a question");
        match &received[..] {
            [Received::Text(answer)] => assert_eq!(*answer, text),
            [] => {
                assert!(turn - since < PATIENCE, "no answer for {PATIENCE} turns");
                asked = Some((since, text));
            }
            other => panic!("{other:?}"),
        }
        if rng.u32(0..20) == 0 {
            machine.wait(SWEEP_MS);
            assert!(!machine.wire(healthy).closed);
            let received = std::mem::take(&mut machine.wire(healthy).received);
            if !received.is_empty() {
                asked = None;
            }
        }
    }
    machine.end();
}

#[test]
fn simulation_hostile_clients_cost_a_turns_share_and_hold_their_bounds_at_most() {
    let seed = std::env::var("HOSTILE_SEED").ok().map(|text| text.parse().expect("a number"));
    for seed in seed.map_or(0..SEEDS, |seed: u64| seed..seed + 1) {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            panic!("HOSTILE_SEED={seed} fails, see above");
        }
    }
}
