use super::*;

const START_S: u64 = 1_800_000_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const FAILED: FailedOrder = FailedOrder { is_local: false, asked_s: 0 };
const LOCAL: FailedOrder = FailedOrder { is_local: true, asked_s: 0 };
const ORDER: PlanTask = PlanTask::Issue { is_retry: false };
const RETRY: PlanTask = PlanTask::Issue { is_retry: true };

/// The clocks `ms` milliseconds after the start.
fn at(ms: u64) -> Now {
    Now { ms, unix_s: START_S + ms / 1000 }
}

/// A plan with these domains, none of which has a certificate.
fn plan(domains: &[&str]) -> AcmePlan {
    let mut plan = AcmePlan::default();
    plan.set(domains.iter().map(|it| ((*it).to_owned(), None)), 0);
    plan
}

/// A plan with one domain, whose certificate began at the start and lasts for `days`.
fn lasting(days: i64, renew_before_days: u64) -> AcmePlan {
    let mut plan = AcmePlan::default();
    plan.set([("a".to_owned(), Some(validity(days)))], renew_before_days);
    // Renewal information is not given.
    assert_eq!(plan.due(at(0)), [("a".to_owned(), PlanTask::RenewalInfo)]);
    plan.informed("a", None, 0, at(0));
    plan
}

fn validity(days: i64) -> Validity {
    (START_S as i64, START_S as i64 + days * DAY_S)
}

/// When the certificate is ordered, in milliseconds after the start, in steps of an hour.
fn order_ms(plan: &mut AcmePlan, until_ms: u64) -> Option<u64> {
    (0..=until_ms / HOUR_MS).map(|hour| hour * HOUR_MS).find(|ms| {
        let due = plan.due(at(*ms));
        if due.iter().any(|(_, task)| *task == PlanTask::RenewalInfo) {
            plan.informed("a", None, 0, at(*ms));
        }
        due.iter().any(|(_, task)| *task != PlanTask::RenewalInfo)
    })
}

#[test]
fn acme_plan_orders_at_once_and_once_at_a_time() {
    let mut plan = plan(&["a", "b"]);
    let both = [("a".to_owned(), ORDER), ("b".to_owned(), ORDER)];
    assert_eq!(plan.due(at(0)), both);
    assert_eq!(plan.due(at(DAY_MS)), [], "both are in flight");
    plan.ordered("a", validity(90), at(0));
    assert_eq!(plan.due(at(0)), [("a".to_owned(), PlanTask::RenewalInfo)]);
}

#[test]
fn acme_plan_renews_at_a_third_or_half_of_the_lifetime_or_as_configured() {
    for (days, renew_before_days, renewed_days) in
        [(90, 0, 60), (10, 0, 7), (6, 0, 3), (90, 20, 70), (90, 45, 45), (90, 89, 45), (6, 30, 3)]
    {
        let mut plan = lasting(days, renew_before_days);
        let ordered_ms = order_ms(&mut plan, 200 * DAY_MS).expect("it is renewed");
        // Ten days end between two hours.
        let expected = match days {
            10 => 160 * HOUR_MS,
            _ => renewed_days * DAY_MS,
        };
        assert_eq!(ordered_ms, expected, "{days} days, {renew_before_days} before the end");
    }
    // An expired certificate, and one of a clock that was wrong.
    for validity in [(0, 1), (START_S as i64, START_S as i64), (i64::MIN, i64::MAX)] {
        let mut plan = AcmePlan::default();
        plan.set([("a".to_owned(), Some(validity))], 0);
        let is_order = plan.due(at(0))[0].1 == ORDER;
        assert_eq!(is_order, validity.1 != i64::MAX, "{validity:?}");
    }
}

#[test]
fn acme_plan_waits_longer_after_each_failure_and_starts_again_after_a_success() {
    let mut plan = plan(&["a"]);
    let mut now_ms = 0;
    for (minutes, task) in [(5, ORDER), (10, RETRY), (20, RETRY), (40, RETRY), (80, RETRY)] {
        assert_eq!(plan.due(at(now_ms)), [("a".to_owned(), task)]);
        let wait_ms = plan.failed("a", FAILED, 0, at(now_ms));
        assert_eq!(wait_ms, minutes * MINUTE_MS);
        assert_eq!(plan.due(at(now_ms + wait_ms - 1)), []);
        now_ms += wait_ms;
    }
    for _ in 0..8 {
        plan.due(at(now_ms));
        now_ms += plan.failed("a", FAILED, 0, at(now_ms));
    }
    plan.due(at(now_ms));
    assert_eq!(plan.failed("a", FAILED, 0, at(now_ms)), 6 * HOUR_MS, "the maximum");
    plan.due(at(now_ms + 6 * HOUR_MS));
    plan.ordered("a", validity(0), at(now_ms));
    assert_eq!(plan.due(at(now_ms + 6 * HOUR_MS)), [("a".to_owned(), ORDER)]);
    assert_eq!(plan.failed("a", FAILED, 0, at(now_ms)), 5 * MINUTE_MS);
}

#[test]
fn acme_plan_tries_sooner_if_the_authority_was_not_used() {
    let mut plan = plan(&["a"]);
    let waits = [(); 8].map(|()| plan.failed("a", LOCAL, 0, at(0)) / MINUTE_MS);
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn acme_plan_jitter_only_adds_to_the_wait() {
    for random in [0, 1, u64::MAX / 3, u64::MAX] {
        let wait_ms = plan(&["a"]).failed("a", FAILED, random, at(0));
        assert!((FIRST_WAIT_MS..=FIRST_WAIT_MS * 5 / 4).contains(&wait_ms), "{random}: {wait_ms}");
    }
    let longest = plan(&["a"]).failed("a", FAILED, FIRST_WAIT_MS / 4, at(0));
    assert_eq!(longest, FIRST_WAIT_MS * 5 / 4);
}

#[test]
fn acme_plan_respects_the_wait_that_is_asked_for_up_to_a_week() {
    let asked = |asked_s| FailedOrder { is_local: false, asked_s };
    for (asked_s, wait_ms) in [
        (1, FIRST_WAIT_MS),
        (300, FIRST_WAIT_MS),
        (301, 301_000),
        (3600, HOUR_MS),
        (7 * 86_400, 7 * DAY_MS),
        (7 * 86_400 + 1, 7 * DAY_MS),
        (u64::MAX, 7 * DAY_MS),
    ] {
        let mut plan = plan(&["a"]);
        plan.due(at(0));
        assert_eq!(plan.failed("a", asked(asked_s), 0, at(0)), wait_ms, "{asked_s}");
        assert_eq!(plan.due(at(wait_ms - 1)), []);
        assert_eq!(plan.due(at(wait_ms)), [("a".to_owned(), RETRY)]);
    }
}

#[test]
fn acme_plan_bounds_orders_per_hour_and_in_flight() {
    let names: Vec<String> = (0..ORDERS_PER_HOUR + 20).map(|it| format!("d{it:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut plan = plan(&names);
    let mut ordered = 0;
    let mut now_ms = 0;
    loop {
        let due = plan.due(at(now_ms));
        if due.is_empty() {
            break;
        }
        assert!(due.len() <= IN_FLIGHT);
        assert_eq!(plan.due(at(now_ms)), [], "no more in flight");
        for (domain, task) in due {
            ordered += usize::from(task == ORDER);
            plan.ordered(&domain, validity(90), at(now_ms));
            plan.informed(&domain, None, 0, at(now_ms));
        }
        now_ms += 1000;
    }
    assert_eq!(ordered, ORDERS_PER_HOUR);
    // Not even a reload of changed settings allows more.
    plan.restart();
    let orders = |plan: &mut AcmePlan, ms| {
        let due = plan.due(at(ms));
        for (domain, task) in &due {
            if *task == PlanTask::RenewalInfo {
                plan.informed(domain, None, 0, at(ms));
            }
        }
        due.iter().filter(|(_, task)| *task == ORDER).count()
    };
    for _ in 0..ORDERS_PER_HOUR {
        assert_eq!(orders(&mut plan, HOUR_MS - 1), 0);
    }
    assert_eq!(orders(&mut plan, HOUR_MS), IN_FLIGHT, "the first orders are an hour old");
}

#[test]
fn acme_plan_keeps_waits_over_a_reload_unless_the_settings_have_changed() {
    let mut plan = plan(&["a", "b"]);
    plan.due(at(0));
    plan.failed("a", FAILED, 0, at(0));
    plan.ordered("b", validity(90), at(0));
    plan.informed("b", None, 0, at(0));
    plan.set([("a".to_owned(), None), ("c".to_owned(), None)], 0);
    assert_eq!(plan.due(at(1)), [("c".to_owned(), ORDER)], "b was removed, a waits");
    plan.ordered("b", validity(90), at(0));
    plan.failed("b", FAILED, 0, at(1));
    assert_eq!(plan.entries.len(), 2, "results of removed domains are ignored");
    plan.restart();
    assert_eq!(plan.due(at(2)), [("a".to_owned(), ORDER)], "c is still in flight");
    plan.set([], 0);
    assert!(plan.is_empty());
}

#[test]
fn acme_plan_follows_renewal_information_that_is_earlier() {
    let day = |days: i64| START_S as i64 + days * DAY_S;
    let informed = |window: Validity, random| {
        let mut plan = AcmePlan::default();
        plan.set([("a".to_owned(), Some(validity(90)))], 0);
        plan.due(at(0));
        plan.informed("a", Some((window, 3600)), random, at(0));
        plan
    };
    let renewed_days = |window, random| {
        order_ms(&mut informed(window, random), 100 * DAY_MS).map(|ms| ms / DAY_MS)
    };
    assert_eq!(renewed_days((day(40), day(42)), 0), Some(40));
    assert_eq!(renewed_days((day(40), day(42)), 2 * DAY_S as u64), Some(42), "any second of it");
    assert_eq!(renewed_days((day(-2), day(-1)), 0), Some(0), "in the past: now");
    assert_eq!(renewed_days((day(80), day(82)), 0), Some(60), "never later than without it");
    assert_eq!(
        renewed_days((day(42), day(40)), 0),
        Some(60),
        "a window that ends before it begins"
    );
    assert_eq!(renewed_days((i64::MIN, i64::MAX), u64::MAX - 1), Some(60));
    // Asked again after the time that the authority has named, within bounds.
    for (again_s, again_ms) in [(3600, HOUR_MS), (0, MINUTE_MS), (u64::MAX, 24 * HOUR_MS)] {
        let mut plan = informed((day(40), day(42)), 0);
        plan.due(at(again_ms));
        plan.informed("a", Some(((day(40), day(42)), again_s)), 0, at(0));
        assert_eq!(plan.due(at(again_ms - 1)), []);
        assert_eq!(plan.due(at(again_ms)), [("a".to_owned(), PlanTask::RenewalInfo)]);
    }
    // The chosen second stays while it is in the window, and is chosen again when it is not.
    let mut plan = informed((day(40), day(42)), 0);
    plan.informed("a", Some(((day(39), day(42)), 3600)), 1, at(0));
    assert_eq!(plan.entries["a"].suggested_s, Some(day(40)));
    plan.informed("a", Some(((day(41), day(42)), 3600)), 5, at(0));
    assert_eq!(plan.entries["a"].suggested_s, Some(day(41) + 5));
}

#[test]
fn acme_plan_does_not_renew_a_new_certificate_that_is_suggested_to_be_renewed() {
    let past = (START_S as i64 - 2, START_S as i64 - 1);
    for (lifetime_s, wait_ms) in [(90 * DAY_S, HOUR_MS), (7200, HOUR_MS), (20, 10_000), (0, 0)] {
        let mut plan = plan(&["a"]);
        plan.due(at(0));
        plan.ordered("a", (START_S as i64, START_S as i64 + lifetime_s), at(0));
        if lifetime_s > 0 {
            assert_eq!(plan.due(at(0)), [("a".to_owned(), PlanTask::RenewalInfo)]);
            plan.informed("a", Some((past, 3600)), 0, at(0));
            assert_eq!(plan.due(at(wait_ms - 1)), [], "{lifetime_s}");
        }
        assert_eq!(plan.due(at(wait_ms)), [("a".to_owned(), ORDER)], "{lifetime_s}");
    }
}
