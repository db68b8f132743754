//! The vendors of channels, as the targets that talk to them need them.

use crate::machine::{Machine, config};
use crate::peer::{Received, auth, handshake, text};
use serde::de::IgnoredAny;

/// The names and paths of one vendor.
pub(crate) struct Vendor {
    pub(crate) name: &'static str,
    /// Where one event and where several are published.
    pub(crate) event: &'static str,
    pub(crate) batch: &'static str,
    /// Whether `data` is a string of JSON in all messages.
    data_is_text: bool,
}

pub(crate) const VENDORS: [Vendor; 2] = [
    Vendor {
        name: "pusher",
        event: "/apps/1/events",
        batch: "/apps/1/batch_events",
        data_is_text: false,
    },
    Vendor {
        name: "broadcastt",
        event: "/apps/1/event",
        batch: "/apps/1/events",
        data_is_text: true,
    },
];

impl Vendor {
    /// A server of this vendor's.
    pub(crate) fn machine(&self) -> Machine {
        self.machine_with("")
    }

    /// A server of this vendor's, with further tables of the configuration.
    pub(crate) fn machine_with(&self, tables: &str) -> Machine {
        let switches = "client_events = true\nwatchlist = true";
        Machine::new(config(&format!("dialect = '{}'\n{switches}\n{tables}", self.name)))
    }

    /// An event of the vendor's own, such as `subscribe`.
    pub(crate) fn says(&self, word: &str, data: &str) -> String {
        format!(r#"{{"event":"{}:{word}","data":{data}}}"#, self.name)
    }

    /// Opens a WebSocket that is in `channel`.
    pub(crate) fn subscriber(&self, machine: &mut Machine, channel: &str) -> usize {
        let at = machine.open();
        machine.receive(at, &handshake("/app/app-key", ""));
        let auth = auth(&socket_of(machine, at), channel, None);
        let data = format!(r#"{{"channel":"{channel}","auth":"{auth}"}}"#);
        machine.receive(at, &text(&self.says("subscribe", &data)));
        let received = machine.wire(at).received.last();
        let joined =
            |it: &Received| matches!(it, Received::Text(text) if text.contains("succeeded"));
        assert!(received.is_some_and(joined), "{received:?}");
        at
    }

    /// Opens a WebSocket that has authenticated as a publisher.
    pub(crate) fn publisher(&self, machine: &mut Machine) -> usize {
        let at = machine.open();
        machine.receive(at, &handshake("/app/app-key", ""));
        let auth = auth(&socket_of(machine, at), "polycast:publisher", None);
        let data = format!(r#"{{"auth":"{auth}","role":"publisher"}}"#);
        machine
            .receive(at, &text(&format!(r#"{{"event":"polycast:authenticate","data":{data}}}"#)));
        let received = machine.wire(at).received.last();
        let expected = r#"{"event":"polycast:authenticated","data":{"role":"publisher"}}"#;
        assert!(matches!(received, Some(Received::Text(text)) if text == expected), "{received:?}");
        at
    }

    /// Asserts that this vendor's clients can read what was received.
    pub(crate) fn check(&self, received: &[Received]) {
        for received in received {
            let Received::Text(text) = received else { panic!("{received:?}") };
            assert!(is_json(text), "{text}");
            if self.data_is_text {
                let message: Message = serde_json::from_str(text).expect(text);
                assert!(is_json(&message.data), "{text}");
            }
        }
    }
}

/// The socket id in the first message of a connection.
fn socket_of(machine: &mut Machine, at: usize) -> String {
    let Some(Received::Text(first)) = machine.wire(at).received.last() else {
        panic!("{:?}", machine.wire(at).received);
    };
    let socket = first.split(r#"socket_id\":\""#).nth(1).and_then(|it| it.split('\\').next());
    socket.expect("a socket id").to_owned()
}

#[derive(serde::Deserialize)]
struct Message {
    data: String,
}

pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
