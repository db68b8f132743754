//! Tests of sessions: what events do, and what sessions ask for.

use super::stage::Stage;
use super::test_core::Core;
use super::*;
use crate::dialect::{EffectList, PeerMessage};
use crate::mem::{Handle, Slot};

impl Core {
    /// Removes a session; its effects are added to the list.
    fn close(&mut self, session: Session, draining: bool) {
        let us = self.cx().conn;
        let core = CloseContext {
            env: &self.env,
            counters: &self.counters,
            codecs: &mut self.codecs,
            effects: Effects::new(us.slot, &mut self.effects),
            draining,
        };
        session.close(us, core);
    }
}

impl Session {
    /// Whether a step may read input now.
    fn may_step(&mut self, core: &mut Core) -> bool {
        self.step(&mut [], &mut core.cx()).1 != Step::Hold
    }
}

/// Sends what waits in the write queue, and returns it.
fn queued(session: &mut Session) -> Vec<u8> {
    let Some(mut batch) = session.link.take_batch(&mut Vec::new()) else { return Vec::new() };
    let bytes = batch.iter().flat_map(|segment| segment.to_vec()).collect();
    batch.clear();
    session.sent(Some(batch), Now { ms: 1, unix_s: 1 });
    bytes
}

/// Steps the session through these bytes.
fn feed(session: &mut Session, bytes: &[u8], core: &mut Core) {
    let (mut bytes, mut taken) = (bytes.to_vec(), 0);
    for _ in 0..8 {
        let (more, step) = session.step(&mut bytes[taken..], &mut core.cx());
        taken += more;
        if step == Step::Need && taken == bytes.len() {
            return session.settle(&mut core.cx());
        }
    }
    panic!("the input is not taken");
}

/// The messages to the other leg in a list of effects, each with the leg that sends it.
fn peer_messages(effects: &mut EffectList) -> Vec<(Slot, Slot, String)> {
    let text = |effect| match effect {
        Effect::PeerMessage { to, message } => (to, format!("{message:?}")),
        other => panic!("{other:?}"),
    };
    let messages = effects.drain(..).map(|(from, effect)| (from, text(effect)));
    messages.map(|(from, (to, message))| (from, to, message)).collect()
}

const OTHER: Slot = Slot { index: 9, generation: 3 };

#[test]
fn session_fits_a_size_class_of_the_allocator() {
    assert!(size_of::<Session>() <= 256, "{} bytes", size_of::<Session>());
}

/// An event is moved from the shard to the stage; only joins and answers need the room.
#[test]
fn session_event_is_small_enough_to_be_moved() {
    assert!(size_of::<SessionEvent<'_>>() <= 192, "{} bytes", size_of::<SessionEvent<'_>>());
}

#[test]
fn session_event_closes_a_websocket_with_the_code_of_the_application() {
    let mut core = Core::new();
    let mut session = core.session();
    let closing = Closing::new(4001, "done");
    session.on(SessionEvent::Close(&closing), &mut core.cx());
    assert_eq!(queued(&mut session), b"\x88\x06\x0f\xa1done");
    assert!(!session.is_open_socket());
    assert_eq!(session.link.ending(), Ending::Open, "the peer's close frame is awaited");
    let after = core.cx().now.plus_ms(core.env.config.timeouts.close_ms);
    assert_eq!(session.link.deadline, after);
    // A second close sends nothing.
    session.on(SessionEvent::CloseFor(Why::Draining), &mut core.cx());
    assert_eq!(queued(&mut session), b"");
}

#[test]
fn session_event_for_a_slow_consumer_drops_what_waits_and_ends_the_connection() {
    let mut core = Core::new();
    let mut session = core.session();
    let frame = Handle::new(crate::mem::Frozen::new(b"broadcast"));
    (0..3).for_each(|_| session.link.queue.push(&frame, usize::MAX, 0).expect("room"));
    session.on(SessionEvent::CloseFor(Why::Slow), &mut core.cx());
    assert_eq!(session.link.ending(), Ending::Flush);
    let text = String::from_utf8_lossy(&queued(&mut session)).into_owned();
    assert!(!text.contains("broadcast") && text.contains("does not read"), "{text}");
    // Nothing happens to a connection that ends.
    session.on(SessionEvent::OutOfMemory, &mut core.cx());
    session.on(SessionEvent::Reload, &mut core.cx());
    assert!(core.effects.is_empty());
}

#[test]
fn session_event_of_another_stage_changes_nothing() {
    let mut core = Core::new();
    let leg = |it| if it { SessionEvent::OtherLegFull } else { SessionEvent::OtherLegDrained };
    let acks = SessionEvent::AcksAwaited { ticket: 0, count: 1 };
    for event in [leg(true), leg(false), acks, SessionEvent::Acked(7)] {
        let mut session = core.session();
        session.on(event, &mut core.cx());
        assert!(session.is_open_socket() && session.may_step(&mut core));
        assert_eq!(session.link.queued_bytes(), 0);
    }
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut http = Session::new(peer, 0, core.cx().now, &core.env);
    http.on(SessionEvent::NotSubscribed("c"), &mut core.cx());
    http.on(SessionEvent::Close(&Closing::new(4001, "")), &mut core.cx());
    http.on(SessionEvent::Connected(Ok(())), &mut core.cx());
    assert_eq!((http.link.ending(), http.link.queued_bytes()), (Ending::Open, 0));
    // The server's own reasons end an idle HTTP connection.
    http.on(SessionEvent::CloseFor(Why::Silent), &mut core.cx());
    assert_eq!((http.link.ending(), http.link.queued_bytes()), (Ending::Flush, 0));
}

#[test]
fn session_drain_spares_requests_that_are_on_their_way() {
    let mut core = Core::new();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut http = Session::new(peer, 0, core.cx().now, &core.env);
    let mut drain = |http: &mut Session| {
        http.on(SessionEvent::CloseFor(Why::Draining), &mut core.cx());
        http.link.ending()
    };
    assert_eq!(drain(&mut http), Ending::Open, "the first pass");
    assert_eq!(drain(&mut http), Ending::Flush, "the second pass");
    let mut core = Core::new();
    let mut http = Session::new(peer, 0, core.cx().now, &core.env);
    feed(&mut http, b"GET /live HTTP/1.1\r\nHost: h\r\n", &mut core);
    for _ in 0..3 {
        http.on(SessionEvent::CloseFor(Why::Draining), &mut core.cx());
        assert_eq!(http.link.ending(), Ending::Open, "a part of a request");
    }
    core.env.runtime.departure.be_replaced();
    feed(&mut http, b"\r\n", &mut core);
    let text = String::from_utf8_lossy(&queued(&mut http)).into_owned();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("Connection: close"), "{text}");
    assert_eq!(http.link.ending(), Ending::Flush);
}

#[test]
fn session_event_of_a_failed_connect_cuts_the_connection() {
    let mut core = Core::new();
    let mut session = core.session();
    session.on(SessionEvent::Connected(Err(111)), &mut core.cx());
    assert_eq!(session.link.ending(), Ending::Cut);
}

#[test]
fn session_effects_of_a_proxy_leg_are_entries_of_the_one_list() {
    let mut core = Core::new();
    let (mut session, us) = (core.session(), core.cx().conn.slot);
    session.stage = Stage::proxy_leg(OTHER);
    let mut masked = *b"\x81\x82\0\0\0\0hi";
    assert_eq!(session.step(&mut masked, &mut core.cx()), (8, Step::Again));
    let sent = peer_messages(&mut core.effects);
    let hi = "Message { kind: Text, payload: [104, 105] }".to_owned();
    assert_eq!(sent, [(us, OTHER, hi)]);
    // What comes from the other leg goes to the peer.
    let (kind, payload) = (crate::ws::MessageKind::Text, b"yo".to_vec());
    session.on(SessionEvent::Peer(PeerMessage::Message { kind, payload }), &mut core.cx());
    assert_eq!(queued(&mut session), b"\x81\x02yo");
    // Until the other leg has drained, nothing is read.
    assert!(session.may_step(&mut core));
    session.on(SessionEvent::OtherLegFull, &mut core.cx());
    assert!(!session.may_step(&mut core));
    session.on(SessionEvent::OtherLegDrained, &mut core.cx());
    assert!(session.may_step(&mut core));
}

#[test]
fn session_end_of_a_proxy_leg_is_reported_once() {
    let close = |reason: &str| format!("Close {{ code: Some(1001), reason: \"{reason}\" }}");
    // The server closes: settling reports it, and the removal does not repeat it.
    let mut core = Core::new();
    let (mut session, us) = (core.session(), core.cx().conn.slot);
    session.stage = Stage::proxy_leg(OTHER);
    session.settle(&mut core.cx());
    assert!(core.effects.is_empty(), "it is open");
    session.on(SessionEvent::CloseFor(Why::Silent), &mut core.cx());
    session.settle(&mut core.cx());
    session.settle(&mut core.cx());
    let reported = peer_messages(&mut core.effects);
    assert_eq!(reported, [(us, OTHER, close("the client has gone"))]);
    core.close(session, false);
    assert!(core.effects.is_empty());
    // The connection is lost: the removal reports it.
    let mut session = core.session();
    session.stage = Stage::proxy_leg(OTHER);
    core.close(session, true);
    let reported = peer_messages(&mut core.effects);
    assert_eq!(reported, [(us, OTHER, close("the server is shutting down"))]);
}
