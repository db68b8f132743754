//! How a connection begins: at once or, on a node of a cluster, when the node has reserved a
//! connection for it.

use super::super::app::App;
use super::super::closing::Closing;
use super::super::context::DialectContext;
use super::super::effects::Effect;
use super::connection::{Connection, end, socket_id};
use super::messages;
use super::vendor::Vendor;
use super::who::WaitingForRoom;
use crate::dialect::Admission;
use crate::stats::{Counter, Counters};

/// How long a connection waits although all nodes together seem to have the maximum, in
/// milliseconds: longer than a node keeps what it has reserved and does not need, so that a client
/// that has left one node is not refused by another one.
const FULL_MS: u64 = 2000;

impl<V: Vendor> Connection<V> {
    /// Begins a connection, whose admission the application has decided. `joins` is what the
    /// connection requests when it is admitted.
    ///
    /// # Errors
    /// The close that refuses it.
    pub(super) fn begin(
        &mut self,
        context: &mut DialectContext<'_>,
        admission: Admission,
        joins: Vec<Effect>,
    ) -> Result<(), Closing> {
        match admission {
            Admission::Admitted => self.establish(context, joins),
            Admission::Waits => {
                count(context, |counters| &counters.room_waits);
                let since_ms = context.now.ms;
                let waiting = WaitingForRoom { since_ms, is_refused: false, joins };
                self.who().waiting = Some(Box::new(waiting));
                context.effects.push(Effect::AwaitRoom { app: self.app });
            }
            Admission::Full => return Err(over_quota::<V>(context)),
            Admission::TooManyWait => return Err(not_reserved::<V>(context)),
        }
        Ok(())
    }

    /// Greets the client, if it is one that sends.
    fn establish(&mut self, context: &mut DialectContext<'_>, joins: Vec<Effect>) {
        context.effects.extend(joins);
        if self.who.as_ref().is_some_and(|who| who.listens) {
            return;
        }
        let config = &context.env.apps.get(self.app).config;
        let id = socket_id(context.env, context.conn);
        let activity_s = V::settings(context.env, config).activity_s;
        context.send_text(messages::established(V::DATA, &id, activity_s).as_bytes());
        self.authorise_within(config.authorise_within_s, context.now);
    }

    /// Whether the connection waits, so that nothing is read of it.
    pub(super) fn is_waiting(&self) -> bool {
        self.who.as_ref().is_some_and(|who| who.waiting.is_some())
    }

    /// There may be room for this connection, or it may have waited for too long.
    pub(super) fn on_room(&mut self, context: &mut DialectContext<'_>) {
        let Some(who) = &mut self.who else { return };
        let Some(waiting) = who.waiting.as_mut().filter(|it| !it.is_refused) else { return };
        let app = context.env.apps.get(self.app);
        if app.admit_waiting(context.now.ms) {
            let joins = std::mem::take(&mut waiting.joins);
            who.waiting = None;
            return self.establish(context, joins);
        }
        let waited_ms = context.now.ms.saturating_sub(waiting.since_ms);
        let hold_ms = context.env.config.cluster.as_ref().map_or(0, |it| it.hold_ms);
        let closing = match waited_ms {
            FULL_MS.. if app.is_full() => over_quota::<V>(context),
            _ if waited_ms < hold_ms => {
                return context.effects.push(Effect::AwaitRoom { app: self.app });
            }
            _ if app.is_full() => over_quota::<V>(context),
            _ => not_reserved::<V>(context),
        };
        waiting.is_refused = true;
        app.stop_waiting();
        end::<V>(context, closing, true);
    }

    /// Takes the connection out of the application's counts.
    pub(super) fn release(&self, app: &App) {
        match self.who.as_ref().and_then(|who| who.waiting.as_ref()) {
            None => app.release(),
            Some(waiting) if waiting.is_refused => {}
            Some(_) => app.stop_waiting(),
        }
    }
}

/// The close of a connection beyond the application's maximum.
fn over_quota<V: Vendor>(context: &DialectContext<'_>) -> Closing {
    count(context, |counters| &counters.refused_quota);
    V::DATA.codes.over_quota.clone()
}

/// The close of a connection for which none was reserved in time. Its client may try again.
fn not_reserved<V: Vendor>(context: &DialectContext<'_>) -> Closing {
    count(context, |counters| &counters.refused_not_reserved);
    V::DATA.codes.overloaded.clone()
}

fn count(context: &DialectContext<'_>, counter: impl Fn(&Counters) -> &Counter) {
    if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
        counter(counters).add(1);
    }
}
