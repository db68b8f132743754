//! The smallest dialect, which only tests compile: it returns each message to its sender. It shows
//! that a dialect needs a folder and an entry in the table, and nothing else.

use super::apps::PathError;
use super::webhooks::WebhookFormat;
use super::{
    Answered, Closing, Dialect, DialectApi, DialectContext, DialectEvent, DialectPolicy, Env,
    HttpReply, Opening, Why,
};
use crate::config::HookEvent;
use crate::http;
use crate::hub::EventMask;
use crate::ws::{self, close};
use std::borrow::Cow;

/// The format of the webhooks: the channel's name, if it is occupied.
pub(super) static FORMAT: WebhookFormat = WebhookFormat {
    mask: |_| EventMask::OCCUPANCY,
    event: |event| Some((HookEvent::ChannelOccupied, event.channel.as_bytes().to_vec())),
    body: |_, events| events.concat(),
    sign: |key, _| [("x-parrot-key", key.text.to_string()), ("x-parrot-signature", String::new())],
};

/// One client connection.
#[derive(Debug)]
pub struct Connection;

impl Dialect for Connection {
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Connection> {
        match context.env.app_of_socket(opening.path) {
            Ok(_) => Some(Connection),
            Err(PathError::NoSuchPath | PathError::UnknownApp) => {
                context.close(Closing::new(close::POLICY, "no such application"));
                None
            }
        }
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        let _ = context.out.message(kind, payload);
    }

    fn on(&mut self, _context: &mut DialectContext<'_>, _event: DialectEvent<'_>) {}

    fn policy(&self, env: &Env) -> DialectPolicy {
        DialectPolicy::new(env, env.config.limits.message_bytes)
    }

    fn closing(_why: Why) -> Closing {
        Closing::new(close::GOING_AWAY, "closed")
    }
}

impl DialectApi for Connection {
    fn request(
        _context: &mut DialectContext<'_>,
        _app: u32,
        _path: &str,
        _request: &mut http::Request<'_>,
    ) -> Answered {
        Answered::Now(HttpReply { status: 200, body: Cow::Borrowed(b"parrot"), allow: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::CoreState;
    use super::super::effects::{EffectList, Effects};
    use super::*;
    use crate::codec::json::Scratch;
    use crate::config::{AppDialect, Config, EndpointKind, FileFormat, Webhook};
    use crate::hub::{ChannelEvent, ChannelEventKind, ConnId};
    use crate::mem::Slot;
    use crate::time::Now;
    use crate::ws::output::Output;
    use std::net::SocketAddr;

    const CONFIG: &str = "
        [[apps]]
        id = '1'
        key = 'first'
        secret = '0123456789abcdef'
        dialect = 'parrot'
    ";

    /// Calls `act` for the request `head`, and returns what was written to its sender.
    fn with(
        env: &Env,
        head: &str,
        act: impl FnOnce(&mut DialectContext<'_>, &mut http::Request<'_>),
    ) -> (Vec<u8>, Option<Closing>) {
        let mut bytes = format!("{head} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let mut reader = http::Reader::new();
        let (_, event) = reader.next(&http::HeadLimits::default(), &mut bytes);
        let http::RequestEvent::Request(mut request) = event else { panic!("{event:?}") };
        let (mut json, mut out, mut closing) = (Scratch::default(), Vec::new(), None);
        let (mut shared, mut effects) = (Vec::new(), EffectList::new());
        let conn = ConnId { core: 0, slot: Slot { index: 1, generation: 1 } };
        let (mut core_state, work) = (CoreState::default(), crate::work::Meter::default());
        let mut context = DialectContext {
            peer: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            waiting_bytes: 0,
            now: Now { ms: 1000, unix_s: 1_760_000_000 },
            conn,
            env,
            json: &mut json,
            out: Output::plain(&mut out),
            core_state: &mut core_state,
            shared: &mut shared,
            effects: Effects::new(conn.slot, &mut effects),
            closing: &mut closing,
            work: &work,
            draining: false,
        };
        act(&mut context, &mut request);
        (out, closing)
    }

    /// Opens a WebSocket at a path and sends it one message.
    fn socket(env: &Env, path: &str) -> (Vec<u8>, Option<Closing>) {
        let route = crate::config::Route::to(EndpointKind::Apps);
        with(env, &format!("GET {path}"), |context, request| {
            let opening = Opening {
                receives_events: false,
                now: context.now,
                conn: context.conn,
                peer: context.peer,
                route: &route,
                path: request.path(),
                query: "",
                origin: None,
                secure: false,
                headers: &request.headers,
                claims: None,
            };
            assert_eq!(super::super::Connection::subprotocol(env, &opening), Ok(None));
            let opened = super::super::Connection::open(context, &opening);
            if let Some(mut connection) = opened {
                connection.message(context, ws::MessageKind::Text, &mut b"hi".to_vec());
            }
        })
    }

    #[test]
    fn parrot_dialect_is_reached_by_its_entry_alone() {
        let config = Config::parse_with(CONFIG, FileFormat::Toml, "test", &|_| None);
        let mut config = config.expect("a configuration");
        assert_eq!(config.apps[0].dialect, AppDialect::Parrot);
        config.apps[0].webhooks = vec![Webhook::new("http://a")];
        let env = Env::new(config, 1).unwrap();
        // The path of all applications, and the dialect's own.
        for path in ["/app/first", "/parrot/first"] {
            assert_eq!(socket(&env, path), (b"\x81\x02hi".to_vec(), None), "{path}");
        }
        let (sent, closing) = socket(&env, "/parrot/other");
        assert_eq!((sent.len(), closing.map(|it| it.code)), (0, Some(close::POLICY)));
        for path in ["/apps/1/x", "/apps/first/x"] {
            let reply = with(&env, &format!("GET {path}"), |context, request| {
                let answered = super::super::request(context, EndpointKind::Apps, request);
                let Answered::Now(reply) = answered else { panic!("it is answered at once") };
                assert_eq!(&*reply.body, b"parrot");
            });
            assert_eq!(reply, (Vec::new(), None));
        }
        assert!(env.watches(0, EventMask::OCCUPANCY));
        let (channel, what) = ("a".into(), ChannelEventKind::Occupied);
        let channel_event =
            ChannelEvent { app: 0, version: 0, channel, what, source: 0, is_ours: true };
        let event = env.webhooks(0).and_then(|format| (format.event)(&channel_event));
        assert_eq!(event, Some((HookEvent::ChannelOccupied, b"a".to_vec())));
    }
}
