use super::*;
use proptest::prelude::*;

const FIXTURES: &str = include_str!("fixtures.txt");

fn read(format: Format, bytes: &[u8]) -> Result<Value, Error> {
    decode(format, &mut bytes.to_vec(), &DecodeLimits::default(), &mut Scratch::default())
}

fn read_json(text: &str) -> Result<Value, Error> {
    read(Format::Json, text.as_bytes())
}

fn written(format: Format, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    encode(format, value, &mut out).expect("a map that can be written");
    out
}

fn text_of(value: &Value) -> String {
    String::from_utf8(written(Format::Json, value)).expect("JSON is UTF-8")
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(byte).collect()
}

/// The bytes of `name` in `format`.
fn fixture(name: &str, format: &str) -> Vec<u8> {
    let mut lines = FIXTURES.lines().skip_while(|line| *line != name).skip(1);
    let mut own = lines.by_ref().take_while(|line| line.starts_with(' '));
    let line = own.find_map(|line| line.trim().strip_prefix(format)).expect("a fixture");
    match format {
        "json" => line.trim().as_bytes().to_vec(),
        _ => bytes(line.trim()),
    }
}

/// The value of one member named `v`.
fn only(format: Format, bytes: &[u8]) -> Result<Value, Error> {
    Ok(read(format, bytes)?.get("v").expect("a v").clone())
}

/// A BSON document of one element `v`.
fn bson_of(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut document = vec![0; 4];
    document.push(kind);
    document.extend_from_slice(b"v\0");
    document.extend_from_slice(value);
    document.push(0);
    let length = document.len() as u32;
    document[..4].copy_from_slice(&length.to_le_bytes());
    document
}

fn msgpack_of(value: &[u8]) -> Vec<u8> {
    [b"\x81\xa1v", value].concat()
}

#[test]
fn codec_agrees_with_fixtures_of_other_implementations() {
    for name in ["sub", "rpc", "data", "arrayData", "error"] {
        let json = fixture(name, "json");
        let value = read(Format::Json, &json).expect("JSON");
        assert_eq!(read(Format::Bson, &fixture(name, "bson")), Ok(value.clone()), "{name}");
        assert_eq!(read(Format::MsgPack, &fixture(name, "msgpack")), Ok(value.clone()), "{name}");
        assert_eq!(written(Format::Json, &value), json, "{name}");
        assert_eq!(written(Format::Bson, &value), fixture(name, "bson"), "{name}");
        assert_eq!(written(Format::MsgPack, &value), fixture(name, "msgpack"), "{name}");
    }
    for name in ["int64", "double"] {
        let value = read(Format::Bson, &fixture(name, "bson")).expect("BSON");
        assert_eq!(value.get("TransactionID").and_then(Value::as_int), Some(1), "{name}");
    }
}

#[test]
fn codec_refuses_every_cut_of_a_message() {
    for name in ["sub", "rpc", "data", "arrayData", "error"] {
        for (format, label) in Format::ALL.into_iter().zip(["json", "bson", "msgpack"]) {
            let whole = fixture(name, label);
            for cut in 0..whole.len() {
                let error = read(format, &whole[..cut]).expect_err("a part is no message");
                match format {
                    Format::Json => assert_eq!(error, Error::Malformed),
                    _ => assert_eq!(error, Error::Truncated, "{name} {label} {cut}"),
                }
            }
            let more = [&whole[..], b"\0"].concat();
            let error = if format == Format::Json { Error::Malformed } else { Error::Trailing };
            assert_eq!(read(format, &more), Err(error));
        }
    }
}

#[test]
fn codec_takes_exactly_one_map() {
    for text in ["[]", "1", "\"a\"", "null", "1.50", "true"] {
        assert_eq!(read_json(text), Err(Error::NotMap), "{text}");
        let any = decode_json(
            &mut text.as_bytes().to_vec(),
            &DecodeLimits::default(),
            &mut Scratch::default(),
        );
        let mut out = Vec::new();
        let any = any.expect("a value");
        assert_eq!(encode(Format::Json, &any, &mut out), Err(Error::NotMap));
        assert_eq!(encode_any(Format::Json, &any, &mut out), Ok(()));
        assert_eq!(out, text.as_bytes());
        assert_eq!(encode_any(Format::Bson, &any, &mut out), Err(Error::NotMap));
    }
    assert_eq!(read(Format::MsgPack, b"\x90"), Err(Error::NotMap));
    assert_eq!(read(Format::MsgPack, b"\xc0"), Err(Error::NotMap));
    assert_eq!(read_json(r#"{"a":1}{}"#), Err(Error::Malformed));
    assert_eq!(read(Format::MsgPack, b"\x80\x80"), Err(Error::Trailing));
    assert_eq!(read(Format::Bson, b"\x05\0\0\0\0"), Ok(Value::map([])));
}

#[test]
fn bson_length_prefix_must_be_the_length_of_the_message() {
    let message = bson_of(0x0a, b"");
    for (length, result) in [
        (8, Ok(Value::map([("v", Value::Null)]))),
        (9, Err(Error::Truncated)),
        (7, Err(Error::Trailing)),
        (5, Err(Error::Trailing)),
        (4, Err(Error::Malformed)),
        (-1, Err(Error::Malformed)),
        (i32::MAX, Err(Error::Truncated)),
    ] {
        let mut message = message.clone();
        message[..4].copy_from_slice(&i32::to_le_bytes(length));
        assert_eq!(read(Format::Bson, &message), result, "{length}");
    }
}

#[test]
fn json_numbers_keep_their_text() {
    let same = [
        "0",
        "-1",
        "10.10",
        "10.5",
        "-0",
        "-0.0",
        "1.0",
        "1e3",
        "1E+3",
        "100000000000000000",
        "999999999999999999",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "18446744073709551616",
        "123456789012345678901234567890",
        "0.1234567890123456789012345",
        "1e300",
        "1e-400",
    ];
    for text in same {
        let json = format!(r#"{{"a":[{text},{text}],"b":{text}}}"#);
        let value = read_json(&json).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(text_of(&value), json);
        assert!(value.get("b").is_some_and(Value::is_number));
    }
    for text in ["1e309", "-1e999"] {
        assert_eq!(read_json(&format!(r#"{{"v":{text}}}"#)), Err(Error::Number), "{text}");
    }
    for text in ["01", "1.", ".5", "+1", "1e", "-", "1.5.5", "0x1", "NaN", "1 5", "1.50a", "--1.5"]
    {
        assert_eq!(read_json(&format!(r#"{{"v":{text}}}"#)), Err(Error::Malformed), "{text}");
    }
}

#[test]
fn codec_reads_integers_in_any_notation() {
    let int = |text: &str| read_json(&format!(r#"{{"v":{text}}}"#)).unwrap().get("v")?.as_int();
    assert_eq!(int("7"), Some(7));
    assert_eq!(int("7.0"), Some(7));
    assert_eq!(int("7e0"), Some(7));
    assert_eq!(int("7.5"), None);
    assert_eq!(int("-9223372036854775808"), Some(i64::MIN));
    assert_eq!(int("9223372036854775808"), None);
    assert_eq!(int("\"7\""), None);
    let double = |number: f64| only(Format::Bson, &bson_of(1, &number.to_le_bytes()));
    assert_eq!(double(7.0), Ok(Value::Int(7)));
    assert_eq!(double(7.5), Ok(Value::Float(7.5)));
    assert_eq!(double(-(2f64.powi(63))), Ok(Value::Int(i64::MIN)));
    assert_eq!(double(2f64.powi(63)), Ok(Value::Float(2f64.powi(63))));
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(double(bad), Err(Error::Number));
        let packed = [&b"\xcb"[..], &bad.to_be_bytes()].concat();
        assert_eq!(only(Format::MsgPack, &msgpack_of(&packed)), Err(Error::Number));
        assert_eq!(Value::number(bad), None);
    }
}

#[test]
fn codec_writes_integers_in_the_narrowest_form() {
    let bson = |number: &str| {
        let value = Value::map([("v", Value::number_text(number).unwrap())]);
        written(Format::Bson, &value)[4]
    };
    assert_eq!(bson("2147483647"), 0x10);
    assert_eq!(bson("2147483648"), 0x12);
    assert_eq!(bson("-2147483648"), 0x10);
    assert_eq!(bson("-2147483649"), 0x12);
    assert_eq!(bson("1.0"), 0x10);
    assert_eq!(bson("1e10"), 0x12);
    assert_eq!(bson("9223372036854775808"), 0x01);
    assert_eq!(bson("10.10"), 0x01);
    assert_eq!(bson("-0"), 0x01);
    let packed = |number: &str| {
        let value = Value::map([("v", Value::number_text(number).unwrap())]);
        written(Format::MsgPack, &value)[3..].to_vec()
    };
    assert_eq!(packed("127"), [0x7f]);
    assert_eq!(packed("128"), [0xcc, 128]);
    assert_eq!(packed("-32"), [0xe0]);
    assert_eq!(packed("-33"), [0xd0, 0xdf]);
    assert_eq!(packed("65536"), [0xce, 0, 1, 0, 0]);
    assert_eq!(packed("4294967296"), [0xcf, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(packed("18446744073709551615"), [&b"\xcf"[..], &[0xff; 8]].concat());
    assert_eq!(packed("18446744073709551616")[0], 0xcb);
    assert_eq!(packed("1.5")[0], 0xcb);
}

#[test]
fn bson_decimals_become_numbers() {
    for (decimal, json) in [
        ("10.10", "10.10"),
        ("7", "7"),
        ("1E+3", "1E+3"),
        ("-0.00000001", "-1E-8"),
        ("9999999999999999999999999999999999", "9999999999999999999999999999999999"),
    ] {
        let decimal: ::bson::Decimal128 = decimal.parse().expect("a decimal");
        let value = read(Format::Bson, &bson_of(0x13, &decimal.bytes())).expect("accepted");
        assert_eq!(text_of(&value), format!(r#"{{"v":{json}}}"#));
    }
    for bad in ["NaN", "Infinity", "-Infinity", "1E+6000"] {
        let decimal: ::bson::Decimal128 = bad.parse().expect("a decimal");
        let document = bson_of(0x13, &decimal.bytes());
        assert_eq!(read(Format::Bson, &document), Err(Error::Number), "{bad}");
    }
}

#[test]
fn codec_turns_dates_into_texts() {
    let bson = |ms: i64| only(Format::Bson, &bson_of(9, &ms.to_le_bytes()));
    assert_eq!(bson(0), Ok(Value::text("1970-01-01T00:00:00Z")));
    assert_eq!(bson(1_341_050_550_250), Ok(Value::text("2012-06-30T10:02:30.25Z")));
    assert_eq!(bson(-1), Ok(Value::text("1969-12-31T23:59:59.999Z")));
    assert_eq!(bson(253_402_300_799_999), Ok(Value::text("9999-12-31T23:59:59.999Z")));
    assert_eq!(bson(-62_167_219_200_000), Ok(Value::text("0000-01-01T00:00:00Z")));
    for bad in [-62_167_219_200_001, 253_402_300_800_000, i64::MAX, i64::MIN] {
        assert_eq!(bson(bad), Err(Error::Date), "{bad}");
    }
    let packed = |hex: &str| only(Format::MsgPack, &msgpack_of(&bytes(hex)));
    assert_eq!(packed("d6ff00000001"), Ok(Value::text("1970-01-01T00:00:01Z")));
    assert_eq!(packed("d7ff0000000400000001"), Ok(Value::text("1970-01-01T00:00:01.000000001Z")));
    assert_eq!(packed("c70cff00000000ffffffffffffffff"), Ok(Value::text("1969-12-31T23:59:59Z")));
    assert_eq!(packed("c70cff1dcd6500ffffffffffffffff"), Ok(Value::text("1969-12-31T23:59:59.5Z")));
    assert_eq!(packed("c70cff000000007fffffffffffffff"), Err(Error::Date));
    assert_eq!(packed("c70cff3b9aca000000000000000000"), Err(Error::Malformed));
    assert_eq!(packed("c703ff000000"), Err(Error::Malformed));
    assert_eq!(packed("c70cff0000000000"), Err(Error::Truncated));
}

#[test]
fn codec_turns_binary_into_base64() {
    assert_eq!(
        only(Format::Bson, &bson_of(5, b"\x03\0\0\0\0\xff\xfe\xfd")),
        Ok(Value::text("//79"))
    );
    // The old generic subtype has its length twice.
    assert_eq!(
        only(Format::Bson, &bson_of(5, b"\x05\0\0\0\x02\x01\0\0\0\xff")),
        Ok(Value::text("/w=="))
    );
    assert_eq!(only(Format::MsgPack, &msgpack_of(b"\xc4\x01\xff")), Ok(Value::text("/w==")));
    assert_eq!(
        only(Format::MsgPack, &msgpack_of(b"\xc6\xff\xff\xff\xff\xff")),
        Err(Error::Truncated)
    );
}

#[test]
fn codec_refuses_types_that_not_all_formats_have() {
    let text: &[u8] = b"\x02\0\0\0x\0";
    for (kind, value) in [
        (0x06, &b""[..]),                               // undefined
        (0x07, &[0; 12]),                               // ObjectId
        (0x0b, b"a\0i\0"),                              // regular expression
        (0x0c, b"\x02\0\0\0x\0aaaaaaaaaaaa"),           // DBPointer
        (0x0d, text),                                   // code
        (0x0e, text),                                   // symbol
        (0x0f, b"\x0f\0\0\0\x02\0\0\0x\0\x05\0\0\0\0"), // code with scope
        (0x11, &[0; 8]),                                // timestamp
        (0xff, b""),                                    // min key
        (0x7f, b""),                                    // max key
    ] {
        assert_eq!(read(Format::Bson, &bson_of(kind, value)), Err(Error::Type), "{kind:#x}");
    }
    assert_eq!(read(Format::Bson, &bson_of(0x20, b"")), Err(Error::Malformed));
    for value in ["d40100", "d5010000", "d60100000000", "c70101aa", "d8ff00"] {
        assert_eq!(read(Format::MsgPack, &msgpack_of(&bytes(value))), Err(Error::Type), "{value}");
    }
    assert_eq!(read(Format::MsgPack, &msgpack_of(b"\xc1")), Err(Error::Malformed));
}

#[test]
fn codec_refuses_repeated_keys_and_keys_with_nul() {
    assert_eq!(read_json(r#"{"a":1,"b":2,"a":1}"#), Err(Error::Repeated));
    assert_eq!(read_json(r#"{"v":{"a":1,"\u0061":2}}"#), Err(Error::Repeated));
    assert_eq!(read_json(r#"{"a\u0000":1}"#), Err(Error::Key));
    assert_eq!(read(Format::MsgPack, b"\x82\xa1a\xc0\xa1a\xc0"), Err(Error::Repeated));
    assert_eq!(read(Format::MsgPack, b"\x81\xa1\0\xc0"), Err(Error::Key));
    assert_eq!(read(Format::MsgPack, b"\x81\x01\xc0"), Err(Error::Key));
    assert_eq!(read(Format::MsgPack, b"\x81\xc4\x01a\xc0"), Err(Error::Key));
    let twice = b"\x0b\0\0\0\x0aa\0\x0aa\0\0";
    assert_eq!(read(Format::Bson, twice), Err(Error::Repeated));
    // Also among many other keys.
    for max in [15, 16, 17, 1000] {
        let mut keys: Vec<String> = (0..max).map(|at| format!(r#""k{at}":{at}"#)).collect();
        assert!(read_json(&format!("{{{}}}", keys.join(","))).is_ok());
        keys.push(r#""k3":0"#.to_owned());
        assert_eq!(read_json(&format!("{{{}}}", keys.join(","))), Err(Error::Repeated));
    }
    let nul = Value::map([("a\0b", Value::Null)]);
    let mut out = b"before".to_vec();
    assert_eq!(encode(Format::Bson, &nul, &mut out), Err(Error::Key));
    assert_eq!(encode(Format::MsgPack, &nul, &mut out), Err(Error::Key));
    assert_eq!(out, b"before", "nothing is left behind");
}

#[test]
fn codec_refuses_texts_that_are_not_utf8() {
    assert_eq!(read_json(r#"{"v":"\ud800"}"#), Err(Error::Malformed));
    assert_eq!(read(Format::Json, b"{\"v\":\"\xff\"}"), Err(Error::Malformed));
    assert_eq!(read(Format::MsgPack, b"\x81\xa1v\xa1\xff"), Err(Error::Utf8));
    assert_eq!(read(Format::MsgPack, b"\x81\xa1\xff\xc0"), Err(Error::Utf8));
    assert_eq!(read(Format::Bson, &bson_of(2, b"\x02\0\0\0\xff\0")), Err(Error::Utf8));
    assert_eq!(read(Format::Bson, b"\x08\0\0\0\x0a\xff\0\0"), Err(Error::Utf8));
    // A text may have U+0000, in every format.
    let value = read_json(r#"{"v":"a\u0000b"}"#).expect("a text");
    for format in Format::ALL {
        assert_eq!(read(format, &written(format, &value)), Ok(value.clone()));
    }
}

/// Arrays in a map, `depth` containers in all.
fn nested(depth: usize) -> Value {
    let mut value = Value::Array(Vec::new());
    for _ in 0..depth - 2 {
        value = Value::Array(vec![value]);
    }
    Value::map([("v", value)])
}

#[test]
fn codec_bounds_depth() {
    for format in Format::ALL {
        let (last, over) = (nested(64), nested(65));
        assert_eq!(read(format, &written(format, &last)), Ok(last), "{format:?}");
        assert_eq!(read(format, &written(format, &over)), Err(Error::Depth), "{format:?}");
    }
    assert_eq!(read(Format::Json, &vec![b'['; 1 << 20]), Err(Error::Depth));
    assert_eq!(read(Format::MsgPack, &vec![0x91; 1 << 20]), Err(Error::Depth));
    let mut one = DecodeLimits { depth: 1, ..DecodeLimits::default() };
    let read = |limits: &DecodeLimits, text: &str| {
        decode(Format::Json, &mut text.as_bytes().to_vec(), limits, &mut Scratch::default())
    };
    assert!(read(&one, r#"{"v":"[[[["}"#).is_ok());
    one.depth = 0;
    assert_eq!(read(&one, "{}"), Err(Error::Depth));
}

#[test]
fn codec_bounds_the_number_of_values() {
    let elements = |count: usize| Value::map([("v", Value::Array(vec![Value::Null; count]))]);
    let limits = DecodeLimits { values: 1000, ..DecodeLimits::default() };
    for format in Format::ALL {
        let read = |value: &Value| {
            decode(format, &mut written(format, value), &limits, &mut Scratch::default())
        };
        assert!(read(&elements(998)).is_ok(), "{format:?}");
        assert_eq!(read(&elements(999)), Err(Error::Values), "{format:?}");
        // Empty ones count once.
        let empty = |count: usize| {
            let empty = [Value::Array(Vec::new()), Value::Map(Vec::new())];
            let elements = empty.iter().cycle().take(count).cloned().collect();
            Value::map([("v", Value::Array(elements))])
        };
        assert!(read(&empty(998)).is_ok(), "{format:?}");
        assert_eq!(read(&empty(999)), Err(Error::Values), "{format:?}");
    }
}

#[test]
fn codec_bounds_bytes() {
    for format in Format::ALL {
        let message = written(format, &Value::map([("v", Value::text("xxxxxxxx"))]));
        let mut limits = DecodeLimits { bytes: message.len(), ..DecodeLimits::default() };
        let read = |limits: &DecodeLimits| {
            decode(format, &mut message.clone(), limits, &mut Scratch::default())
        };
        assert!(read(&limits).is_ok());
        limits.bytes -= 1;
        assert_eq!(read(&limits), Err(Error::Bytes));
    }
}

/// The claimed length would take 128 GiB.
#[test]
fn msgpack_claimed_length_takes_no_memory() {
    let limits = DecodeLimits { values: usize::MAX, ..DecodeLimits::default() };
    for claim in ["81a176ddffffffff", "dfffffffff", "81a176dfffffffff", "81a176dbffffffff"] {
        let read = decode(Format::MsgPack, &mut bytes(claim), &limits, &mut Scratch::default());
        assert_eq!(read, Err(Error::Truncated), "{claim}");
    }
    assert_eq!(read(Format::MsgPack, &bytes("dfffffffff")), Err(Error::Values));
    // As many elements as there are bytes, and one more.
    assert!(read(Format::MsgPack, &bytes("81a176dc0003c0c0c0")).is_ok());
    assert_eq!(read(Format::MsgPack, &bytes("81a176dc0004c0c0c0")), Err(Error::Truncated));
}

#[test]
fn envelope_holds_each_kind_of_body() {
    let envelope = Envelope {
        members: vec![("Topic".into(), Value::text("t")), ("n".into(), Value::Int(1))],
        key: "Data".into(),
    };
    let members = vec![("a".into(), Value::Int(1)), ("b".into(), Value::Null)];
    let elements = VecDeque::from([Value::Bool(true), Value::text("x")]);
    let map = Value::Map(members.clone());
    let array = Value::Array(elements.clone().into());
    for format in Format::ALL {
        let plain = |body: &Value| {
            let mut whole = envelope.members.clone();
            whole.push(("Data".into(), body.clone()));
            written(format, &Value::Map(whole))
        };
        let cx = |body: EnvelopeBody<'_>| {
            let mut out = Vec::new();
            envelope.encode(format, &body, &mut out).expect("it can be written");
            out
        };
        assert_eq!(cx(EnvelopeBody::Value(&map)), plain(&map));
        assert_eq!(cx(EnvelopeBody::Members(&members)), plain(&map));
        assert_eq!(cx(EnvelopeBody::Elements(&elements)), plain(&array));
        assert_eq!(cx(EnvelopeBody::Value(&Value::Null)), plain(&Value::Null));
        let none = Envelope { members: Vec::new(), key: "Data".into() };
        let mut out = Vec::new();
        assert_eq!(none.encode(format, &EnvelopeBody::Value(&map), &mut out), Ok(()));
        assert_eq!(out, written(format, &Value::map([("Data", map.clone())])));
    }
}

#[test]
fn value_memory_grows_with_its_content() {
    assert_eq!(Value::Null.memory(), size_of::<Value>());
    assert_eq!(Value::text("abc").memory(), size_of::<Value>() + 3);
    let two = Value::Array(vec![Value::Null, Value::text("abc")]);
    assert_eq!(two.memory(), 3 * size_of::<Value>() + 3);
    assert!(size_of::<Value>() <= 32);
}

fn numbers() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<i16>().prop_map(|number| Value::Int(number.into())),
        any::<f64>().prop_filter_map("a finite one", Value::number),
        (any::<i32>(), 0..20).prop_filter_map("a finite one", |(digits, places)| {
            Value::number(f64::from(digits) / 10_f64.powi(places))
        }),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?"
            .prop_filter_map("one that a double is near to", |text| Value::number_text(&text)),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        numbers(),
        any::<String>().prop_map(|text| Value::text(&text)),
    ];
    leaf.prop_recursive(4, 48, 8, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array), maps(inner),]
    })
}

fn maps(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[^\u{0}]{0,8}", inner, 0..24).prop_map(|members| {
        Value::Map(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
    })
}

/// A value as a binary format has it: without the text of its numbers.
fn plain(value: &Value, format: Format) -> Value {
    match value {
        Value::Number(text) if format == Format::MsgPack && text.parse::<u64>().is_ok() => {
            value.clone()
        }
        Value::Number(text) => json::nearest(text).expect("a number"),
        Value::Array(elements) => {
            Value::Array(elements.iter().map(|element| plain(element, format)).collect())
        }
        Value::Map(members) => Value::Map(
            members.iter().map(|(key, value)| (key.clone(), plain(value, format))).collect(),
        ),
        _ => value.clone(),
    }
}

/// A value after it went through a format.
fn kept(value: &Value, format: Format) -> Value {
    if format == Format::Json { value.clone() } else { plain(value, format) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn codec_reads_what_it_writes(value in maps(values())) {
        for format in Format::ALL {
            let back = read(format, &written(format, &value));
            prop_assert_eq!(back, Ok(kept(&value, format)));
        }
    }

    #[test]
    fn codec_keeps_values_from_format_to_format(value in maps(values())) {
        let value = plain(&plain(&value, Format::MsgPack), Format::Bson);
        for first in Format::ALL {
            let there = read(first, &written(first, &value)).expect("it was written");
            for second in Format::ALL {
                let back = read(second, &written(second, &there));
                prop_assert_eq!(back, Ok(value.clone()), "{:?} {:?}", first, second);
            }
        }
    }

    #[test]
    fn codec_reads_or_refuses_damaged_messages(
        which in 0..5_usize,
        wrong in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let name = ["sub", "rpc", "data", "arrayData", "error"][which];
        for (format, label) in Format::ALL.into_iter().zip(["json", "bson", "msgpack"]) {
            let mut bytes = fixture(name, label);
            for (at, byte) in &wrong {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Ok(value) = read(format, &bytes) {
                prop_assert_eq!(value.check(), Ok(()));
                for other in Format::ALL {
                    let back = read(other, &written(other, &value));
                    prop_assert_eq!(back, Ok(kept(&value, other)));
                }
            }
        }
    }

    #[test]
    fn codec_reads_or_refuses_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for format in Format::ALL {
            if let Ok(value) = read(format, &bytes) {
                let back = read(format, &written(format, &value));
                prop_assert_eq!(back, Ok(kept(&value, format)));
            }
        }
    }
}
