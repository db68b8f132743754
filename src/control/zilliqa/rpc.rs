//! JSON-RPC 2.0 as Zilliqa nodes implement it: parameters are positional, and all are strings.
//!
//! Two generations of nodes differ in their responses: where the older one (C++) returns a dummy,
//! the newer one (Rust) returns null or an error. Their error codes differ, too.

use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::Write;

/// A response that is invalid, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidReply(pub(super) &'static str);

/// A node's response to one call.
#[derive(Clone, Debug)]
pub(super) enum RpcReply<'a> {
    /// The unparsed JSON of the result.
    Result(&'a RawValue),
    /// The code and the message of an error.
    Error(i64, Cow<'a, str>),
}

/// Builds one call with this id. Parameters must be numbers or hexadecimal digits, which need no
/// escaping.
pub(super) fn call(id: usize, method: &str, params: &[&str]) -> String {
    let mut text = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"{method}","params":["#);
    for (at, param) in params.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}\"{param}\"");
    }
    text + "]}"
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<Fault<'a>>,
}

#[derive(Deserialize)]
struct Fault<'a> {
    code: i64,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

/// The result or error of a response; a missing result is read as null.
fn reply(envelope: Envelope<'_>) -> RpcReply<'_> {
    match envelope.error {
        Some(fault) => RpcReply::Error(fault.code, fault.message),
        None => RpcReply::Result(envelope.result.unwrap_or(RawValue::NULL)),
    }
}

/// Parses the response to the call with this id.
///
/// # Errors
/// The response is not a JSON-RPC response, or has another id.
pub(super) fn answer(bytes: &[u8], id: usize) -> Result<RpcReply<'_>, InvalidReply> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(bytes).map_err(|_| InvalidReply("the response is not JSON-RPC"))?;
    if envelope.id.get() != id.to_string() {
        return Err(InvalidReply("the response is for another call"));
    }
    Ok(reply(envelope))
}

/// Parses the responses to a batch of calls with the ids `0..count`, and returns them in that
/// order.
///
/// # Errors
/// The response is not that of a batch, or its ids are not exactly those of the calls.
pub(super) fn answers(bytes: &[u8], count: usize) -> Result<Vec<RpcReply<'_>>, InvalidReply> {
    let envelopes: Vec<Envelope<'_>> = serde_json::from_slice(bytes)
        .map_err(|_| InvalidReply("the response is not that of a batch"))?;
    let mut replies: Vec<Option<RpcReply<'_>>> = vec![None; count];
    for envelope in envelopes {
        let place = envelope.id.get().parse().ok().and_then(|id: usize| replies.get_mut(id));
        let place = place.ok_or(InvalidReply("the response is for another call"))?;
        *place = Some(reply(envelope));
    }
    let whole: Option<Vec<_>> = replies.into_iter().collect();
    whole.ok_or(InvalidReply("the response to the batch is incomplete"))
}

/// A number, or a string that holds one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'a> {
    Plain(u64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

impl Number<'_> {
    fn get(&self) -> Option<u64> {
        match self {
            Number::Plain(number) => Some(*number),
            Number::Text(text) => text.parse().ok(),
        }
    }
}

/// The fields of a block that the poller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) number: u64,
    /// The number of its transactions.
    pub(super) count: u64,
    /// Whether the block consists of micro blocks, which only the older nodes have.
    pub(super) divided: bool,
}

/// Parses a block. Returns `None` for null and for the dummy block of the older nodes.
///
/// # Errors
/// The block lacks one of the needed numbers.
pub(super) fn block(raw: &RawValue) -> Result<Option<Block>, InvalidReply> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        header: Header<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Header<'a> {
        #[serde(borrow)]
        block_num: Number<'a>,
        #[serde(borrow)]
        num_txns: Number<'a>,
        #[serde(borrow, default)]
        num_micro_blocks: Option<Number<'a>>,
    }
    let outer: Option<Outer<'_>> = serde_json::from_str(raw.get())
        .map_err(|_| InvalidReply("the block has an unexpected format"))?;
    let Some(Outer { header }) = outer else { return Ok(None) };
    let number = header.block_num.get().ok_or(InvalidReply("the block has no valid number"))?;
    let count = header
        .num_txns
        .get()
        .ok_or(InvalidReply("the block has no valid number of transactions"))?;
    let divided = header.num_micro_blocks.and_then(|number| number.get()).unwrap_or(0) > 0;
    Ok((number != u64::MAX).then_some(Block { number, count, divided }))
}

/// The hashes of a block's transactions by shard; a shard without transactions may be null.
pub(super) type Hashes = Vec<Option<Vec<String>>>;

/// Parses the result of `GetTransactionsForTxBlock`.
///
/// # Errors
/// The result is not a list of lists of hashes with 64 hexadecimal digits.
pub(super) fn hashes(raw: &RawValue) -> Result<Hashes, InvalidReply> {
    let hashes: Hashes = serde_json::from_str(raw.get())
        .map_err(|_| InvalidReply("the response is not a list of lists of hashes"))?;
    let is_hash = |hash: &String| hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    if !hashes.iter().flatten().flatten().all(is_hash) {
        return Err(InvalidReply("a hash does not have 64 hexadecimal digits"));
    }
    Ok(hashes)
}

/// Parses a list of transactions.
///
/// # Errors
/// The result is not a list of objects.
pub(super) fn bodies(raw: &RawValue) -> Result<Vec<Box<RawValue>>, InvalidReply> {
    let bodies: Vec<Box<RawValue>> = serde_json::from_str(raw.get())
        .map_err(|_| InvalidReply("the response is not a list of transactions"))?;
    match bodies.iter().all(|body| body.get().starts_with('{')) {
        true => Ok(bodies),
        false => Err(InvalidReply("a transaction is not an object")),
    }
}

/// Parses page `number` of a result in pages: its content and the total number of pages.
///
/// # Errors
/// The result is not a page, or it is another page.
pub(super) fn page(raw: &RawValue, number: u64) -> Result<(&RawValue, u64), InvalidReply> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page<'a> {
        curr_page: u64,
        num_pages: u64,
        #[serde(borrow)]
        transactions: &'a RawValue,
    }
    let page: Page<'_> =
        serde_json::from_str(raw.get()).map_err(|_| InvalidReply("the response is not a page"))?;
    if page.curr_page != number || page.num_pages <= number {
        return Err(InvalidReply("the response is another page"));
    }
    Ok((page.transactions, page.num_pages))
}

/// Whether the response to `GetSmartContractCode` says that the account is a contract.
///
/// # Errors
/// The result has no code, or the error says nothing about a contract.
pub(super) fn is_contract(reply: &RpcReply<'_>) -> Result<bool, InvalidReply> {
    #[derive(Deserialize)]
    struct Code<'a> {
        #[serde(borrow)]
        code: Cow<'a, str>,
    }
    match reply {
        RpcReply::Result(raw) => {
            let code: Code<'_> = serde_json::from_str(raw.get())
                .map_err(|_| InvalidReply("the response has no code"))?;
            // For an account without code, newer nodes return an empty code and older ones an
            // error.
            Ok(!code.code.is_empty())
        }
        RpcReply::Error(-5, _) => Ok(false),
        RpcReply::Error(_, message) if message.starts_with("Address ") => Ok(false),
        RpcReply::Error(..) => {
            Err(InvalidReply("the error does not say whether the account is a contract"))
        }
    }
}

/// Whether an error message says that the node does not have the block yet.
pub(super) fn is_not_yet(message: &str) -> bool {
    ["not finalized", "does not exist", "not found"].iter().any(|words| message.contains(words))
}

/// Whether an error says that the node does not support the call.
pub(super) fn is_not_offered(code: i64, message: &str) -> bool {
    code == -32601 || message.contains("not enabled")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).expect("JSON")
    }

    #[test]
    fn rpc_call_has_parameters_as_strings() {
        let expected =
            r#"{"id":3,"jsonrpc":"2.0","method":"GetTransactionsForTxBlockEx","params":["7","0"]}"#;
        assert_eq!(call(3, "GetTransactionsForTxBlockEx", &["7", "0"]), expected);
        assert!(call(0, "GetLatestTxBlock", &[]).ends_with(r#""params":[]}"#));
    }

    #[test]
    fn rpc_answer_is_a_result_or_an_error() {
        let text = |bytes: &str| match answer(bytes.as_bytes(), 1) {
            Ok(RpcReply::Result(raw)) => raw.get().to_owned(),
            Ok(RpcReply::Error(code, message)) => format!("{code} {message}"),
            Err(InvalidReply(why)) => why.to_owned(),
        };
        for (bytes, expected) in [
            (r#"{"id":1,"jsonrpc":"2.0","result":{"a":[1]}}"#, r#"{"a":[1]}"#),
            (r#"{"id":1,"result":null}"#, "null"),
            (r#"{"id":1,"error":null,"result":2}"#, "2"),
            (r#"{"id":1,"error":{"code":-5,"message":"\u0041","data":null}}"#, "-5 A"),
            (r#"{"id":2,"result":1}"#, "the response is for another call"),
            (r#"{"result":1}"#, "the response is not JSON-RPC"),
            (r#"{"id":1,"result":1"#, "the response is not JSON-RPC"),
            ("<html>", "the response is not JSON-RPC"),
            ("", "the response is not JSON-RPC"),
            ("\u{feff}{}", "the response is not JSON-RPC"),
        ] {
            assert_eq!(text(bytes), expected, "{bytes}");
        }
        let deep = "[".repeat(100_000);
        assert!(answer(deep.as_bytes(), 1).is_err());
    }

    #[test]
    fn rpc_batch_answers_may_come_in_any_order() {
        let read = |bytes: &str| match answers(bytes.as_bytes(), 2) {
            Ok(replies) => replies
                .iter()
                .map(|reply| match reply {
                    RpcReply::Result(raw) => raw.get().to_owned(),
                    RpcReply::Error(code, _) => code.to_string(),
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(InvalidReply(why)) => why.to_owned(),
        };
        let two = r#"[{"id":1,"result":"b"},{"id":0,"error":{"code":-20,"message":"m"}}]"#;
        assert_eq!(read(two), r#"-20 "b""#);
        assert_eq!(read(r#"[{"id":1,"result":1}]"#), "the response to the batch is incomplete");
        assert_eq!(read(r#"[{"id":2,"result":1}]"#), "the response is for another call");
        assert_eq!(read(r#"{"id":0,"result":1}"#), "the response is not that of a batch");
    }

    #[test]
    fn rpc_reads_blocks_of_both_generations() {
        let read = |text: &str| block(&result(text));
        let old = r#"{"body":{},"header":{"BlockNum":"7","NumTxns":2,"NumMicroBlocks":3}}"#;
        let new = r#"{"header":{"BlockNum":"7","NumTxns":0,"NumMicroBlocks":0,"x":{}}}"#;
        let dummy = r#"{"header":{"BlockNum":"18446744073709551615","NumTxns":0}}"#;
        assert_eq!(read(old), Ok(Some(Block { number: 7, count: 2, divided: true })));
        assert_eq!(read(new), Ok(Some(Block { number: 7, count: 0, divided: false })));
        assert_eq!(read(dummy), Ok(None));
        assert_eq!(read("null"), Ok(None));
        for text in ["{}", "7", r#"{"header":{"BlockNum":"-1","NumTxns":0}}"#, "[]"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rpc_hashes_have_64_digits_or_are_missing() {
        let hash = "0a".repeat(32);
        let text = format!(r#"[["{hash}"],null,[]]"#);
        let expected = vec![Some(vec![hash.clone()]), None, Some(vec![])];
        assert_eq!(hashes(&result(&text)), Ok(expected));
        for text in [format!(r#"[["{hash}0"]]"#), format!(r#"["{hash}"]"#), "{}".to_owned()] {
            assert!(hashes(&result(&text)).is_err(), "{text}");
        }
        assert!(hashes(&result(&format!(r#"[["{}"]]"#, "x".repeat(64)))).is_err());
    }

    #[test]
    fn rpc_page_is_the_requested_one() {
        let text = result(r#"{"CurrPage":1,"NumPages":3,"Transactions":[]}"#);
        assert!(matches!(page(&text, 1), Ok((raw, 3)) if raw.get() == "[]"));
        assert!(page(&text, 0).is_err());
        assert!(page(&result(r#"{"CurrPage":1,"NumPages":1,"Transactions":[]}"#), 1).is_err());
        assert!(page(&result("[]"), 0).is_err());
        assert_eq!(bodies(&result(r#"[{"ID":"a"}, {}]"#)).map(|it| it.len()), Ok(2));
        assert!(bodies(&result("[null]")).is_err());
    }

    #[test]
    fn rpc_contract_is_an_account_with_code() {
        let says = |text: &str| is_contract(&RpcReply::Result(&result(text)));
        assert_eq!(says(r#"{"code":"scilla_version 0"}"#), Ok(true));
        assert_eq!(says(r#"{"code":"","type":"evm"}"#), Ok(false));
        assert!(says("null").is_err());
        let error =
            |code, message: &'static str| is_contract(&RpcReply::Error(code, message.into()));
        assert_eq!(error(-5, "Address not contract address"), Ok(false));
        assert_eq!(error(-32603, "Address does not exist: ab"), Ok(false));
        assert!(error(-32603, "Internal error").is_err());
    }
}
