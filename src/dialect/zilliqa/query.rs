//! Queries of clients: parsing, and the errors of malformed ones.

use super::address::{self, Address};
use super::words;
use crate::codec::raw::RawMembers;
use crate::config::ZilliqaWire;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// What a client can subscribe to, in the order in which a notification lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryTopic {
    /// Every Tx block with the hashes of its transactions.
    NewBlock,
    /// The events of contracts.
    EventLog,
    /// The transactions of accounts.
    TxnLog,
}

impl QueryTopic {
    /// All topics in their order.
    pub const ALL: [QueryTopic; 3] =
        [QueryTopic::NewBlock, QueryTopic::EventLog, QueryTopic::TxnLog];

    /// The topic's name in queries and notifications.
    pub fn name(self) -> &'static str {
        match self {
            QueryTopic::NewBlock => "NewBlock",
            QueryTopic::EventLog => "EventLog",
            QueryTopic::TxnLog => "TxnLog",
        }
    }

    /// The topic's bit in a set of topics.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }

    fn named(name: &str) -> Option<QueryTopic> {
        QueryTopic::ALL.into_iter().find(|topic| topic.name() == name)
    }
}

/// An address in a client's query, and a bit mask of its upper-case digits, so that it can be sent
/// back as the client wrote it.
pub(super) type Named = (Address, u64);

/// A query of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum SubscriptionQuery {
    /// Subscribe to blocks.
    NewBlock,
    /// Subscribe to a topic at these addresses. If an address occurs twice, the case of the last
    /// one is used.
    Addresses(QueryTopic, Vec<Named>),
    /// Unsubscribe from a topic.
    Unsubscribe(QueryTopic),
}

/// A query, and the epoch after which its client requests the later ones.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientQuery {
    /// The query.
    pub subscription: SubscriptionQuery,
    /// The number of the last epoch that the client knows, if it requests the later ones.
    pub after: Option<u64>,
}

/// Parses one query.
///
/// # Errors
/// The error's text, as the server that `wire` selects sends it; of the member `after`, which is
/// none of that server's, a text of our own.
pub fn read(text: &str, wire: ZilliqaWire) -> Result<ClientQuery, &'static str> {
    let text = match wire {
        ZilliqaWire::Deployed => Cow::Borrowed(text),
        ZilliqaWire::Documented => without_trailing_commas(text),
    };
    let members = RawMembers::read(&text).ok_or(words::QUERY)?;
    let subscription = subscription(&members, wire)?;
    let after = match (&subscription, members.raw("after")) {
        (SubscriptionQuery::Unsubscribe(_), _) | (_, None | Some("null")) => None,
        (_, Some(_)) => {
            let digits = members.text("after").ok_or(words::AFTER)?;
            let number = digits.parse().ok().filter(|number: &u64| number.to_string() == digits);
            Some(number.ok_or(words::AFTER)?)
        }
    };
    Ok(ClientQuery { subscription, after })
}

fn subscription(
    members: &RawMembers<'_>,
    wire: ZilliqaWire,
) -> Result<SubscriptionQuery, &'static str> {
    match members.text("query").ok_or(words::QUERY)?.as_ref() {
        "Unsubscribe" => {
            let topic = members.text("type").and_then(|name| QueryTopic::named(&name));
            topic.map(SubscriptionQuery::Unsubscribe).ok_or(words::TYPE)
        }
        name => match QueryTopic::named(name).ok_or(words::QUERY)? {
            QueryTopic::NewBlock => Ok(SubscriptionQuery::NewBlock),
            topic => {
                let list = members.raw("addresses").and_then(list).ok_or(words::ADDRESSES)?;
                let named = list.iter().map(|entry| named(entry, topic, wire));
                let named: Vec<Named> = named.collect::<Result<_, _>>()?;
                match named.is_empty() {
                    true => Err(words::ADDRESSES),
                    false => Ok(SubscriptionQuery::Addresses(topic, named)),
                }
            }
        },
    }
}

/// Replaces one comma after a value and before `}` or `]` with a space, outside of strings, because
/// the examples in the protocol's documentation have a comma after the last member.
fn without_trailing_commas(text: &str) -> Cow<'_, str> {
    let mut commas = Vec::new();
    let mut quoted = false;
    let mut escaped = false;
    // The last two bytes that are neither whitespace nor in a string, and the offset of the last
    // one.
    let (mut before, mut last, mut last_at) = (b' ', b' ', 0);
    for (at, byte) in text.bytes().enumerate() {
        if quoted {
            (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        let ends = byte == b'}' || byte == b']';
        if ends && last == b',' && !b" {[,:".contains(&before) {
            commas.push(last_at);
        }
        if !byte.is_ascii_whitespace() {
            (before, last, last_at) = (last, byte, at);
            quoted = byte == b'"';
        }
    }
    if commas.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut commas = commas.into_iter().peekable();
    let blank = |(at, character)| match commas.next_if_eq(&at) {
        Some(_) => ' ',
        None => character,
    };
    Cow::Owned(text.char_indices().map(blank).collect())
}

fn list(raw: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw).ok()
}

/// Parses one address of a list. The deployed server converts values that are not strings to text,
/// which never has the length of an address; it cannot convert arrays and objects.
fn named(entry: &RawValue, topic: QueryTopic, wire: ZilliqaWire) -> Result<Named, &'static str> {
    let (malformed, digits) = match (wire, topic) {
        (ZilliqaWire::Deployed, QueryTopic::EventLog) => (words::EVENT_HEX, words::ADDRESS),
        (ZilliqaWire::Deployed, _) => (words::PAYMENT_HEX, words::ADDRESS),
        (ZilliqaWire::Documented, QueryTopic::EventLog) => (words::ADDRESSES, words::ADDRESSES),
        (ZilliqaWire::Documented, _) => (words::PAYMENT_HEX, words::PAYMENT_HEX),
    };
    if entry.get().starts_with(['[', '{']) {
        return Err(digits);
    }
    let text: Cow<'_, str> = serde_json::from_str(entry.get()).map_err(|_| malformed)?;
    let hex = text.strip_prefix("0x").filter(|hex| hex.len() == 40).ok_or(malformed)?;
    let address = address::parse(hex).ok_or(digits)?;
    let case = match wire {
        ZilliqaWire::Deployed => 0,
        ZilliqaWire::Documented => address::case(hex),
    };
    Ok((address, case))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ZilliqaWire::{Deployed, Documented};

    fn read(text: &str, wire: ZilliqaWire) -> Result<SubscriptionQuery, &'static str> {
        let ClientQuery { subscription, after } = super::read(text, wire)?;
        assert_eq!(after, None, "{text}");
        Ok(subscription)
    }

    #[test]
    fn zilliqa_query_has_the_number_of_a_block_after_which_epochs_are_wanted() {
        let after = |members: &str| {
            let list = format!(r#""addresses":["{A}"]"#);
            let text = format!(r#"{{"query":"EventLog",{list}{members}}}"#);
            super::read(&text, Deployed).map(|query| query.after)
        };
        for (members, expected) in [
            ("", Ok(None)),
            (r#","after":null"#, Ok(None)),
            (r#","after":"0""#, Ok(Some(0))),
            (r#","\u0061fter":"41""#, Ok(Some(41))),
            (r#","after":"18446744073709551615""#, Ok(Some(u64::MAX))),
            (r#","after":"18446744073709551616""#, Err(words::AFTER)),
            (r#","after":"041""#, Err(words::AFTER)),
            (r#","after":"+4""#, Err(words::AFTER)),
            (r#","after":"-1""#, Err(words::AFTER)),
            (r#","after":"x""#, Err(words::AFTER)),
            (r#","after":" 4""#, Err(words::AFTER)),
            (r#","after":4"#, Err(words::AFTER)),
            (r#","after":[]"#, Err(words::AFTER)),
        ] {
            assert_eq!(after(members), expected, "{members}");
        }
        let leaving = r#"{"query":"Unsubscribe","type":"TxnLog","after":7}"#;
        assert_eq!(read(leaving, Deployed), Ok(SubscriptionQuery::Unsubscribe(QueryTopic::TxnLog)));
    }

    const A: &str = "0x2ce491a0fd9e318b39172258101b7c836da7449b";
    const B: &str = "0x167e3980e04EAB1E89ff84523ae8c77e008932dc";

    fn addresses(
        query: &str,
        list: &str,
        wire: ZilliqaWire,
    ) -> Result<SubscriptionQuery, &'static str> {
        read(&format!(r#"{{"query":"{query}","addresses":{list}}}"#), wire)
    }

    #[test]
    fn zilliqa_query_is_read_with_unknown_members() {
        fn read(text: &str) -> Result<SubscriptionQuery, &'static str> {
            super::tests::read(text, Deployed)
        }
        assert_eq!(read(r#"{"query":"NewBlock"}"#), Ok(SubscriptionQuery::NewBlock));
        assert_eq!(
            read(" {\"x\":[1],\n\"query\" : \"New\\u0042lock\"} "),
            Ok(SubscriptionQuery::NewBlock)
        );
        assert_eq!(read(r#"{"query":"x","query":"NewBlock"}"#), Ok(SubscriptionQuery::NewBlock));
        for topic in QueryTopic::ALL {
            let text =
                format!(r#"{{"query":"Unsubscribe","type":"{}","addresses":[1]}}"#, topic.name());
            assert_eq!(read(&text), Ok(SubscriptionQuery::Unsubscribe(topic)));
        }
        let a = address::parse(&A[2..]).expect("an address");
        let b = address::parse(&B[2..]).expect("an address");
        for topic in [QueryTopic::EventLog, QueryTopic::TxnLog] {
            let list = format!(r#"["{A}", "{B}"]"#);
            let named = vec![(a, 0), (b, 0)];
            let expected = Ok(SubscriptionQuery::Addresses(topic, named));
            assert_eq!(addresses(topic.name(), &list, Deployed), expected);
        }
        match addresses("EventLog", &format!(r#"["{B}"]"#), Documented) {
            Ok(SubscriptionQuery::Addresses(_, named)) => {
                assert_eq!(address::spelt(&named[0].0, named[0].1), B.as_bytes()[2..]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn zilliqa_malformed_query_is_an_invalid_query_field() {
        for bad in [
            "{}",
            "null",
            "[]",
            "\"NewBlock\"",
            "NewBlock",
            " ",
            "{\"query\":\"NewBlock\"",
            "{\"query\":\"NewBlock\",}",
            "{\"query\":\"NewBlock\"} x",
            "{\"query\":\"newblock\"}",
            "{\"query\":\"NewBlock \"}",
            "{\"query\":1}",
            "{\"query\":null}",
            "{\"query\":[\"NewBlock\"]}",
            "{\"type\":\"NewBlock\"}",
            "{\"query\":\"Notification\"}",
            "{/**/\"query\":\"NewBlock\"}",
        ] {
            assert_eq!(read(bad, Deployed), Err(words::QUERY), "{bad}");
        }
    }

    /// The queries in the protocol's documentation, as written there.
    #[test]
    fn zilliqa_documented_takes_the_examples_of_the_page() {
        let contracts = concat!(
            "{\n  \"query\":\"EventLog\",\n  \"addresses\":[\n",
            "    \"0x0000000000000000000000000000000000000000\",\n",
            "    \"0x1111111111111111111111111111111111111111\"\n  ]\n}"
        );
        let zero = ([0; 20], 0);
        let ones = ([0x11; 20], 0);
        let contracts_query = SubscriptionQuery::Addresses(QueryTopic::EventLog, vec![zero, ones]);
        assert_eq!(read(contracts, Documented), Ok(contracts_query));
        let new_block = "{\n  \"query\":\"NewBlock\",\n}";
        assert_eq!(read(new_block, Documented), Ok(SubscriptionQuery::NewBlock));
        assert_eq!(read(new_block, Deployed), Err(words::QUERY));
        for topic in ["NewBlock", "EventLog"] {
            let text = format!("{{\n  \"query\":\"Unsubscribe\",\n  \"type\":\"{topic}\"\n}}");
            let expected = QueryTopic::named(topic).map(SubscriptionQuery::Unsubscribe);
            assert_eq!(read(&text, Documented).ok(), expected);
        }
        // The addresses of the documentation's last example have 33 digits, which is malformed by
        // its own rules.
        let short = format!(r#"["0x{}","0x{}"]"#, "0".repeat(33), "1".repeat(33));
        assert_eq!(addresses("EventLog", &short, Documented), Err(words::ADDRESSES));
        assert_eq!(addresses("TxnLog", &short, Documented), Err(words::PAYMENT_HEX));
    }

    #[test]
    fn zilliqa_documented_takes_one_comma_after_a_value_and_no_more() {
        let list = format!("[ \"{A}\" , ]");
        assert!(addresses("TxnLog", &list, Documented).is_ok());
        for good in [
            r#"{"query":"NewBlock" , }"#,
            r#"{"x":[{},],"y":{"z":[1,],},"query":"NewBlock",}"#,
            r#"{"x":"a,}\",]\\","query":"NewBlock",}"#,
            r#"{"é":"é,}","query":"NewBlock",}"#,
        ] {
            assert_eq!(read(good, Documented), Ok(SubscriptionQuery::NewBlock), "{good}");
            assert_eq!(read(good, Deployed), Err(words::QUERY), "{good}");
        }
        for bad in [
            "{,}",
            r#"{"query":"NewBlock",,}"#,
            r#"{,"query":"NewBlock"}"#,
            r#"{"x":[,],"query":"NewBlock"}"#,
            r#"{"query":,}"#,
            r#"{"query":"NewBlock"},"#,
            r#"{"query":"NewBlock",} ,"#,
            r#"{"query":"NewBlock","#,
            r#"{"query":"NewBlock,}"#,
            ",}",
            ",]",
        ] {
            assert_eq!(read(bad, Documented), Err(words::QUERY), "{bad}");
        }
        // Commas in strings are kept.
        let text = r#"{"query":"New,}Block"}"#;
        assert_eq!(without_trailing_commas(text), text);
        // The time is linear in the length of the text: this one has 3 MiB.
        let long = format!("{}1{}", "[".repeat(1 << 20), ",]".repeat(1 << 20));
        assert_eq!(without_trailing_commas(&long).matches(',').count(), 0);
    }

    #[test]
    fn zilliqa_only_a_topic_can_be_unsubscribed() {
        for bad in ["\"Unsubscribe\"", "\"newblock\"", "1", "null", "{}", "[\"NewBlock\"]", "\"\""]
        {
            let text = format!(r#"{{"query":"Unsubscribe","type":{bad}}}"#);
            assert_eq!(read(&text, Deployed), Err(words::TYPE), "{bad}");
        }
        assert_eq!(read(r#"{"query":"Unsubscribe"}"#, Deployed), Err(words::TYPE));
    }

    #[test]
    fn zilliqa_addresses_must_be_a_list_that_is_not_empty() {
        for query in ["EventLog", "TxnLog"] {
            for bad in ["[]", "{}", "null", "\"0x\"", "1"] {
                assert_eq!(addresses(query, bad, Deployed), Err(words::ADDRESSES), "{bad}");
            }
            let text = format!(r#"{{"query":"{query}"}}"#);
            assert_eq!(read(&text, Deployed), Err(words::ADDRESSES));
        }
    }

    #[test]
    fn zilliqa_one_malformed_address_refuses_the_list() {
        let short = &A[..41];
        let no_prefix = format!("{}00", &A[2..]);
        let upper_prefix = A.replace("0x", "0X");
        let bad_digit = format!("{}g", &A[..41]);
        let text = |it: &str| format!("\"{it}\"");
        for (bad, length) in [
            (text(short), true),
            (text(&format!("{A}0")), true),
            (text(&no_prefix), true),
            (text(&upper_prefix), true),
            (text("zil1vzgs2jng8ldlyg6sq24r9yhj0fpvr8qjcwqr6a"), true),
            (text(""), true),
            ("1".to_owned(), true),
            ("null".to_owned(), true),
            ("true".to_owned(), true),
            (text(&bad_digit), false),
            (text(&format!("0x{}", "é".repeat(20))), false),
            ("[]".to_owned(), false),
            ("{}".to_owned(), false),
        ] {
            let list = format!(r#"["{A}",{bad}]"#);
            let expect = |query, wire, error| {
                assert_eq!(addresses(query, &list, wire), Err(error), "{query} {wire:?} {bad}");
            };
            let digits = words::ADDRESS;
            expect("EventLog", Deployed, if length { words::EVENT_HEX } else { digits });
            expect("TxnLog", Deployed, if length { words::PAYMENT_HEX } else { digits });
            expect("EventLog", Documented, words::ADDRESSES);
            expect("TxnLog", Documented, words::PAYMENT_HEX);
        }
    }
}
