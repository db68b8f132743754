//! Unit tests of cases that no transcript reaches.

use super::*;
use crate::codec::json::Scratch;
use crate::config::Config;
use crate::dialect::{CoreState, EffectList, JoinOutcome, UserStatus};
use crate::hub::ConnId;
use crate::mem::Slot;
use crate::time::Now;
use crate::work::Meter;
use crate::ws::output::Output;

/// The close that `act` causes on a client whose subscription to `Market/A` is pending.
fn closing(act: impl FnOnce(&mut Connection, &mut DialectContext<'_>)) -> Option<Closing> {
    let text = "[zenith]\ntopics = [{ controller = 'Market', kind = 'A' }]\n";
    let format = crate::config::FileFormat::Toml;
    let config = Config::parse_with(text, format, "test", &|_| None).expect("a configuration");
    let env = Env::new(config, 1).unwrap();
    let (mut json, mut out, mut shared) = (Scratch::default(), Vec::new(), Vec::new());
    let (mut effects, mut closing, mut core_state) =
        (EffectList::new(), None, CoreState::default());
    let work = Meter::default();
    let conn = ConnId { core: 0, slot: Slot { index: 0, generation: 1 } };
    let mut context = DialectContext {
        peer: std::net::SocketAddr::from(([127, 0, 0, 1], 40_000)),
        waiting_bytes: 0,
        now: Now { ms: 1000, unix_s: 1000 },
        conn,
        env: &env,
        json: &mut json,
        core_state: &mut core_state,
        out: Output::plain(&mut out),
        shared: &mut shared,
        effects: Effects::new(conn.slot, &mut effects),
        closing: &mut closing,
        work: &work,
        draining: false,
    };
    let client = Client::new(Format::Json, "2.0", false);
    let mut connection = Connection(Box::new(Role::Client(client)));
    let mut sub = br#"{"Controller":"Market","Topic":"A","Action":"Sub"}"#.to_vec();
    connection.message(&mut context, ws::MessageKind::Text, &mut sub);
    assert_eq!(context.effects.mark(), 1, "it joins");
    act(&mut connection, &mut context);
    closing
}

#[test]
fn zenith_answer_that_cannot_be_encoded_is_an_error() {
    let channel_full = closing(|it, context| {
        it.on(
            context,
            DialectEvent::Joined { name: "Market\0A", outcome: JoinOutcome::ChannelFull },
        )
    });
    assert_eq!(channel_full.map(|it| it.code), Some(1011));
    let full = closing(|it, context| {
        it.on(
            context,
            DialectEvent::Joined { name: "Market\0A", outcome: JoinOutcome::SubscriptionLimit },
        )
    });
    assert_eq!(full, None, "a bound is no error of ours");
}

#[test]
fn zenith_has_a_close_code_for_each_reason() {
    let code = |why| Connection::closing(why).code;
    assert_eq!([Why::Slow, Why::Silent, Why::Draining].map(code), [1001, 1008, 1012]);
}

#[test]
fn zenith_ignores_messages_of_other_types() {
    let other = UserStatus { id: "kick".into(), online: true };
    let kick = DialectMessage::Channels(std::sync::Arc::new(other));
    assert_eq!(closing(|it, context| it.on(context, DialectEvent::Message(&kick))), None);
    let kick = DialectMessage::from(ZenithMessage::Kick("why"));
    let closed = closing(|it, context| it.on(context, DialectEvent::Message(&kick)));
    assert_eq!(closed, Some(Closing::new(4000, "why")));
}
