//! Tests of the list of unanswered publishes, and of ids.

use super::super::super::pusher::Pusher;
use super::*;
use crate::codec::json::Scratch;
use crate::config::Config;
use crate::dialect::{EffectList, Env};
use crate::hub::ChannelInfo;
use crate::mem::Slot;

fn env(more_channels: usize) -> Env {
    let mut config = Config::demo();
    config.apps[0].limits.channels_per_trigger = more_channels;
    Env::new(config, 0).unwrap()
}

fn publish(
    publisher: &mut Publisher,
    env: &Env,
    data: &str,
    effects: &mut EffectList,
) -> PublishOutcome {
    let source =
        PublishSource { env, app: 0, now_ms: 1000, first_part: 0, key: None, skipped: &[] };
    let mut effects = Effects::new(Slot { index: 1, generation: 1 }, effects);
    let mut data = data.as_bytes().to_vec();
    let publish = |data: JsonText<'_, '_>| {
        publisher.publish::<Pusher>(source, Some(data), false, &mut effects)
    };
    Scratch::default().parse(&mut data, publish).expect("JSON")
}

fn event(id: &str) -> String {
    format!(r#"{{"id":{id},"name":"e","channel":"c","data":""}}"#)
}

fn refused(outcome: PublishOutcome) -> String {
    match outcome {
        PublishOutcome::Refused(text) => String::from_utf8(text).expect("UTF-8"),
        _ => String::new(),
    }
}

fn acknowledge(publisher: &mut Publisher, part: u16) -> Option<String> {
    let text = publisher.acknowledged(part, Answer::Channel(ChannelInfo::default()));
    text.map(|text| String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn publisher_is_full_at_1024_unanswered_publishes() {
    let (env, mut effects) = (env(100), EffectList::new());
    let mut publisher = Publisher::new("");
    for id in 1..1024 {
        publish(&mut publisher, &env, &event(&id.to_string()), &mut effects);
        assert!(!publisher.is_full(), "{id}");
    }
    publish(&mut publisher, &env, &event("1024"), &mut effects);
    assert!(publisher.is_full());
    // Answers in another order than the publishes.
    let answer = |id: u16| format!(r#"{{"event":"polycast:published","data":{{"id":{id}}}}}"#);
    assert_eq!(acknowledge(&mut publisher, 500), Some(answer(500)));
    assert_eq!(acknowledge(&mut publisher, 500), None, "again");
    assert!(publisher.is_full(), "the oldest is not answered");
    assert_eq!(acknowledge(&mut publisher, 1), Some(answer(1)));
    assert!(!publisher.is_full());
    for part in (2..=1024).rev().filter(|part| *part != 500) {
        assert_eq!(acknowledge(&mut publisher, part), Some(answer(part)));
    }
    assert_eq!((publisher.held_bytes(), publisher.unanswered.len()), (0, 0));
    assert_eq!(acknowledge(&mut publisher, 7), None, "none is expected");
}

fn fail(publisher: &mut Publisher, part: u16, why: Unpublished) -> Option<String> {
    let text = publisher.acknowledged(part, Answer::Unpublished("c".into(), why));
    text.map(|text| String::from_utf8(text).expect("UTF-8"))
}

/// The highest reason is reported, and a key whose events were not published is free again.
#[test]
fn publisher_gets_the_reason_why_events_were_not_published() {
    let (env, mut effects) = (env(100), EffectList::new());
    let mut publisher = Publisher::new("");
    let (refused, unknown, used) =
        (Unpublished::Refused, Unpublished::Unknown, Unpublished::KeyUsed);
    let mut part = 1;
    for (whys, status) in [
        ([Some(refused), None], 503),
        ([Some(unknown), Some(refused)], 504),
        ([Some(refused), Some(unknown)], 504),
        ([Some(used), Some(unknown)], 409),
        ([None, Some(used)], 409),
        ([None, None], 200),
        // The key has this answer now.
        ([None, None], 0),
    ] {
        let data = r#"{"id":1,"name":"e","channels":["a","b"],"data":"","idempotency_key":"k"}"#;
        let outcome = publish(&mut publisher, &env, data, &mut effects);
        if status == 0 {
            let PublishOutcome::Answered(text) = outcome else { panic!("a repetition") };
            assert_eq!(text, br#"{"event":"polycast:published","data":{"id":1}}"#);
            break;
        }
        let answers = whys.map(|why| {
            part += 1;
            match why {
                Some(why) => fail(&mut publisher, part - 1, why),
                None => acknowledge(&mut publisher, part - 1),
            }
        });
        let [None, Some(text)] = answers else { panic!("{answers:?}") };
        let expected = match status {
            200 => r#"{"event":"polycast:published","data":{"id":1}}"#.to_owned(),
            status => format!(r#""status":{status}"#),
        };
        assert!(text.contains(&expected), "{whys:?}: {text}");
    }
    assert_eq!((publisher.held, publisher.unanswered.len()), (0, 0));
}

#[test]
fn publisher_parts_stay_apart_over_the_end_of_their_numbers() {
    let env = env(10_000);
    let names: Vec<String> = (0..9_000).map(|n| format!("\"c{n}\"")).collect();
    let data = format!(r#"{{"id":1,"name":"e","channels":[{}],"data":""}}"#, names.join(","));
    let mut publisher = Publisher::new("");
    let mut unanswered = VecDeque::new();
    for round in 0..40 {
        let mut effects = EffectList::new();
        publish(&mut publisher, &env, &data, &mut effects);
        let parts = effects.iter().map(|(_, effect)| match effect {
            crate::dialect::Effect::Publish { part, .. } => *part,
            other => panic!("{other:?}"),
        });
        let parts: Vec<u16> = parts.collect();
        assert!(parts.len() == 9_000 && parts[0] > 0 && parts.is_sorted());
        let taken = |held: &Vec<u16>| held.iter().any(|part| parts.binary_search(part).is_ok());
        assert!(!unanswered.iter().any(taken), "{round}");
        unanswered.push_back(parts);
        while publisher.is_full() {
            let oldest = unanswered.pop_front().expect("an unanswered one");
            let answers = oldest.iter().filter_map(|part| acknowledge(&mut publisher, *part));
            assert_eq!(answers.count(), 1, "{round}");
        }
    }
    assert!((4..=5).contains(&unanswered.len()), "{}", unanswered.len());
}

#[test]
fn publisher_attributes_of_channels_are_bounded_in_memory() {
    let (env, mut effects) = (env(100), EffectList::new());
    let mut publisher = Publisher::new("");
    let data =
        r#"{"id":"a","name":"e","channels":["c","d"],"data":"","info":"subscription_count"}"#;
    let mut count = 0;
    while !publisher.is_full() {
        publish(&mut publisher, &env, data, &mut effects);
        count += 1;
    }
    assert_eq!(count, MAX_UNANSWERED);
    assert_eq!(acknowledge(&mut publisher, 2), None, "one of two channels");
    let answer = acknowledge(&mut publisher, 1);
    let expected = concat!(
        r#"{"event":"polycast:published","data":{"id":"a","channels":"#,
        r#"{"c":{"subscription_count":0},"d":{"subscription_count":0}}}}"#
    );
    assert_eq!(answer.as_deref(), Some(expected));
    let before = publisher.held_bytes();
    let names: Vec<String> = (0..100).map(|n| format!("\"c{n}\"")).collect();
    let channels = names.join(",");
    let info = "subscription_count";
    let data =
        format!(r#"{{"id":1,"name":"e","channels":[{channels}],"data":"","info":"{info}"}}"#);
    let mut publisher = Publisher::new("");
    for _ in 0..MAX_HELD_BYTES / (100 * PART_BYTES) {
        publish(&mut publisher, &env, &data, &mut effects);
        assert!(!publisher.is_full());
    }
    publish(&mut publisher, &env, &data, &mut effects);
    assert!(publisher.is_full() && publisher.held_bytes() > before);
}

#[test]
fn publisher_id_is_a_number_or_a_short_string() {
    let (env, mut effects) = (env(100), EffectList::new());
    let mut publisher = Publisher::new("");
    let (longest, longer) = (format!("\"{}\"", "i".repeat(64)), format!("\"{}\"", "i".repeat(65)));
    for (part, id) in
        ["7", "-7", "18446744073709551615", "1.5", "\"a\\\"b\"", &longest].into_iter().enumerate()
    {
        let outcome = publish(&mut publisher, &env, &event(id), &mut effects);
        assert!(matches!(outcome, PublishOutcome::Pending), "{id}");
        let answer = acknowledge(&mut publisher, part as u16 + 1).unwrap_or_default();
        assert!(answer.contains(&format!(r#""id":{id}}}"#)), "{answer}");
    }
    for id in ["\"\"", &longer, "null", "true", "{}", "[1]"] {
        let text = refused(publish(&mut publisher, &env, &event(id), &mut effects));
        assert!(text.contains(r#""id":null,"status":400,"#), "{id}: {text}");
    }
    let text = refused(publish(&mut publisher, &env, r#"{"name":"e"}"#, &mut effects));
    assert!(text.contains("id must be a number or a string of 1 to 64 bytes"), "{text}");
    assert_eq!(publisher.unanswered.len(), 0);
}

#[test]
fn publisher_refused_batch_publishes_nothing() {
    let (env, mut effects) = (env(100), EffectList::new());
    let mut publisher = Publisher::new("");
    let good = r#"{"name":"e","channel":"c","data":""}"#;
    let data = format!(r#"{{"id":1,"batch":[{good},{{"name":"e"}}]}}"#);
    let text = refused(publish(&mut publisher, &env, &data, &mut effects));
    assert!(text.contains(r#""id":1,"status":400,"message":"data is missing""#), "{text}");
    assert!(effects.is_empty());
    let data = format!(r#"{{"id":1,"batch":[{good},{good}]}}"#);
    publish(&mut publisher, &env, &data, &mut effects);
    assert_eq!((effects.len(), publisher.unanswered.len()), (2, 1));
    // An empty batch is answered at once, as over HTTP.
    let outcome = publish(&mut publisher, &env, r#"{"id":2,"batch":[]}"#, &mut effects);
    assert!(matches!(outcome, PublishOutcome::Answered(_)));
}
