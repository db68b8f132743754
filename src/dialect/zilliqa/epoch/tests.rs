use super::*;

const ID: &str = "1beb32a5435e993aa3025a70d8a5e71df43c10e2fe3f6ef832d1a5c371a63852";
const BLOCK: &str = r#"{"body":{"MicroBlockInfos":[]}, "header":{"BlockNum":"15","NumTxns":1}}"#;
const FROM: &str = "eb955ff1715a1eb71f63c655504866117591b7fa";
const TO: &str = "046105286e2ec9ca467b5bdfa0975b0e9342eb0a";
/// The public key whose account is `4baf5fad..003c`.
const KEY: &str = "0x0314738163B9BB67AD11AA464FE69A1147DF263E8970D7DCFD8F993DDD39E81BD9";

fn document(transactions: &str) -> String {
    let (block, id) = (BLOCK, ID);
    format!(
        r#"{{"TxBlock":{block},"TxHashes":[["{id}"],null,[]],"Transactions":[{transactions}]}}"#
    )
}

fn transaction(more: &str) -> String {
    format!(
        r#"{{"ID":"{ID}","toAddr":"{TO}","senderAddr":"0x{FROM}","amount":"1000000000000",{more}}}"#
    )
}

fn read(text: String) -> Result<Epoch, EpochError> {
    Epoch::read(text, Strictness::Refuse)
}

fn one(transaction: &str) -> Result<Epoch, EpochError> {
    read(document(transaction))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn joined(part: &[Frozen]) -> String {
    assert!(part.iter().all(|piece| piece.len() <= 7));
    text(&part.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>()).to_owned()
}

#[test]
fn zilliqa_block_and_hashes_keep_their_text() {
    let epoch = one("").expect("an epoch");
    assert_eq!(epoch.number(), 15);
    assert_eq!(
        joined(epoch.new_block(7)),
        format!(
            r#"{{"query":"NewBlock","value":{{"TxBlock":{BLOCK},"TxHashes":[["{ID}"],null,[]]}}}}"#
        )
    );
    let bare = read(format!(r#"{{"TxBlock":{BLOCK},"TxHashes":[]}}"#)).expect("an epoch");
    assert!(bare.transactions().is_empty() && bare.emitters().is_empty());
    assert!(joined(bare.new_block(7)).ends_with(r#","TxHashes":[]}}"#));
}

#[test]
fn zilliqa_refuses_malformed_epochs() {
    let with = |from: &str, to: &str| {
        let text = document("");
        assert!(text.contains(from), "{from}");
        read(text.replacen(from, to, 1)).err()
    };
    for (from, to, error) in [
        ("TxBlock", "Txblock", EpochError::Document),
        ("TxHashes", "Txhashes", EpochError::Document),
        (r#""Transactions":[]"#, r#""Transactions":{}"#, EpochError::Document),
        (r#""Transactions":[]"#, r#""TxHashes":[]"#, EpochError::Document),
        ("}", "", EpochError::Document),
        (r#""15""#, "15", EpochError::BlockNum),
        (r#""15""#, r#""015""#, EpochError::BlockNum),
        (r#""15""#, r#""+15""#, EpochError::BlockNum),
        (r#""15""#, r#""""#, EpochError::BlockNum),
        (r#""15""#, r#""-1""#, EpochError::BlockNum),
        (r#""15""#, r#""18446744073709551616""#, EpochError::BlockNum),
        (r#""15""#, r#""18446744073709551615""#, EpochError::Placeholder),
        ("header", "Header", EpochError::BlockNum),
        (BLOCK, r#"[["15"]]"#, EpochError::BlockNum),
        (r#"{"BlockNum":"15","NumTxns":1}"#, r#"["15"]"#, EpochError::BlockNum),
        (",null,", ",1,", EpochError::TxHashes),
        (",null,", r#",["xbeb"],"#, EpochError::TxHashes),
        (ID, &ID[1..], EpochError::TxHashes),
    ] {
        assert_eq!(with(from, to), Some(error), "{from} -> {to}");
    }
    assert!(with(r#""15""#, r#""18446744073709551614""#).is_none());
    assert!(with(",null,", ",").is_none());
    for bad in ["", "null", "[]", "{}", "1", r#"[1,[],[]]"#, "{\"TxBlock\":1,\"TxHashes\":[]} x"] {
        assert_eq!(read(bad.to_owned()).err(), Some(EpochError::Document), "{bad}");
    }
}

#[test]
fn zilliqa_record_members_are_ordered() {
    let epoch = one(&transaction(r#""receipt":{"success":false}"#)).expect("an epoch");
    let record = text(epoch.record(&epoch.transactions()[0])).to_owned();
    assert_eq!(
        record,
        format!(
            r#"{{"ID":"{ID}","amount":"1000000000000","fromAddr":"{FROM}","success":false,"toAddr":"{TO}"}}"#
        )
    );
}

#[test]
fn zilliqa_sender_follows_from_key_and_version() {
    let account = |more: &str| {
        let given = transaction(r#""receipt":{"success":true}"#);
        let given = given.replace(&format!(r#""senderAddr":"0x{FROM}","#), more);
        let epoch = one(&given).ok()?;
        epoch.prepare();
        Some(text(&address::text(epoch.transactions()[0].from())).to_owned())
    };
    let zilliqa = Some("4baf5fada8e5db92c3d3242618c5b47133ae003c".to_owned());
    let generator = "0x0279BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798";
    let ethereum = Some("7e5f4552091a69125d5dfcb7b8c2659029395bdf".to_owned());
    assert_eq!(account(&format!(r#""senderPubKey":"{KEY}","#)), zilliqa);
    for version in ["\"65537\"", "65537", "\"1\"", "5", "\"x\"", "null"] {
        let given = format!(r#""senderPubKey":"{KEY}","version":{version},"#);
        assert_eq!(account(&given), zilliqa, "{version}");
    }
    for version in ["\"65538\"", "65539", "\"4\""] {
        let given = format!(r#""senderPubKey":"{generator}","version":{version},"#);
        assert_eq!(account(&given), ethereum, "{version}");
    }
    // A given address takes precedence over the key.
    let both = format!(r#""senderPubKey":"{KEY}","senderAddr":"{FROM}","#);
    assert_eq!(account(&both).as_deref(), Some(FROM));
    let null = format!(r#""senderPubKey":"{KEY}","senderAddr":null,"#);
    assert_eq!(account(&null), zilliqa);
    assert_eq!(account(""), None);
    assert_eq!(account(&format!(r#""senderPubKey":"{}","#, &KEY[..67])), None);
    // A key that is not a point on the curve still has an account.
    let none = format!(r#""senderPubKey":"0x02{}","version":2,"#, "ff".repeat(32));
    assert!(account(&none).is_some());
}

const RECEIPT: &str = "receipt must be an object with a boolean success";

#[test]
fn zilliqa_unknown_transaction_is_refused_or_left_out() {
    let good = transaction(r#""receipt":{"success":true}"#);
    for (from, to, what) in [
        (ID, &ID[1..], "ID must be 64 hexadecimal digits"),
        (TO, "zil1vzgs2jng8l", "toAddr must be 40 hexadecimal digits"),
        ("\"1000000000000\"", "1000000000000", "amount must be a decimal string"),
        ("\"1000000000000\"", "\"\"", "amount must be a decimal string"),
        ("\"1000000000000\"", "\"1.5\"", "amount must be a decimal string"),
        ("senderAddr", "sender", "neither senderAddr nor senderPubKey is well formed"),
        ("success", "Success", RECEIPT),
        ("receipt", "Receipt", RECEIPT),
        ("true", "1", RECEIPT),
        (r#"{"success":true}"#, "[true,null]", RECEIPT),
        (&good, r#"["a","b","c","d","e","f","g"]"#, "it must be an object"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(good, bad);
        let anomaly = Anomaly { index: 1, what };
        assert_eq!(one(&format!("{good},{bad}")).err(), Some(anomaly.into()), "{from}");
        let text = document(&format!("{good},{bad},{good}"));
        let epoch = Epoch::read(text, Strictness::Skip).expect("an epoch");
        assert_eq!(epoch.transactions().len(), 2);
        assert_eq!(epoch.skipped(), [anomaly]);
    }
    assert_eq!(one(&good).expect("an epoch").skipped(), []);
}

#[test]
fn zilliqa_events_are_grouped_by_emitter() {
    let log = |address: &str, name: &str| {
        format!(r#"{{"address":"{address}","_eventname":"{name}","params":[{{"v": 1}}]}}"#)
    };
    let (a, b) = (format!("0x{}", TO.to_uppercase()), format!("0x{FROM}"));
    let with = |logs: &[String]| {
        transaction(&format!(r#""receipt":{{"event_logs":[{}],"success":true}}"#, logs.join(",")))
    };
    let first = with(&[log(&b, "one"), log(&a, "two \\u00e9"), log(&b, "three")]);
    let second = with(&[log(&a, "four")]);
    let epoch = one(&format!("{first},{second}")).expect("an epoch");
    let groups: Vec<_> = epoch
        .emitters()
        .iter()
        .map(|it| (text(&address::text(&it.address)).to_owned(), joined(epoch.event_logs(it, 7))))
        .collect();
    let event = |name: &str| format!(r#"{{"_eventname":"{name}","params":[{{"v": 1}}]}}"#);
    assert_eq!(
        groups,
        [
            (FROM.to_owned(), format!("[{},{}]", event("one"), event("three"))),
            (TO.to_owned(), format!("[{},{}]", event("two \\u00e9"), event("four"))),
        ]
    );
    let known = address::parse(TO).expect("an address");
    assert_eq!((epoch.emitter(&known), epoch.emitter(&[0; 20])), (Some(1), None));
}

#[test]
fn zilliqa_only_valid_events_of_successful_calls_count() {
    let emitters = |logs: &str, success: bool| {
        let more = format!(r#""receipt":{{"event_logs":{logs},"success":{success}}}"#);
        one(&transaction(&more)).expect("an epoch").emitters().len()
    };
    let good = format!(r#"[{{"address":"0x{TO}","_eventname":"e","params":[]}}]"#);
    assert_eq!(emitters(&good, true), 1);
    assert_eq!(emitters(&good, false), 0);
    assert_eq!(emitters(&good.replace("0x", ""), true), 1);
    for (from, to) in [
        ("_eventname", "eventname"),
        ("\"e\"", "1"),
        ("\"params\":[]", "\"params\":{}"),
        ("\"params\":[]", "\"topics\":[],\"data\":\"0x\""),
        ("\"address\"", "\"emitter\""),
        (TO, &TO[1..]),
        (TO, &format!("\\u0030{}", &TO[1..])),
    ] {
        assert_ne!(good.replace(from, to), good, "{from}");
        assert_eq!(emitters(&good.replace(from, to), true), 0, "{from} -> {to}");
    }
    for none in ["null", "{}", "[]", "[1,null,[]]"] {
        assert_eq!(emitters(none, true), 0, "{none}");
    }
}
