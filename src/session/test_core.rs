//! A core without any other connection, for tests of one session.

use super::stage::Stage;
use super::{Context, MaskKeys, Session};
use crate::codec::json::Scratch;
use crate::config::Config;
use crate::dialect::{CoreState, EffectList, Env};
use crate::hub::ConnId;
use crate::mem::{Handle, Slot};
use crate::stats::Counters;
use crate::time::Now;
use crate::work::Meter;
use crate::ws::output::Codecs;
use std::net::SocketAddr;

/// What a session needs, for a core without any other connection.
pub(super) struct Core {
    pub(super) env: Env,
    json: Scratch,
    pub(super) codecs: Codecs,
    pub(super) counters: Counters,
    core_state: CoreState,
    shared: Vec<Handle>,
    pub(super) effects: EffectList,
    keys: MaskKeys,
    work: Meter,
}

impl Core {
    pub(super) fn new() -> Core {
        Core {
            env: Env::new(Config::demo(), 1).unwrap(),
            json: Scratch::default(),
            codecs: Codecs::new(0),
            counters: Counters::default(),
            core_state: CoreState::default(),
            shared: Vec::new(),
            effects: EffectList::new(),
            keys: MaskKeys::default(),
            work: Meter::default(),
        }
    }

    pub(super) fn cx(&mut self) -> Context<'_> {
        Context {
            waiting_bytes: 0,
            now: Now { ms: 1, unix_s: 1 },
            conn: ConnId { core: 0, slot: Slot { index: 0, generation: 1 } },
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            listener: 0,
            env: &self.env,
            json: &mut self.json,
            codecs: &mut self.codecs,
            core_state: &mut self.core_state,
            shared: &mut self.shared,
            effects: &mut self.effects,
            keys: &mut self.keys,
            counters: &self.counters,
            work: &self.work,
            failures: 0,
            draining: false,
            congested: false,
            sender: SocketAddr::from(([127, 0, 0, 1], 1)),
            charged: false,
            secure: false,
            identity: None,
        }
    }

    /// A WebSocket whose endpoint takes JSON.
    pub(super) fn session(&self) -> Session {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut session = Session::new(peer, 0, Now { ms: 1, unix_s: 1 }, &self.env);
        session.stage = Stage::echo();
        session
    }
}
