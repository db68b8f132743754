//! When the certificate of each domain is ordered and renewed. It does no I/O: results, time and
//! random numbers are arguments.

use crate::time::{Backoff, Now};
use std::collections::{BTreeMap, VecDeque};

/// The maximum number of orders of one account in any hour. Let's Encrypt allows 300 in three.
pub(super) const ORDERS_PER_HOUR: usize = 100;
/// The maximum number of domains with an order or a request in flight.
pub(super) const IN_FLIGHT: usize = 4;
/// The first wait after an order that failed, and the maximum one. With these, a domain has at most
/// four failed orders in any hour; Let's Encrypt allows five.
const FIRST_WAIT_MS: u64 = 5 * MINUTE_MS;
const MAX_WAIT_MS: u64 = 6 * HOUR_MS;
/// The same after an order that has not reached the certificate authority, or whose certificate
/// could not be stored: nothing of the authority was used.
const FIRST_LOCAL_WAIT_MS: u64 = MINUTE_MS;
const MAX_LOCAL_WAIT_MS: u64 = HOUR_MS;
/// The maximum wait that the certificate authority may ask for.
const MAX_ASKED_WAIT_MS: u64 = 7 * 24 * HOUR_MS;
/// The bounds of the time between two questions for renewal information (RFC 9773 section 4.3).
const MIN_INFO_WAIT_MS: u64 = MINUTE_MS;
const MAX_INFO_WAIT_MS: u64 = 24 * HOUR_MS;
/// The time until the next such question if the certificate authority did not answer it.
const INFO_WAIT_MS: u64 = 6 * HOUR_MS;
/// The minimum time from a certificate to its renewal, unless half of its lifetime is shorter.
const MIN_RENEWAL_MS: u64 = HOUR_MS;
/// Certificates with a shorter lifetime are renewed after half of it.
const SHORT_LIFETIME_S: i64 = 10 * DAY_S;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_S: i64 = 86_400;

/// The validity of a certificate: its first and last second, since 1970.
pub(super) type Validity = (i64, i64);

/// What is to be done for a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlanTask {
    /// Order a certificate. `is_retry` if the order before it has failed.
    Issue { is_retry: bool },
    /// Ask when the certificate should be renewed.
    RenewalInfo,
}

/// How an order has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailedOrder {
    /// Whether nothing of the certificate authority was used.
    pub(super) is_local: bool,
    /// How long the certificate authority has asked to wait, in seconds; 0 if it has not.
    pub(super) asked_s: u64,
}

#[derive(Debug, Default)]
struct PlanEntry {
    validity: Option<Validity>,
    in_flight: bool,
    /// Before this time no certificate is ordered, in milliseconds.
    order_ms: u64,
    /// Before this time no renewal information is asked for, in milliseconds.
    info_ms: u64,
    /// When the certificate authority suggests the renewal, in seconds since 1970.
    suggested_s: Option<i64>,
    backoff: Backoff,
}

/// The domains of one account; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct AcmePlan {
    entries: BTreeMap<String, PlanEntry>,
    /// When the orders of the last hour were started, in milliseconds, oldest first.
    orders_ms: VecDeque<u64>,
    /// How long before its end a certificate is renewed; 0 is by its lifetime.
    renew_before_s: i64,
}

impl AcmePlan {
    /// Replaces the domains, each with the validity of its certificate, if it has one. Domains that
    /// were there before keep their waits.
    pub(super) fn set(
        &mut self,
        domains: impl IntoIterator<Item = (String, Option<Validity>)>,
        renew_before_days: u64,
    ) {
        self.renew_before_s = DAY_S * renew_before_days as i64;
        let mut before = std::mem::take(&mut self.entries);
        for (domain, validity) in domains {
            let entry = before.remove(&domain).unwrap_or_default();
            self.entries.insert(domain, PlanEntry { validity, ..entry });
        }
    }

    /// Ends all waits, because the settings have changed. The limit of orders per hour stays.
    pub(super) fn restart(&mut self) {
        for entry in self.entries.values_mut() {
            (entry.order_ms, entry.info_ms, entry.suggested_s) = (0, 0, None);
            entry.backoff = Backoff::default();
        }
    }

    /// Whether there are no domains.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is to be done now. It is in flight from now on, until one of the functions below is
    /// called for its domain.
    pub(super) fn due(&mut self, now: Now) -> Vec<(String, PlanTask)> {
        while self.orders_ms.front().is_some_and(|at_ms| at_ms + HOUR_MS <= now.ms) {
            self.orders_ms.pop_front();
        }
        let mut in_flight = self.entries.values().filter(|entry| entry.in_flight).count();
        let mut due = Vec::new();
        for (domain, entry) in &mut self.entries {
            if in_flight >= IN_FLIGHT {
                break;
            }
            if entry.in_flight {
                continue;
            }
            let is_due =
                entry.renewal_s(self.renew_before_s).is_none_or(|at_s| at_s <= unix_s(now));
            let task = match is_due {
                true if entry.order_ms > now.ms || self.orders_ms.len() >= ORDERS_PER_HOUR => {
                    continue;
                }
                true => PlanTask::Issue { is_retry: entry.backoff.failures() > 0 },
                false if entry.info_ms > now.ms => continue,
                false => PlanTask::RenewalInfo,
            };
            if is_due {
                self.orders_ms.push_back(now.ms);
            }
            entry.in_flight = true;
            in_flight += 1;
            due.push((domain.clone(), task));
        }
        due
    }

    /// An order has ended with a certificate.
    pub(super) fn ordered(&mut self, domain: &str, validity: Validity, now: Now) {
        let Some(entry) = self.entries.get_mut(domain) else { return };
        // Otherwise an authority that suggests the renewal of every certificate would be asked for
        // one again and again.
        let half_ms = u64::try_from(lifetime_s(validity)).unwrap_or(0).saturating_mul(500);
        let order_ms = now.ms + half_ms.min(MIN_RENEWAL_MS);
        *entry = PlanEntry { validity: Some(validity), order_ms, ..PlanEntry::default() };
    }

    /// An order has failed. Returns how long the next one waits, in milliseconds. `random` is any
    /// random number.
    pub(super) fn failed(
        &mut self,
        domain: &str,
        failed: FailedOrder,
        random: u64,
        now: Now,
    ) -> u64 {
        let Some(entry) = self.entries.get_mut(domain) else { return 0 };
        let (first_ms, max_ms) = match failed.is_local {
            true => (FIRST_LOCAL_WAIT_MS, MAX_LOCAL_WAIT_MS),
            false => (FIRST_WAIT_MS, MAX_WAIT_MS),
        };
        let wait_ms = entry.backoff.fail(first_ms, max_ms);
        let asked_ms = failed.asked_s.saturating_mul(1000).min(MAX_ASKED_WAIT_MS);
        // Never less than the wait: several servers must not try at the same time, and none sooner.
        let wait_ms = wait_ms.max(asked_ms) + random % (wait_ms / 4 + 1);
        (entry.in_flight, entry.order_ms) = (false, now.ms + wait_ms);
        wait_ms
    }

    /// Renewal information has arrived: the first and the last second of the window in which the
    /// certificate authority suggests the renewal, and how many seconds later it wants to be asked
    /// again. `None` if it did not give any. `random` chooses a second of the window.
    pub(super) fn informed(
        &mut self,
        domain: &str,
        info: Option<(Validity, u64)>,
        random: u64,
        now: Now,
    ) {
        let Some(entry) = self.entries.get_mut(domain) else { return };
        entry.in_flight = false;
        let Some(((from_s, until_s), again_s)) = info else {
            entry.info_ms = now.ms + INFO_WAIT_MS;
            return;
        };
        let again_ms = again_s.saturating_mul(1000).clamp(MIN_INFO_WAIT_MS, MAX_INFO_WAIT_MS);
        entry.info_ms = now.ms + again_ms;
        // A second that was chosen before stays while it is in the window (section 4.2).
        let is_in_window = |at_s: &i64| (from_s..=until_s).contains(at_s);
        if from_s <= until_s && !entry.suggested_s.as_ref().is_some_and(is_in_window) {
            let seconds = until_s.abs_diff(from_s).saturating_add(1);
            entry.suggested_s = Some(from_s.saturating_add_unsigned(random % seconds));
        }
    }
}

impl PlanEntry {
    /// When the certificate is renewed, in seconds since 1970; `None` if there is none.
    fn renewal_s(&self, renew_before_s: i64) -> Option<i64> {
        let validity = self.validity?;
        let (until_s, lifetime_s) = (validity.1, lifetime_s(validity));
        let before_s = match renew_before_s {
            0 if lifetime_s < SHORT_LIFETIME_S => lifetime_s / 2,
            0 => lifetime_s / 3,
            // Otherwise a certificate with a short lifetime would be renewed again and again.
            before_s => before_s.min(lifetime_s / 2),
        };
        let own_s = until_s.saturating_sub(before_s);
        Some(self.suggested_s.map_or(own_s, |suggested_s| suggested_s.min(own_s)))
    }
}

fn lifetime_s((from_s, until_s): Validity) -> i64 {
    until_s.saturating_sub(from_s).max(0)
}

fn unix_s(now: Now) -> i64 {
    i64::try_from(now.unix_s).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
