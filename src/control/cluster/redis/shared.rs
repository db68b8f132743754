//! What the tasks of the engine share.

use super::link::{Login, REQUEST, RequestFailure, ServerAddress, ServerLink};
use super::page::{self, PageSize};
use super::script::{Keys, Known};
use crate::cluster::{Append, EngineEvent};
use crate::config::Cluster;
use crate::control::results::Results;
use std::cell::{Cell, RefCell};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

/// What the task that watches the connection is sent.
#[derive(Debug)]
pub(super) enum RedisSignal {
    /// The delivery with this number is interrupted.
    Broken(u64),
    /// In the connection with this number the log was another one than the node knows.
    Changed(u64),
    /// The connection with this number is lost.
    Lost(u64, String),
}

/// See the module's documentation.
pub(super) struct RedisState {
    pub(super) cluster: Cluster,
    pub(super) keys: Keys,
    pub(super) login: Login,
    pub(super) events: Results<EngineEvent>,
    pub(super) signals: UnboundedSender<RedisSignal>,
    /// Where entries of the connection that is in force go; the node bounds their number.
    pub(super) appends: RefCell<Option<UnboundedSender<Append>>>,
    /// The primary of that connection.
    pub(super) primary: RefCell<Option<(ServerLink, ServerAddress)>>,
    pub(super) known: Cell<Known>,
    /// The number of the delivery that is in force.
    pub(super) delivery: Cell<u64>,
    pub(super) delivery_task: RefCell<Option<AbortHandle>>,
    /// How many entries a delivery asks for next.
    pub(super) page_size: Cell<PageSize>,
    pub(super) is_paused: Cell<bool>,
    pub(super) resumed: Notify,
    /// The last failure that was logged, so that a lasting one is one line.
    logged: RefCell<String>,
    /// The warnings about the server that were logged last.
    warned: RefCell<Vec<String>>,
    /// The code with which the server refuses to write; empty if it does not, as far as is known.
    refused: RefCell<String>,
}

impl RedisState {
    pub(super) fn new(
        cluster: &Cluster,
        login: Login,
        events: Results<EngineEvent>,
        signals: UnboundedSender<RedisSignal>,
    ) -> RedisState {
        RedisState {
            cluster: cluster.clone(),
            keys: Keys::new(&cluster.name),
            login,
            events,
            signals,
            appends: RefCell::default(),
            primary: RefCell::default(),
            known: Cell::default(),
            delivery: Cell::new(0),
            delivery_task: RefCell::default(),
            page_size: Cell::default(),
            is_paused: Cell::new(false),
            resumed: Notify::new(),
            logged: RefCell::default(),
            warned: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// Notes that an entry is in the log of this epoch.
    pub(super) fn note_seen(&self, epoch: u64, sequence: u64) {
        let mut known = self.known.get();
        if known.epoch == epoch {
            known.seen = known.seen.max(sequence);
            self.known.set(known);
        }
    }

    /// Ends the delivery that is in force.
    pub(super) fn stop_delivery(&self) {
        if let Some(task) = self.delivery_task.take() {
            task.abort();
        }
    }

    /// Logs a failure, unless it was the last one that was logged.
    pub(super) fn log(&self, text: &str) {
        if *self.logged.borrow() != text {
            tracing::error!("cluster: {text}");
            text.clone_into(&mut self.logged.borrow_mut());
        }
    }

    /// Logs why there is no connection. That a lost server cannot be reached is no news.
    pub(super) fn log_failure(&self, failure: &RequestFailure) {
        let is_known = !self.logged.borrow().is_empty();
        match failure {
            RequestFailure::Lost(_) if is_known => {}
            failure => self.log(&format!("the engine cannot be used: {failure}")),
        }
    }

    /// Logs what could be better about the server, besides what was logged of the last one.
    pub(super) fn log_warnings(&self, warnings: Vec<String>) {
        let logged = self.warned.replace(warnings);
        let warnings = self.warned.borrow();
        for warning in warnings.iter().filter(|it| !logged.contains(it)) {
            tracing::warn!("cluster: the engine can be used; however, {warning}");
        }
    }

    /// Logs that the server does not write for now, unless that is known.
    pub(super) fn log_refused(&self, code: &str, text: &str) {
        if *self.refused.borrow() != code {
            tracing::error!("cluster: the engine stores nothing for now, but is read: {text}");
            code.clone_into(&mut self.refused.borrow_mut());
        }
    }

    /// Notes that the server writes.
    pub(super) fn log_accepted(&self) {
        if !self.refused.take().is_empty() {
            tracing::info!("cluster: the engine stores again");
        }
    }

    /// Notes that the engine can be used.
    pub(super) fn log_return(&self) {
        if !self.logged.take().is_empty() {
            tracing::info!("cluster: the engine can be used again");
        }
    }

    /// A connection of its own to the primary, for requests that wait.
    pub(super) async fn open(&self) -> Result<ServerLink, RequestFailure> {
        let address = self.primary.borrow().as_ref().map(|(_, address)| address.clone());
        let address = address.ok_or_else(|| RequestFailure::Lost("no connection".to_owned()))?;
        ServerLink::open(&address, &self.login).await
    }

    /// Removes the entries of all subjects that begin with these tokens.
    pub(super) async fn purge(&self, tokens: &str) {
        let link = self.primary.borrow().as_ref().map(|(link, _)| link.share());
        let Some(mut link) = link else { return };
        if let Err(failure) = self.purge_on(&mut link, tokens).await {
            self.log(&format!("entries cannot be removed: {failure}"));
        }
    }

    async fn purge_on(&self, link: &mut ServerLink, tokens: &str) -> Result<(), RequestFailure> {
        let mut cursor = 0;
        loop {
            let answer = link.ask(&self.keys.scan(tokens, cursor), REQUEST).await?;
            let malformed = || RequestFailure::Lost("an answer to SCAN is malformed".to_owned());
            let (next, subjects) = page::scanned(answer).ok_or_else(malformed)?;
            let mut pipeline = redis::pipe();
            for subject in &subjects {
                pipeline.add_command(self.keys.purge(subject));
            }
            if !subjects.is_empty() {
                for answer in link.ask_all(&pipeline, REQUEST).await? {
                    answer?;
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
