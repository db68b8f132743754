//! Linked channels over a reload of the configuration.

use crate::machine::{Machine, UNIX_S, config};
use crate::peer::{Received, handshake, signed, text};
use polycast::dialect::Env;
use std::sync::Arc;

const LINK: &str = r#"
[[apps]]
id = '2'
key = 'second'
secret = 's'
[[links]]
source = { app = '1', channel = 'quotes-{symbol}' }
views = [{ app = '2', channel = 'q-{symbol}' }]
"#;
const APP: &str = "[[apps]]\nid = '2'\nkey = 'second'\nsecret = 's'\n";

/// Sends a command for the channel `q-A` of the second application.
fn command(machine: &mut Machine, at: usize, word: &str) {
    let message = format!(r#"{{"event":"pusher:{word}","data":{{"channel":"q-A"}}}}"#);
    machine.receive(at, &text(&message));
}

/// A client of the second application that has subscribed to `q-A`.
fn subscriber(machine: &mut Machine) -> usize {
    let at = machine.open();
    machine.receive(at, &handshake("/app/second", ""));
    command(machine, at, "subscribe");
    received(machine, at);
    at
}

/// The text messages since the last call.
fn received(machine: &mut Machine, at: usize) -> Vec<String> {
    machine.settle();
    let texts = std::mem::take(&mut machine.wire(at).received).into_iter();
    let text = |it| if let Received::Text(text) = it { Some(text) } else { None };
    texts.filter_map(text).collect()
}

fn publish(machine: &mut Machine) {
    let at = machine.open();
    let body = br#"{"name":"e","channel":"quotes-A","data":"d"}"#;
    machine.receive(at, &signed("POST", "/apps/1/events", body, UNIX_S));
    machine.hang_up(at);
}

fn reload(machine: &mut Machine, env: &mut Arc<Env>, more: &str) {
    *env = Arc::new(env.reloaded(config(more)).unwrap());
    machine.shard.renew(env.clone(), machine.now);
    machine.settle();
}

#[test]
fn links_that_a_reload_removes_keep_their_subscribers_until_they_leave() {
    const EVENT: &str = r#"{"event":"e","channel":"q-A","data":"d"}"#;
    let mut machine = Machine::new(config(LINK));
    let mut env = Arc::new(Env::new(config(LINK), 7).unwrap());
    let client = subscriber(&mut machine);
    reload(&mut machine, &mut env, APP);
    publish(&mut machine);
    assert_eq!(received(&mut machine, client), [EVENT]);
    command(&mut machine, client, "unsubscribe");
    publish(&mut machine);
    assert!(received(&mut machine, client).is_empty());
    // The name is now that of a channel of the second application.
    command(&mut machine, client, "subscribe");
    assert_eq!(received(&mut machine, client).len(), 1);
    publish(&mut machine);
    assert!(received(&mut machine, client).is_empty());
    // The link returns: the subscription is still to that channel, and ends there.
    reload(&mut machine, &mut env, LINK);
    publish(&mut machine);
    assert!(received(&mut machine, client).is_empty());
    command(&mut machine, client, "unsubscribe");
    assert_eq!(machine.counters.subscriptions.get(), 0);
    command(&mut machine, client, "subscribe");
    received(&mut machine, client);
    publish(&mut machine);
    assert_eq!(received(&mut machine, client), [EVENT]);
    machine.end();
}

const PLAIN: &str = r#"
[[routes]]
when = [{ path = '/plain/*' }]
endpoint = 'channel'
[[routes]]
endpoint = 'apps'
"#;
const PLAIN_LINK: &str = r#"
[[links]]
source = { app = '1', channel = 'quotes-{symbol}' }
views = [{ path = '/plain/{symbol}', publish = true }]
"#;

#[test]
fn links_that_a_reload_removes_close_plain_clients_that_publish() {
    let linked = format!("{PLAIN}{PLAIN_LINK}");
    let mut machine = Machine::new(config(&linked));
    let mut env = Arc::new(Env::new(config(&linked), 7).unwrap());
    let (client, quiet) = (machine.open(), machine.open());
    for at in [client, quiet] {
        machine.receive(at, &handshake("/plain/A", ""));
        machine.wire(at).received.clear();
    }
    machine.receive(client, &text("one"));
    assert_eq!(received(&mut machine, quiet), ["one"], "the link lets it publish");
    reload(&mut machine, &mut env, PLAIN);
    publish(&mut machine);
    assert_eq!(received(&mut machine, client), ["d"], "it is still subscribed");
    machine.receive(client, &text("two"));
    let closed = Received::Close(Some(1008), "the channel accepts no messages".to_owned());
    assert_eq!(machine.wire(client).received, [closed]);
    assert_eq!(received(&mut machine, quiet), ["d"], "nothing was published");
    publish(&mut machine);
    assert_eq!(received(&mut machine, quiet), ["d"]);
    // A path without a link is refused before the handshake.
    let late = machine.open();
    machine.receive(late, &handshake("/plain/A", ""));
    assert!(matches!(machine.wire(late).received[..], [Received::Answer { status: 404, .. }]));
    machine.end();
}
