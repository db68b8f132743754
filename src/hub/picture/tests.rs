use super::*;
use crate::hub::Mode;
use crate::ws::frame;
use proptest::prelude::*;

pub(in crate::hub) const CLEARS: Clears = &[("O", "C"), ("O", "I"), ("Operation", "Clear")];

pub(in crate::hub) fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope { members: vec![("Topic".into(), Value::text("t"))], key: "Data".into() })
}

pub(in crate::hub) fn encodings(value: Value) -> Arc<Encodings> {
    Arc::new(Encodings::new(envelope(), value, false).expect("sound"))
}

fn apply(picture: &mut Option<Picture>, (change, value): (PictureChange, Value)) -> u64 {
    Picture::apply(picture, change, Some(&encodings(value)))
}

/// The content that a client reads from a frame.
pub(in crate::hub) fn data(frame: &[u8], format: Format) -> Value {
    use crate::codec::{DecodeLimits, decode, json::Scratch};
    let (_, payload) = frame::split(frame).expect("a frame");
    let message =
        decode(format, &mut payload.to_vec(), &DecodeLimits::default(), &mut Scratch::default());
    sorted(message.expect("a message").get("Data").expect("data").clone())
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Map(mut members) => {
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Map(members)
        }
        value => value,
    }
}

/// The picture after an event, computed with whole values.
pub(in crate::hub) fn naive(
    before: Option<&Value>,
    change: Option<PictureChange>,
    value: Option<&Value>,
) -> Option<Value> {
    let (before, mode) = match change {
        None => return before.cloned(),
        Some(PictureChange::Clear) => return None,
        Some(PictureChange::Update(mode)) => (before, mode),
        Some(PictureChange::Install { mode, .. }) => (None, mode),
    };
    let value = value?;
    Some(match (mode, before, value) {
        (Mode::Merge { null_deletes }, before, Value::Map(members)) => {
            let before = before.and_then(Value::members).unwrap_or_default();
            let mut all: std::collections::BTreeMap<_, _> = before.iter().cloned().collect();
            all.extend(members.iter().cloned());
            let removed = members.iter().filter(|(_, value)| null_deletes && value.is_null());
            removed.for_each(|(key, _)| drop(all.remove(key)));
            Value::Map(all.into_iter().collect())
        }
        (Mode::Log { max, clears }, before, Value::Array(elements)) => {
            let before = before.and_then(Value::elements).unwrap_or_default();
            let mut all = [before, elements].concat();
            let is_clear = |it: &Value| {
                clears.iter().any(|(key, text)| it.get(key) == Some(&Value::text(text)))
            };
            if let Some(last) = all.iter().rposition(is_clear) {
                all.drain(..last);
            }
            while all.len() > max.max(1) as usize {
                all.remove(usize::from(is_clear(&all[0]) && all.len() > 1));
            }
            Value::Array(all)
        }
        (_, _, value) => sorted(value.clone()),
    })
}

fn decoded(picture: &mut Option<Picture>, format: Format) -> Option<Value> {
    picture.as_mut().map(|picture| data(picture.encodings(format).encoded(format), format))
}

fn change(operation: &str, number: i64) -> Value {
    Value::map([("O", Value::text(operation)), ("n", Value::Int(number))])
}

fn array<const N: usize>(elements: [Value; N]) -> Value {
    Value::Array(elements.into())
}

#[test]
fn picture_merge_has_the_last_value_of_each_member() {
    for (null_deletes, last) in [
        (false, Value::map([("a", Value::Null), ("b", Value::Int(2)), ("c", Value::Int(3))])),
        (true, Value::map([("b", Value::Int(2)), ("c", Value::Int(3))])),
    ] {
        let update = PictureChange::Update(Mode::Merge { null_deletes });
        let mut picture = None;
        let first = Value::map([("a", Value::Int(1)), ("b", Value::Int(1)), ("c", Value::Null)]);
        apply(&mut picture, (update, first));
        let then = [("c", Value::Int(3)), ("a", Value::Null), ("b", Value::Int(2))];
        apply(&mut picture, (update, Value::map(then)));
        for format in Format::ALL {
            assert_eq!(decoded(&mut picture, format), Some(last.clone()), "{format:?}");
        }
    }
}

#[test]
fn picture_log_begins_with_the_last_clearing_element() {
    let update = PictureChange::Update(Mode::Log { max: 100, clears: CLEARS });
    let mut picture = None;
    let mut push = |elements: Value, expected: Value| {
        assert_eq!(apply(&mut picture, (update, elements)), 0);
        assert_eq!(decoded(&mut picture, Format::Bson), Some(expected));
    };
    push(array([change("A", 1)]), array([change("A", 1)]));
    push(array([change("U", 2)]), array([change("A", 1), change("U", 2)]));
    push(array([change("A", 3), change("C", 4), change("A", 5)]), {
        array([change("C", 4), change("A", 5)])
    });
    push(array([change("C", 6), change("I", 7)]), array([change("I", 7)]));
    let clear = Value::map([("Operation", Value::text("Clear"))]);
    push(array([clear.clone(), Value::Int(8)]), array([clear.clone(), Value::Int(8)]));
    push(array([]), array([clear, Value::Int(8)]));
}

#[test]
fn picture_log_at_its_maximum_loses_the_oldest_but_not_the_clearing_element() {
    let update = PictureChange::Update(Mode::Log { max: 3, clears: CLEARS });
    let mut picture = None;
    let three = array([change("A", 1), change("A", 2), change("A", 3)]);
    assert_eq!(apply(&mut picture, (update, three)), 0);
    assert_eq!(apply(&mut picture, (update, array([change("A", 4)]))), 1);
    let expected = array([change("A", 2), change("A", 3), change("A", 4)]);
    assert_eq!(decoded(&mut picture, Format::Json), Some(expected));
    let again = array([change("C", 5), change("A", 6), change("A", 7)]);
    assert_eq!(apply(&mut picture, (update, again)), 0);
    let more = array([change("A", 8), change("A", 9)]);
    assert_eq!(apply(&mut picture, (update, more)), 2);
    let expected = array([change("C", 5), change("A", 8), change("A", 9)]);
    assert_eq!(decoded(&mut picture, Format::Json), Some(expected));
    let one = PictureChange::Update(Mode::Log { max: 0, clears: CLEARS });
    assert_eq!(apply(&mut picture, (one, array([change("A", 10)]))), 3);
    assert_eq!(decoded(&mut picture, Format::Json), Some(array([change("C", 5)])));
}

#[test]
fn picture_log_is_bounded_in_bytes_too() {
    let update = PictureChange::Update(Mode::Log { max: u32::MAX, clears: CLEARS });
    let big = || Value::text(&"x".repeat(PICTURE_BYTES / 2 - 100));
    let mut picture = None;
    assert_eq!(apply(&mut picture, (update, array([big(), big()]))), 0);
    assert_eq!(apply(&mut picture, (update, array([Value::text("y"), big()]))), 1);
    assert!(picture.is_some_and(|picture| !picture.is_too_large()));
}

#[test]
fn picture_may_be_too_large_by_itself() {
    let text = |bytes| Value::text(&"x".repeat(bytes));
    for mode in [Mode::Replace, Mode::Merge { null_deletes: false }] {
        let mut picture = None;
        let max = PICTURE_BYTES - 200;
        apply(&mut picture, (PictureChange::Update(mode), Value::map([("a", text(max))])));
        assert!(picture.as_ref().is_some_and(|picture| !picture.is_too_large()));
        let more = Value::map([("b", text(200))]);
        if mode == Mode::Replace {
            picture = None;
            let all = Value::map([("a", text(max)), ("b", text(200))]);
            apply(&mut picture, (PictureChange::Update(mode), all));
        } else {
            apply(&mut picture, (PictureChange::Update(mode), more));
        }
        assert!(picture.is_some_and(|picture| picture.is_too_large()));
    }
}

#[test]
fn picture_is_encoded_on_demand_and_only_once() {
    let update = PictureChange::Update(Mode::Merge { null_deletes: false });
    let mut picture = None;
    let set = |picture: &mut Option<Picture>, number| {
        apply(picture, (update, Value::map([("n", Value::Int(number))])));
    };
    set(&mut picture, 1);
    set(&mut picture, 2);
    let plain = picture.as_ref().map_or(0, Picture::bytes);
    let it = picture.as_mut().expect("a picture");
    let json = it.encodings(Format::Json);
    assert!(json.is_made(Format::Json) && !json.is_made(Format::Bson));
    assert_eq!(it.bytes(), plain + json.encoded(Format::Json).len(), "what is written counts");
    let again = it.encodings(Format::Json);
    assert_eq!(again.encoded(Format::Json).as_ptr(), json.encoded(Format::Json).as_ptr());
    let bson = it.encodings(Format::Bson);
    assert!(Arc::ptr_eq(&json, &bson) && bson.is_made(Format::Bson));
    set(&mut picture, 3);
    let it = picture.as_mut().expect("a picture");
    assert_eq!(it.bytes(), plain, "the encodings are freed");
    assert!(!Arc::ptr_eq(&it.encodings(Format::Json), &json));
    assert_eq!(data(json.encoded(Format::Json), Format::Json), Value::map([("n", Value::Int(2))]));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = || prop_oneof![Just(Value::Null), (0..9_i64).prop_map(Value::Int)];
    let member = ("[a-f]", leaf());
    let change = (prop::sample::select(vec!["A", "U", "C", "I"]), 0..9_i64);
    prop_oneof![
        4 => prop::collection::btree_map(member.0, member.1, 0..6).prop_map(|members| {
            Value::Map(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
        }),
        4 => prop::collection::vec(change, 0..5).prop_map(|all| {
            Value::Array(all.into_iter().map(|(what, n)| change_of(what, n)).collect())
        }),
        1 => leaf(),
    ]
}

fn change_of(operation: &str, number: i64) -> Value {
    change(operation, number)
}

pub(in crate::hub) fn changes() -> impl Strategy<Value = PictureChange> {
    let mode = || {
        prop_oneof![
            1 => Just(Mode::Replace),
            4 => any::<bool>().prop_map(|null_deletes| Mode::Merge { null_deletes }),
            4 => (0..12_u32).prop_map(|max| Mode::Log { max, clears: CLEARS }),
        ]
    };
    prop_oneof![
        1 => Just(PictureChange::Clear),
        12 => mode().prop_map(PictureChange::Update),
        2 => (mode(), any::<bool>())
            .prop_map(|(mode, received)| PictureChange::Install { mode, received }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn picture_equals_a_naive_model(
        events in prop::collection::vec((changes(), values(), any::<bool>()), 0..24),
    ) {
        let mut picture = None;
        let mut model = None;
        for (change, value, asks) in events {
            apply(&mut picture, (change, value.clone()));
            model = naive(model.as_ref(), Some(change), Some(&value));
            if asks {
                prop_assert_eq!(decoded(&mut picture, Format::MsgPack), model.clone());
            }
        }
        prop_assert_eq!(decoded(&mut picture, Format::Json), model.clone());
        // Its stated memory equals that of a picture made from the whole value.
        if let (Some(Picture { state: State::Merged(it), .. }), Some(model)) = (&picture, &model) {
            let expected = model.members().unwrap_or_default().iter();
            let bytes = expected.map(|it| member_memory(it) + PLACE_BYTES).sum::<usize>();
            prop_assert_eq!(it.bytes, bytes);
        }
        if let (Some(Picture { state: State::Log(it), .. }), Some(model)) = (&picture, &model) {
            let bytes = model.elements().unwrap_or_default().iter().map(Value::memory);
            prop_assert_eq!(it.bytes, bytes.sum::<usize>());
        }
    }
}
