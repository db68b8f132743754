//! Redis or Valkey as the engine: one log for the whole cluster, in keys with one hash tag, so that
//! all of it lies on one primary.
//!
//! An append is one script (`redis/append.lua`), which is atomic: it gives the entry its number,
//! drops one that was stored already, compares the predecessor, and keeps account of the bytes. The
//! newest `keep_s` of the log are a stream, which a node reads with blocking `XREAD` on a
//! connection of its own; entries that live longer are in a sorted set besides, and are merged into
//! what is read at the start and after a hole.
//!
//! A primary that was restarted or replaced may have lost the end of the log, and uses those
//! numbers again. So the log has a list of the processes that have served it, each with the last
//! sequence number that there was when the first node came (`redis/attach.lua`). A node that has
//! seen more than that has seen entries that are lost; the first one that notices draws a new
//! epoch, with which every node reads the log from its beginning. What it has applied already it
//! knows by the numbers in the entries. An append names the epoch, so that nobody adds to a log
//! that is another one than he knows.

mod connect;
mod deliver;
mod examine;
mod info;
mod link;
mod page;
mod primary;
mod rights;
mod script;
mod send;
mod shared;

pub(super) use examine::examine;

use crate::cluster::{Append, Engine, EngineEvent};
use crate::config::Cluster;
use crate::control::results::Results;
use crate::mem::Notifier;
use shared::RedisState;
use std::io;
use std::rc::Rc;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_local;

/// See the module's documentation.
pub(super) struct RedisEngine {
    shared: Rc<RedisState>,
}

impl RedisEngine {
    /// Begins to connect, and does so for ever.
    ///
    /// # Errors
    /// The certificate authorities, or the certificate of the process, cannot be used.
    pub(super) fn start(cluster: &Cluster, notifier: &Notifier) -> io::Result<RedisEngine> {
        let (signals, received) = unbounded_channel();
        let events = Results::new(notifier);
        let login = connect::login(cluster)?;
        let shared = Rc::new(RedisState::new(cluster, login, events, signals));
        spawn_local(connect::watch(shared.clone(), received));
        Ok(RedisEngine { shared })
    }
}

impl Drop for RedisEngine {
    fn drop(&mut self) {
        self.shared.stop_delivery();
    }
}

impl Engine for RedisEngine {
    fn append(&mut self, append: Append) {
        // Without a connection the entry fails, and the node sends it again.
        if let Some(appends) = &*self.shared.appends.borrow() {
            let _ = appends.send(append);
        }
    }

    fn purge(&mut self, tokens: &str) {
        let (shared, tokens) = (self.shared.clone(), tokens.to_owned());
        spawn_local(async move { shared.purge(&tokens).await });
    }

    fn follow(&mut self, after: u64) {
        self.shared.stop_delivery();
        let number = self.shared.delivery.get() + 1;
        self.shared.delivery.set(number);
        let task = spawn_local(deliver::deliver(self.shared.clone(), number, after));
        self.shared.delivery_task.replace(Some(task.abort_handle()));
    }

    fn take(&mut self) -> Vec<EngineEvent> {
        self.shared.events.take()
    }

    fn pause(&mut self, is_paused: bool) {
        self.shared.is_paused.set(is_paused);
        if !is_paused {
            self.shared.resumed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
