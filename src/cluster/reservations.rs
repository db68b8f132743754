//! What the nodes have reserved of `limits.connections` of applications, so that all nodes together
//! never admit more.
//!
//! Of each application with a limit the log has one entry: how many connections each node has
//! reserved. A node that reserves more or gives back replaces the entry, and expects the one that
//! it has read last: the engine takes one of several. So a node that replaces the entry knows all
//! of it, however late nodes read the log. A node admits as many connections as the last entry that
//! it has read gives it, and no more than the numbers of the others there leave of the limit.
//! Another node may have replaced that entry since, but has left this node's number in it and
//! counted it; so what all nodes together may admit is within the limit, even if a node has more
//! connections than it has reserved.
//!
//! A node stops using connections before it writes that it gives them back. What a dead node had
//! reserved is free from its death on, so a node admits no connection once the last answer of the
//! engine is as old as the fence. In a log that has lost its entries, nodes first have time to
//! reserve again what they had; no node reserves more before that.

mod need;
mod table;

use super::engine::Append;
use super::entry::{self, LimitPart};
use super::nodes::ClusterNodes;
use super::subject;
use crate::config::Cluster;
use crate::dialect::{App, Env};
use need::ConnectionNeed;
use std::collections::BTreeMap;
use table::ReservationTable;

/// The numbers of these entries begin here, below those of entries about nodes.
const NUMBERS: u64 = 1 << 61;
/// The first number that is not one of these entries.
const NUMBERS_END: u64 = 1 << 62;
/// How long more must be reserved than needed before it is given back, in milliseconds.
const GIVE_BACK_MS: u64 = 1000;
/// The time between two examinations that no core has asked for, in milliseconds.
const EXAMINE_MS: u64 = 250;

/// Whether what the log has is all that nodes have reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogTrust {
    /// Not known: this process is new, and the log may have lost what others had. At this time, in
    /// milliseconds, they have had time to reserve it again.
    New { until_ms: Option<u64> },
    /// The log was lost, and the nodes have time to reserve again what they had.
    Refreshing,
    /// It is.
    Settled,
}

impl LogTrust {
    /// The number of connections that this node may admit. While others may not have reserved again
    /// what they had, it is not more than before the log was lost.
    fn usable(self, table: &ReservationTable, own: u64, limit: u32) -> u32 {
        let max = if self == LogTrust::Refreshing { table.claim() } else { u32::MAX };
        table.usable(own, limit).min(max)
    }
}

/// What follows from an examination.
#[derive(Debug, Default)]
pub(super) struct ReservationWork {
    /// Entries to send.
    pub(super) appends: Vec<Append>,
    /// The applications that have room for connections that wait.
    pub(super) offers: Vec<u32>,
    /// The number of connections that this node has reserved, of all applications.
    pub(super) reserved: u64,
}

/// See the module's documentation.
pub(super) struct Reservations {
    process: u64,
    name: String,
    rejoin_ms: u64,
    append_ms: u64,
    /// The life of the log.
    epoch: u64,
    trust: LogTrust,
    tables: BTreeMap<u32, ReservationTable>,
    /// The number of the last entry.
    number: u64,
    /// Whether something was read that may change what is to be done.
    is_changed: bool,
    /// The version of the configuration.
    version: u32,
    due_ms: u64,
    /// Whether the process accepts no connections any more.
    is_draining: bool,
}

impl Reservations {
    /// The reservations of which nothing was read, for a process with this number.
    pub(super) fn new(process: u64, cluster: &Cluster) -> Reservations {
        Reservations {
            process,
            name: cluster.name.clone(),
            rejoin_ms: cluster.rejoin_ms,
            append_ms: cluster.append_ms,
            epoch: 0,
            trust: LogTrust::New { until_ms: None },
            tables: BTreeMap::new(),
            number: NUMBERS,
            is_changed: true,
            version: 0,
            due_ms: u64::MAX,
            is_draining: false,
        }
    }

    /// Notes that the process accepts no connections any more: what it has reserved beyond those
    /// that are open is given back.
    pub(super) fn drain(&mut self) {
        self.is_changed |= !std::mem::replace(&mut self.is_draining, true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Notes that the engine can be used, with a log of this life.
    pub(super) fn attached(&mut self, epoch: u64) {
        (self.epoch, self.is_changed) = (epoch, true);
    }

    /// Notes that the log is another one than before. `may_use` says that no node can have declared
    /// this node dead in the log before.
    pub(super) fn lose(&mut self, may_use: bool, own: u64, env: &Env) {
        let before = std::mem::replace(&mut self.trust, LogTrust::Refreshing);
        for (number, table) in &mut self.tables {
            let limit = env.apps.find(*number).map_or(0, limit_of);
            table.lose(if may_use { before.usable(table, own, limit) } else { 0 });
        }
    }

    /// Notes that the engine cannot be used.
    pub(super) fn lost(&mut self) {
        self.is_changed = true;
        self.tables.values_mut().for_each(ReservationTable::give_up);
    }

    /// Notes that nodes had time to reserve again what they had before the log was lost.
    pub(super) fn settle(&mut self) {
        if self.trust == LogTrust::Refreshing {
            self.trust = LogTrust::Settled;
            self.tables.values_mut().for_each(ReservationTable::settle);
            self.is_changed = true;
        }
    }

    /// Notes an entry of an application.
    pub(super) fn on_part(
        &mut self,
        app: u32,
        part: &LimitPart,
        sequence: u64,
        nodes: &mut ClusterNodes,
        now_ms: u64,
    ) {
        let mut rows = BTreeMap::new();
        for (node, count) in &part.reserved {
            if *count > 0 && nodes.note_state(*node, now_ms) {
                rows.insert(*node, *count);
            }
        }
        self.is_changed |= self.tables.entry(app).or_default().read(rows, sequence);
        let is_settled = part.settled_in == Some(self.epoch);
        if is_settled && matches!(self.trust, LogTrust::New { .. }) {
            self.trust = LogTrust::Settled;
        }
    }

    /// Notes that a node is dead; this one is to remove it from entries if `is_ours`.
    pub(super) fn remove_node(&mut self, node: u64, is_ours: bool) {
        for table in self.tables.values_mut() {
            let had_some = table.remove(node);
            table.is_unclean |= had_some && is_ours;
            self.is_changed |= had_some;
        }
    }

    /// Whether an entry with this number is one of these.
    pub(super) fn has_number(&self, number: u64) -> bool {
        (NUMBERS..NUMBERS_END).contains(&number)
    }

    /// Notes that an entry was not stored. Returns whether it is one of these.
    pub(super) fn refused(&mut self, number: u64, now_ms: u64) -> bool {
        let again_ms = self.tables.values_mut().find_map(|table| table.refused(number, now_ms));
        self.due_ms = self.due_ms.min(again_ms.unwrap_or(u64::MAX));
        self.has_number(number)
    }

    /// When [`Reservations::examine`] is due if nothing is read and no core asks, in milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        if self.is_changed { 0 } else { self.due_ms }
    }

    /// Whether the log says that this node has nothing reserved.
    pub(super) fn has_given_back(&self, own: u64) -> bool {
        self.tables.values().all(|table| table.stated(own) == 0)
    }

    /// Lets the cores admit what this node has reserved, and changes what that is. `can_send` says
    /// whether entries may be sent. Returns nothing if nothing is due.
    pub(super) fn examine(
        &mut self,
        env: &Env,
        nodes: &ClusterNodes,
        can_send: bool,
        now_ms: u64,
    ) -> Option<ReservationWork> {
        self.look_at_time(nodes, now_ms);
        let version = std::mem::replace(&mut self.version, env.runtime.version);
        let is_asked = env.apps.take_need() || version != self.version;
        if !is_asked && !std::mem::take(&mut self.is_changed) && now_ms < self.due_ms {
            return None;
        }
        (self.is_changed, self.due_ms) = (false, u64::MAX);
        let mut work = ReservationWork::default();
        for (number, app) in env.apps.iter() {
            if limit_of(app) == 0 && !self.tables.contains_key(&number) {
                continue;
            }
            if !app.is_read() {
                // Nobody is served, and the log may have more than was read.
                self.due_ms = self.due_ms.min(now_ms + EXAMINE_MS);
                continue;
            }
            self.examine_app((number, app), nodes, can_send, now_ms, &mut work);
        }
        Some(work)
    }

    /// A process that is new trusts the log when others had time to reserve again what they had.
    fn look_at_time(&mut self, nodes: &ClusterNodes, now_ms: u64) {
        let LogTrust::New { until_ms } = &mut self.trust else { return };
        if nodes.has_joined() {
            let until_ms = *until_ms.get_or_insert(now_ms + self.rejoin_ms);
            if until_ms <= now_ms {
                self.trust = LogTrust::Settled;
            }
        }
    }

    fn examine_app(
        &mut self,
        (number, app): (u32, &App),
        nodes: &ClusterNodes,
        can_send: bool,
        now_ms: u64,
        work: &mut ReservationWork,
    ) {
        let (own, limit) = (nodes.id(), limit_of(app));
        let is_settled = self.trust == LogTrust::Settled;
        let table = self.tables.entry(number).or_default();
        let mut need = ConnectionNeed {
            limit,
            open: 0,
            waiting: app.waiting(),
            reserved: table.kept(own),
            others: table.others(own),
            nodes: nodes.living_count(),
        };
        let are_alive = table.nodes().all(|node| node == own || nodes.is_alive(node, now_ms));
        let is_full = is_settled && are_alive && need.is_exhausted() && nodes.can_judge(now_ms);
        let ask_from = Some(need.ask_from()).filter(|_| can_send && is_settled);
        let usable = self.trust.usable(table, own, limit);
        // Others may have declared this node dead after that, and use what it had.
        let until_ms = nodes.appends_until_ms().unwrap_or(0);
        need.open = app.reserve((usable, until_ms), ask_from.unwrap_or(u32::MAX), is_full);
        work.reserved += u64::from(usable);
        if need.waiting > 0 && need.open < usable && now_ms <= until_ms {
            work.offers.push(number);
        }
        let is_in_use = need.open > 0 || need.waiting > 0 || table.is_in_use(own);
        if is_in_use {
            self.due_ms = self.due_ms.min(now_ms + EXAMINE_MS);
        }
        if !can_send || !is_in_use || table.is_busy(now_ms) {
            return;
        }
        let gives_all_back = self.is_draining || limit == 0 || !app.config.enabled;
        let wanted = match () {
            () if limit == 0 => 0,
            () if gives_all_back => need.open,
            () if !is_settled => need.reserved.max(table.claim()).max(need.open),
            () => need.wanted(),
        };
        let at_once = gives_all_back || need.is_over();
        let Some(count) = settle_count(table, app, (own, wanted), at_once, now_ms) else { return };
        self.number += 1;
        table.attempt(own, count, self.number, now_ms + self.append_ms);
        let part = LimitPart {
            settled_in: is_settled.then_some(self.epoch),
            reserved: table.with(own, count),
        };
        let expected = table.sequence;
        work.appends.push(self.append(&app.config.id, &part, expected));
    }

    /// The entry of an application, by its id, with the last number.
    fn append(&self, app: &str, part: &LimitPart, expected: u64) -> Append {
        let (process, number) = (self.process, self.number);
        Append {
            number,
            subject: subject::of_reservations(&self.name, app),
            id: format!("{process:016x}-l{number}"),
            ttl_s: None,
            replaces: true,
            expected: Some(expected),
            body: entry::write_limit((process, number), app, part),
        }
    }
}

/// The number that this node is to have in the log, if that is to be changed now: less only if more
/// was reserved than needed for some time, unless `at_once`. From then on the cores admit no more.
fn settle_count(
    table: &mut ReservationTable,
    app: &App,
    (own, wanted): (u64, u32),
    at_once: bool,
    now_ms: u64,
) -> Option<u32> {
    let kept = table.kept(own);
    let mut count = wanted;
    if wanted >= kept || limit_of(app) == 0 {
        table.surplus_ms = None;
    } else {
        let since_ms = *table.surplus_ms.get_or_insert(now_ms);
        count = match at_once || since_ms + GIVE_BACK_MS <= now_ms {
            true => {
                table.surplus_ms = None;
                app.give_back(wanted)
            }
            false => kept,
        };
    }
    table.differs(own, count).then_some(count)
}

/// The maximum number of connections of an application; 0 is unlimited.
fn limit_of(app: &App) -> u32 {
    u32::try_from(app.config.limits.connections).unwrap_or(u32::MAX)
}
