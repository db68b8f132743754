//! What clients say over the WebSocket.

use super::super::{Action, Context};
use super::channel::{self, Kind};
use super::{Connection, socket_id, words};
use crate::codec::json::{Json, Scratch};
use crate::crypto;

/// A client's message, read to the end before anything is done about it.
enum Command {
    Ping,
    Pong,
    Subscribe(Subscription),
    Unsubscribe(String),
    ClientEvent,
    /// An event that there is no such command for.
    Unsupported(String),
    /// A known command whose data does not fit it.
    Unfit(&'static str),
    NotAnObject,
}

struct Subscription {
    channel: String,
    auth: String,
    channel_data: Option<String>,
}

pub(super) fn text(conn: &mut Connection, context: &mut Context<'_>, payload: &mut [u8]) {
    let Ok(command) = context.json.parse(payload, read) else {
        return conn.error(context, "Invalid JSON");
    };
    let command = match command {
        Read::Whole(command) => command,
        Read::Inner(event, data) => read_inner(context.json, event, data),
    };
    match command {
        Command::Ping => context.send_text(words::PONG),
        Command::Pong => {}
        Command::Subscribe(subscription) => subscribe(conn, context, subscription),
        Command::Unsubscribe(name) => context.actions.push(Action::Leave { app: conn.app, name }),
        Command::ClientEvent => {
            let message = "The app does not have client messaging enabled.";
            conn.report(context, &words::error(Some(4301), message));
        }
        Command::Unsupported(event) => {
            conn.error(context, &format!("Unsupported event received on socket: {event}"));
        }
        Command::Unfit(message) => conn.error(context, message),
        Command::NotAnObject => {
            conn.error(context, "Message must be a JSON object with an event");
        }
    }
}

enum Read {
    Whole(Command),
    /// `data` is a string of JSON, which some client libraries send in place of the object.
    Inner(Event, String),
}

#[derive(Clone, Copy)]
enum Event {
    Subscribe,
    Unsubscribe,
}

fn read(message: Json<'_, '_>) -> Read {
    let Some(name) = message.get("event").and_then(|event| event.text()) else {
        return Read::Whole(Command::NotAnObject);
    };
    let event = match name {
        "pusher:ping" => return Read::Whole(Command::Ping),
        "pusher:pong" => return Read::Whole(Command::Pong),
        "pusher:subscribe" => Event::Subscribe,
        "pusher:unsubscribe" => Event::Unsubscribe,
        name if name.starts_with("client-") => return Read::Whole(Command::ClientEvent),
        name => return Read::Whole(Command::Unsupported(shorten(name))),
    };
    match message.get("data") {
        Some(data) => match data.text() {
            Some(text) => Read::Inner(event, text.to_owned()),
            None => Read::Whole(fit(event, data)),
        },
        None => Read::Whole(Command::Unfit("Message has no data")),
    }
}

fn read_inner(json: &mut Scratch, event: Event, data: String) -> Command {
    let mut text = data.into_bytes();
    match json.parse(&mut text, |data| fit(event, data)) {
        Ok(command) => command,
        Err(_) => Command::Unfit("Message data must be a JSON object"),
    }
}

fn fit(event: Event, data: Json<'_, '_>) -> Command {
    if !data.is_object() {
        return Command::Unfit("Message data must be a JSON object");
    }
    let Some(channel) = data.get("channel").and_then(|channel| channel.text()) else {
        return Command::Unfit("Message data must name a channel");
    };
    let channel = channel.to_owned();
    let text = |key| data.get(key).and_then(|value| value.text()).map(str::to_owned);
    match event {
        Event::Subscribe => Command::Subscribe(Subscription {
            channel,
            auth: text("auth").unwrap_or_default(),
            channel_data: text("channel_data"),
        }),
        Event::Unsubscribe => Command::Unsubscribe(channel),
    }
}

fn subscribe(conn: &mut Connection, context: &mut Context<'_>, wish: Subscription) {
    let limits = &context.env.apps.get(conn.app).config.limits;
    let most = limits.subscriptions_per_connection;
    let name = wish.channel;
    if let Err(problem) = channel::check(&name, limits.channel_name_length) {
        return conn.refuse(context, &shorten(&name), words::LIMIT, &problem, 4009);
    }
    match channel::kind(&name) {
        Kind::Public => {}
        Kind::Private | Kind::Encrypted => {
            if !authorised(conn, context, &name, &wish.auth, wish.channel_data.as_deref()) {
                let problem = format!("Invalid signature for {name}");
                return conn.refuse(context, &name, words::AUTH, &problem, 401);
            }
        }
        Kind::Other => {
            let problem = "This server has no channels of this kind";
            return conn.refuse(context, &name, words::UNSUPPORTED, problem, 501);
        }
    }
    context.actions.push(Action::Join { app: conn.app, name, most });
}

/// Whether `auth` is `key:signature` over `socket_id:channel[:channel_data]`, whatever the
/// channel's kind: clients pass on whatever data their authorisation endpoint gave them.
fn authorised(
    conn: &Connection,
    context: &Context<'_>,
    name: &str,
    auth: &str,
    channel_data: Option<&str>,
) -> bool {
    let Some((key, given)) = auth.split_once(':') else { return false };
    let keys = &context.env.apps.get(conn.app).keys;
    let Some(key) = keys.iter().find(|candidate| *candidate.text == *key) else { return false };
    let socket = socket_id(context.env, context.conn);
    let mut parts: Vec<&[u8]> = vec![socket.as_bytes(), b":", name.as_bytes()];
    if let Some(data) = channel_data {
        parts.extend([b":".as_slice(), data.as_bytes()]);
    }
    let expected: [u8; 64] = crypto::hex(&key.secret.sign(&parts));
    crypto::constant_time_eq(&expected, given.as_bytes())
}

/// At most 200 bytes of a name that a client made up, for an answer that quotes it.
fn shorten(name: &str) -> String {
    let mut end = name.len().min(200);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}
