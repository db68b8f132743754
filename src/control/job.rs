//! What all jobs of the control thread have in common. The thread runs a list of jobs and knows
//! nothing of what they do; a job knows nothing of the thread and of other jobs.

use super::authorities::Authorities;
use super::backlog::Backlog;
use crate::dialect::Env;
use crate::hub::{ChannelEvent, Hasher};
use crate::mem::Notifier;
use crate::mem::mailbox::Receiver;
use crate::reactor::CoreLink;
use crate::stats::Counters;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// One kind of work that waits for other systems.
pub(super) trait Job {
    /// Takes over a reloaded configuration. Called once for each, in their order, before the next
    /// turn.
    fn reload(&mut self, _env: &Arc<Env>, _now_ms: u64) {}

    /// Takes results of tasks, and starts what is due. Does not wait.
    fn turn(&mut self, turn: &mut Turn<'_>);

    /// When the next turn is due if nothing wakes the thread before, in milliseconds; `u64::MAX` if
    /// there is nothing to do then.
    fn deadline_ms(&self, turn: &Turn<'_>) -> u64;

    /// Holds nothing back any more, because the reactors have ended and the thread is about to.
    /// Called before each turn from then on.
    fn finish(&mut self, _turn: &Turn<'_>) {}

    /// Whether the thread may end without a loss.
    fn is_idle(&self) -> bool {
        true
    }

    /// Counts what is lost, because the thread ends now.
    fn give_up(&mut self) {}
}

/// One turn of the thread.
pub(super) struct Turn<'t> {
    pub(super) now_ms: u64,
    /// The Unix time in milliseconds.
    pub(super) unix_ms: u64,
    /// The commands to the reactors.
    pub(super) backlog: &'t mut Backlog,
    /// Whether the reactors are being drained or have ended: no new work is started for them.
    pub(super) draining: bool,
}

/// What jobs are made from.
pub(super) struct JobSetup {
    pub(super) env: Arc<Env>,
    /// The queues of channel events, one for each core. The job that handles them takes them.
    pub(super) event_queues: Vec<Receiver<ChannelEvent>>,
    /// The queues of the cores to and from the cluster's log, if there is one. The job that runs
    /// the node takes them.
    pub(super) cluster: Option<ClusterEnds>,
    /// Wakes the control thread.
    pub(super) notifier: Notifier,
    pub(super) counters: Arc<Counters>,
    /// The system's certificate authorities.
    pub(super) authorities: Rc<Authorities>,
    pub(super) now_ms: u64,
}

/// The thread's ends of the queues of all cores to and from the cluster's log.
pub(super) struct ClusterEnds {
    /// Hashes channel names as the cores do.
    pub(super) hasher: Hasher,
    /// By the number of the core.
    pub(super) cores: Vec<CoreLink>,
}

/// An entry in the list of jobs.
pub(super) struct JobKind {
    /// Whether a configuration has work for the job, so that the thread must be started.
    pub(super) is_needed: fn(&Env) -> bool,
    /// Makes the job. It may have nothing to do until a configuration is reloaded.
    pub(super) start: fn(&mut JobSetup) -> io::Result<Box<dyn Job>>,
}
