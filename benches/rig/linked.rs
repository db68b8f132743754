//! The fan-out of one event of a linked channel to 1000 subscribers: through one view, through four
//! views of different protocols, and of the source itself.
//!
//! The rows are measured in turns, so that a change of the machine's speed affects all of them, and
//! their medians are compared. The forms of the event are made again for each event. What four
//! forms cost is the row with one subscriber of each view.

use crate::cpu::Cpu;
use crate::rig::{self, APP_PATH, DATA, Rig};
use criterion::Criterion;
use criterion::measurement::Measurement;
use polycast::config::{Config, FileFormat};
use polycast::dialect::{Event, LinkedPublish, Up, linked_publish};
use polycast::mem::Frozen;
use polycast::shard::Common;

const LINKED: &str = r#"
[[routes]]
when = [{ path = "/quotes/*" }]
endpoint = "channel"
[[routes]]
when = [{ path = "/rooms/*" }]
endpoint = "reflect"
reflect.group = "path"
[[routes]]
endpoint = "apps"
[[apps]]
id = "1"
key = "app-key"
secret = "app-secret"
[[apps]]
id = "2"
key = "second-key"
secret = "second-secret"
[[apps]]
id = "3"
key = "third-key"
secret = "third-secret"
dialect = "broadcastt"
[[links]]
source = { app = "1", channel = "quotes-{symbol}" }
views = [
    { app = "2", channel = "q-{symbol}" },
    { app = "3", channel = "b-{symbol}" },
    { path = "/quotes/{symbol}" },
    { reflect = "/rooms/{symbol}" },
]
"#;

const SOURCE: &str = "quotes-ACME";
const SUBSCRIBERS: usize = 1000;
/// The number of turns, and of publishes of each row in a turn.
const TURNS: usize = 301;
const PUBLISHES: u32 = 20;
/// What the four views may cost more than one view and the forms.
const MAX_RATIO: f64 = 1.05;

/// By which name a subscriber joins.
#[derive(Clone, Copy)]
enum Name {
    Source,
    View(usize),
}

fn subscribe(rig: &mut Rig, name: Name) {
    let subscribe = |vendor: &str, name: &str| {
        format!(r#"{{"event":"{vendor}:subscribe","data":{{"channel":"{name}"}}}}"#)
    };
    match name {
        Name::Source => rig.socket_with(APP_PATH, &subscribe("pusher", SOURCE)),
        Name::View(0) => rig.socket_with("/app/second-key", &subscribe("pusher", "q-ACME")),
        Name::View(1) => rig.socket_with("/apps/third-key", &subscribe("broadcastt", "b-ACME")),
        Name::View(2) => rig.socket("/quotes/ACME"),
        Name::View(_) => rig.socket("/rooms/ACME"),
    };
}

struct Row {
    name: &'static str,
    rig: Rig,
    subscribers: usize,
    nanoseconds: Vec<f64>,
}

impl Row {
    fn new(
        name: &'static str,
        common: &Common,
        subscribers: usize,
        name_of: impl Fn(usize) -> Name,
    ) -> Row {
        let mut rig = Rig::new(0, common);
        (0..subscribers).for_each(|at| subscribe(&mut rig, name_of(at)));
        Row { name, rig, subscribers, nanoseconds: Vec::new() }
    }

    /// Publishes the event, and sends it to all subscribers.
    fn publish(&mut self, common: &Common, frame: &Frozen) {
        let mut event = Event::from(frame.clone());
        let prepared = linked_publish(&common.env, 0, SOURCE, &mut event);
        assert!(matches!(prepared, LinkedPublish::AsItIs) && event.forms.is_some());
        let name = common.hasher.name(0, SOURCE);
        let request = Up::Publish { name, event, ack: None };
        self.rig.shard.request(0, request, self.rig.now());
        assert_eq!(self.rig.drain().0, self.subscribers, "{}", self.name);
    }

    fn turn(&mut self, common: &Common, frame: &Frozen) {
        let start = Cpu.start();
        (0..PUBLISHES).for_each(|_| self.publish(common, frame));
        let spent = Cpu.to_f64(&Cpu.end(start));
        self.nanoseconds.push(spent / f64::from(PUBLISHES));
    }

    /// The median of the nanoseconds of one publish.
    fn median(&mut self) -> f64 {
        self.nanoseconds.sort_by(f64::total_cmp);
        self.nanoseconds[self.nanoseconds.len() / 2]
    }
}

const NAME: &str = "deliver to 1000 through views";

/// Whether the arguments of the command choose this measurement, and whether it is only tried out.
fn chosen() -> (bool, bool) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut filters = arguments.iter().filter(|it| !it.starts_with('-')).peekable();
    let is_chosen = filters.peek().is_none() || filters.any(|it| NAME.contains(it.as_str()));
    let is_listed = arguments.iter().any(|it| it == "--list");
    (is_chosen && !is_listed, !arguments.iter().any(|it| it == "--bench"))
}

pub fn views(_: &mut Criterion<Cpu>) {
    let (is_chosen, is_trial) = chosen();
    if !is_chosen {
        return;
    }
    let config = Config::parse(LINKED, FileFormat::Toml, "bench");
    let common = rig::common_of(config.unwrap_or_else(|error| panic!("{error}")), 1);
    let frame = Frozen::new(&rig::pushed(SOURCE, DATA));
    let mut rows = [
        Row::new("the source", &common, SUBSCRIBERS, |_| Name::Source),
        Row::new("one view", &common, SUBSCRIBERS, |_| Name::View(0)),
        Row::new("four views", &common, SUBSCRIBERS, |at| Name::View(at % 4)),
        Row::new("four subscribers of one view", &common, 4, |_| Name::View(0)),
        Row::new("four subscribers of four views", &common, 4, Name::View),
    ];
    for _ in 0..if is_trial { 1 } else { TURNS } {
        rows.iter_mut().for_each(|row| row.turn(&common, &frame));
    }
    let medians = rows.each_mut().map(Row::median);
    for (row, median) in rows.iter().zip(medians) {
        let each = median / row.subscribers as f64;
        println!("{NAME}/{}: {:.2} us, {each:.1} ns a delivery", row.name, median / 1000.0);
    }
    let [_, one, four, few_of_one, few_of_four] = medians;
    let forms = few_of_four - few_of_one;
    let ratio = four / (one + forms);
    println!(
        "{NAME}: four views cost {:.3} x one view, and {ratio:.3} x one view and three more forms \
         ({:.2} us); at most {MAX_RATIO} is wanted",
        four / one,
        forms / 1000.0
    );
}
