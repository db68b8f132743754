//! Orders and renews certificates at certificate authorities (ACME, RFC 8555) while the server
//! runs. The acceptors of the listeners use them from the registry of issued certificates.
//!
//! [`AcmePlan`] decides what is due; an order runs as a task of its own. There is one account, with
//! one plan, for each folder in which certificates are stored.

mod failure;
mod http;
mod issuer;
mod order;
mod plan;

use super::authorities::Authorities;
use super::job::{Job, JobKind, JobSetup, Turn};
use super::results::Results;
use crate::config::Acme;
use crate::dialect::Env;
use crate::stats::Counters;
use crate::time::Now;
use crate::tls::IssuedCertificates;
use crate::uring::sys::random_u64;
use failure::OrderFailure;
use issuer::Issuer;
use plan::{AcmePlan, FailedOrder, PlanTask, Validity};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// The minimum time between two warnings of handshakes without a certificate, in milliseconds.
const WARNING_MS: u64 = 60_000;
/// How often the plan is looked at, in milliseconds: renewals are due by the clock of the calendar.
const LOOK_MS: u64 = 1000;

pub(super) const JOB: JobKind = JobKind { is_needed, start };

fn is_needed(env: &Env) -> bool {
    env.config.acme_sections().next().is_some()
}

fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    let mut job = AcmeJob {
        accounts: BTreeMap::new(),
        issued: setup.env.runtime.issued.clone(),
        done: Results::new(&setup.notifier),
        system: setup.authorities.clone(),
        counters: setup.counters.clone(),
        refused: 0,
        warned_ms: None,
    };
    job.apply(&setup.env);
    Ok(Box::new(job))
}

/// The result of a task.
enum AcmeOutcome {
    /// An order, and how long the certificate authority has asked to wait, in seconds.
    Ordered(Result<Validity, OrderFailure>, u64),
    /// The window of the renewal, and after how many seconds to ask again.
    Informed(Option<(Validity, u64)>),
}

/// An account with its domains.
struct AcmeAccount {
    issuer: Rc<Issuer>,
    plan: AcmePlan,
}

/// All accounts, by the folders of their stores.
struct AcmeJob {
    accounts: BTreeMap<String, AcmeAccount>,
    issued: Arc<IssuedCertificates>,
    /// The store, the domain and the result of each task that has ended.
    done: Results<(String, String, AcmeOutcome)>,
    system: Rc<Authorities>,
    counters: Arc<Counters>,
    /// The refused handshakes that a warning has counted.
    refused: u64,
    warned_ms: Option<u64>,
}

impl Job for AcmeJob {
    fn reload(&mut self, env: &Arc<Env>, _now_ms: u64) {
        self.apply(env);
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        let now = Now { ms: turn.now_ms, unix_s: turn.unix_ms / 1000 };
        for (store, domain, outcome) in self.done.take() {
            self.report(&store, &domain, outcome, now);
        }
        if !turn.draining {
            for (store, account) in &mut self.accounts {
                for (domain, task) in account.plan.due(now) {
                    let is_order = matches!(task, PlanTask::Issue { .. });
                    self.counters.acme_orders.add(u64::from(is_order));
                    let (issuer, store, done) =
                        (account.issuer.clone(), store.clone(), self.done.clone());
                    tokio::task::spawn_local(async move {
                        let outcome = run(&issuer, &domain, task).await;
                        done.put((store, domain, outcome));
                    });
                }
            }
        }
        self.count(now);
    }

    fn deadline_ms(&self, turn: &Turn<'_>) -> u64 {
        match self.accounts.is_empty() || turn.draining {
            true => u64::MAX,
            false => turn.now_ms + LOOK_MS,
        }
    }
}

async fn run(issuer: &Issuer, domain: &str, task: PlanTask) -> AcmeOutcome {
    match task {
        PlanTask::RenewalInfo => AcmeOutcome::Informed(order::renewal_info(issuer, domain).await),
        PlanTask::Issue { is_retry } => {
            tracing::debug!(domain, "a certificate is ordered");
            let order = order::order(issuer, domain, is_retry);
            let (outcome, asked_s) = http::noting_retry_after(order).await;
            if outcome.is_err() {
                issuer.forget().await;
            }
            AcmeOutcome::Ordered(outcome, asked_s)
        }
    }
}

impl AcmeJob {
    /// Takes over the accounts and domains of a configuration. What is in flight for others is
    /// completed, and its result stored.
    fn apply(&mut self, env: &Env) {
        let mut sections: BTreeMap<&str, (Acme, BTreeSet<&String>)> = BTreeMap::new();
        for acme in env.config.acme_sections() {
            let own = || (acme.without_domains(), BTreeSet::new());
            let (_, domains) = sections.entry(&acme.store).or_insert_with(own);
            domains.extend(&acme.domains);
        }
        let mut before = std::mem::take(&mut self.accounts);
        for (store, (settings, domains)) in sections {
            let renew_before_days = settings.renew_before_days;
            let old = before.remove(store);
            let is_same = |account: &AcmeAccount| account.issuer.settings == settings;
            let mut account = match old {
                Some(account) if is_same(&account) => account,
                old => {
                    let mut plan = old.map(|account| account.plan).unwrap_or_default();
                    plan.restart();
                    let issuer = Issuer::new(settings, &self.issued, &self.system);
                    AcmeAccount { issuer: Rc::new(issuer), plan }
                }
            };
            let validity = |domain: &String| {
                let certificate = self.issued.certificate(domain);
                if certificate.is_none() {
                    tracing::info!(
                        domain,
                        "there is no certificate yet; TLS handshakes for this domain fail until \
                         it is issued"
                    );
                }
                certificate.map(|it| (it.from_s, it.until_s))
            };
            let domains: Vec<_> =
                domains.into_iter().map(|it| (it.clone(), validity(it))).collect();
            account.plan.set(domains, renew_before_days);
            if !account.plan.is_empty() {
                self.accounts.insert(store.to_owned(), account);
            }
        }
    }

    fn report(&mut self, store: &str, domain: &str, outcome: AcmeOutcome, now: Now) {
        let random = random_u64().unwrap_or(0);
        let mut none = AcmePlan::default();
        // The account may have been removed from the configuration meanwhile.
        let plan = self.accounts.get_mut(store).map_or(&mut none, |account| &mut account.plan);
        match outcome {
            AcmeOutcome::Informed(info) => plan.informed(domain, info, random, now),
            AcmeOutcome::Ordered(Ok(validity), _) => {
                plan.ordered(domain, validity, now);
                self.counters.acme_certificates.add(1);
                let valid_s = validity.1.saturating_sub_unsigned(now.unix_s);
                tracing::info!(domain, valid_s, "a certificate was issued");
            }
            AcmeOutcome::Ordered(Err(failure), asked_s) => {
                failure.count(&self.counters);
                let failed = FailedOrder { is_local: failure.is_local(), asked_s };
                let next_s = plan.failed(domain, failed, random, now) / 1000;
                tracing::warn!(domain, %failure, next_s, "no certificate was issued");
            }
        }
    }

    /// Sets the gauges, and warns of handshakes without a certificate.
    fn count(&mut self, now: Now) {
        let (domains, missing) = self.issued.count();
        self.counters.acme_domains.set(domains as u64);
        self.counters.acme_missing.set(missing as u64);
        self.counters.acme_challenges.set(self.issued.answered());
        let refused = self.issued.refused();
        self.counters.acme_handshakes_refused.set(refused);
        let may_warn = self.warned_ms.is_none_or(|at_ms| at_ms + WARNING_MS <= now.ms);
        if refused > self.refused && may_warn {
            let handshakes = refused - self.refused;
            tracing::warn!(
                handshakes,
                "TLS handshakes have failed because the certificate of their domain is not there \
                 yet"
            );
            (self.refused, self.warned_ms) = (refused, Some(now.ms));
        }
    }
}
