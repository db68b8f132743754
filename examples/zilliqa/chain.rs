//! A simulated chain, and the responses about it by nodes of both generations.
//!
//! All content is derived from a block's number, so that any two nodes return the same.

use serde_json::{Value, json};

/// The address of the contract that half of all transactions call.
pub const CONTRACT: &str = "1111111111111111111111111111111111111111";
/// The address that the other transactions pay to.
pub const WALLET: &str = "2222222222222222222222222222222222222222";
/// The public key of the sender of all transactions: the generator of secp256k1.
const SENDER: &str = "0x0279BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798";
/// The number of transactions on one page.
const PAGE: u64 = 2500;

/// The generation of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The older node, in C++.
    Zq1,
    /// The newer node, in Rust.
    Zq2,
}

/// A simulated chain; see the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// The generation of the node.
    pub shape: Shape,
    /// Whether the node returns all transactions of a block in one response.
    pub bodies: bool,
    /// Returns the number of transactions of the block with this number.
    pub count: fn(u64) -> u64,
}

impl Chain {
    /// A chain of small blocks; every fourth block is empty.
    pub fn new(shape: Shape) -> Chain {
        Chain { shape, bodies: true, count: |number| number % 4 }
    }

    /// The response to one request; `tip` is the number of the newest block.
    pub fn answer(&self, request: &str, tip: u64) -> String {
        match serde_json::from_str(request) {
            Ok(Value::Array(calls)) => {
                // In reverse, because the order of the responses of a batch is not guaranteed.
                let answers = calls.iter().rev().map(|call| self.reply(call, tip));
                Value::Array(answers.collect()).to_string()
            }
            Ok(call) => self.reply(&call, tip).to_string(),
            Err(_) => error(&Value::Null, -32700, "Parse error").to_string(),
        }
    }

    fn reply(&self, call: &Value, tip: u64) -> Value {
        let id = &call["id"];
        match self.result(call, tip) {
            Ok(result) => json!({"id": id, "jsonrpc": "2.0", "result": result}),
            Err((code, message)) => error(id, code, &message),
        }
    }

    fn result(&self, call: &Value, tip: u64) -> Result<Value, (i64, String)> {
        let param = |at: usize| call["params"][at].as_str().unwrap_or_default();
        let number = || param(0).parse::<u64>().unwrap_or(u64::MAX);
        let page = || param(1).parse::<u64>().unwrap_or(u64::MAX);
        match call["method"].as_str().unwrap_or_default() {
            "GetLatestTxBlock" => Ok(self.block(tip)),
            "GetTxBlock" => match (number() <= tip, self.shape) {
                (true, _) => Ok(self.block(number())),
                (false, Shape::Zq1) => Ok(self.block(u64::MAX)),
                (false, Shape::Zq2) if number() <= tip + 5 => {
                    Err((-32603, "Block not finalized".to_owned()))
                }
                (false, Shape::Zq2) => Ok(Value::Null),
            },
            "GetTransactionsForTxBlock" => {
                self.check(number(), tip)?;
                Ok(json!(self.shards(hashes(number(), 0..(self.count)(number())))))
            }
            "GetTransactionsForTxBlockEx" => {
                self.check(number(), tip)?;
                let list = hashes(number(), self.span(number(), page()));
                Ok(self.page(number(), page(), json!(self.shards(list))))
            }
            "GetTxnBodiesForTxBlock" => {
                self.check_bodies("GetTxnBodiesForTxBlock", number(), tip)?;
                Ok(self.all_bodies(number(), 0..(self.count)(number())))
            }
            "GetTxnBodiesForTxBlockEx" => {
                self.check_bodies("GetTxnBodiesForTxBlockEx", number(), tip)?;
                let list = self.all_bodies(number(), self.span(number(), page()));
                Ok(self.page(number(), page(), list))
            }
            "GetTransaction" => self.transaction(param(0), tip),
            "GetSmartContractCode" => self.code(param(0)),
            _ => Err((-32601, "Method not found".to_owned())),
        }
    }

    /// The result of `GetTxBlock`.
    pub fn block(&self, number: u64) -> Value {
        let divided = self.shape == Shape::Zq1;
        let count = if number == u64::MAX { 0 } else { (self.count)(number) };
        let parts = u64::from(divided && count > 0);
        let zeros = "0".repeat(64);
        let mut header = json!({
            "BlockNum": number.to_string(),
            "DSBlockNum": (number / 100).to_string(),
            "GasLimit": "650000",
            "GasUsed": (count * 50).to_string(),
            "MbInfoHash": zeros,
            "NumMicroBlocks": parts,
            "NumPages": count.div_ceil(PAGE),
            "NumTxns": count,
            "PrevBlockHash": format!("{:064x}", number.wrapping_sub(1)),
            "Rewards": "0",
            "StateDeltaHash": zeros,
            "StateRootHash": format!("{:064x}", u128::from(number) * 7),
            "Timestamp": (1_700_000_000_000_000 + u128::from(number) * 1_000_000).to_string(),
            "TxnFees": "0",
            "Version": 1,
        });
        if divided {
            header["MinerPubKey"] = json!(SENDER);
        }
        let part = json!({
            "MicroBlockHash": format!("{number:064x}"),
            "MicroBlockShardId": 1,
            "MicroBlockTxnRootHash": zeros,
        });
        let parts = vec![part; parts as usize];
        let body = json!({
            "BlockHash": format!("{number:064x}"),
            "HeaderSign": "0".repeat(128),
            "MicroBlockInfos": parts,
        });
        json!({"header": header, "body": body})
    }

    /// The document of an epoch, as it is posted to a server.
    pub fn document(&self, number: u64) -> Value {
        let count = (self.count)(number);
        let hashes = match count {
            0 => json!([]),
            _ => json!(self.shards(hashes(number, 0..count))),
        };
        let transactions: Vec<Value> = (0..count).map(|at| self.whole(number, at)).collect();
        json!({"TxBlock": self.block(number), "TxHashes": hashes, "Transactions": transactions})
    }

    /// The transactions by shard. Of the older nodes, all are in the second shard and the first is
    /// null.
    fn shards(&self, list: Vec<String>) -> Vec<Option<Vec<String>>> {
        match self.shape {
            Shape::Zq1 => vec![None, Some(list)],
            Shape::Zq2 => vec![Some(list)],
        }
    }

    fn check(&self, number: u64, tip: u64) -> Result<(), (i64, String)> {
        let (unknown, empty) = match self.shape {
            Shape::Zq1 => (-32602, -1),
            Shape::Zq2 => (-32603, -32603),
        };
        if number > tip {
            return Err((unknown, "Tx Block does not exist".to_owned()));
        }
        match (self.count)(number) {
            0 => Err((empty, "TxBlock has no transactions".to_owned())),
            _ => Ok(()),
        }
    }

    fn check_bodies(&self, method: &str, number: u64, tip: u64) -> Result<(), (i64, String)> {
        if !self.bodies {
            return Err((-32600, format!("{method} not enabled")));
        }
        self.check(number, tip)
    }

    fn span(&self, number: u64, page: u64) -> std::ops::Range<u64> {
        let count = (self.count)(number);
        let from = page.saturating_mul(PAGE).min(count);
        from..(from + PAGE).min(count)
    }

    fn page(&self, number: u64, page: u64, list: Value) -> Value {
        let pages = (self.count)(number).div_ceil(PAGE);
        json!({"CurrPage": page, "NumPages": pages, "Transactions": list})
    }

    fn all_bodies(&self, number: u64, which: std::ops::Range<u64>) -> Value {
        let body = |at| match self.shape {
            Shape::Zq1 => self.whole(number, at),
            Shape::Zq2 => {
                // Newer nodes omit most of the receipt here.
                let mut body = self.whole(number, at);
                if let Some(receipt) = body["receipt"].as_object_mut() {
                    receipt.retain(|key, _| key != "event_logs");
                }
                body
            }
        };
        Value::Array(which.map(body).collect())
    }

    fn transaction(&self, text: &str, tip: u64) -> Result<Value, (i64, String)> {
        let half = |range: std::ops::Range<usize>| {
            text.get(range).and_then(|digits| u64::from_str_radix(digits, 16).ok())
        };
        match (half(0..32), half(32..64)) {
            (Some(number), Some(at)) if number <= tip && at < (self.count)(number) => {
                Ok(self.whole(number, at))
            }
            _ => Err((-20, "Txn Hash not Present".to_owned())),
        }
    }

    /// One transaction in the form of `GetTransaction`: a contract call or a payment.
    fn whole(&self, number: u64, at: u64) -> Value {
        let calls = at.is_multiple_of(2);
        let mut receipt = json!({
            "success": true,
            "cumulative_gas": "50",
            "epoch_num": number.to_string(),
        });
        if calls {
            let address = format!("0x{CONTRACT}");
            let value = format!("{number}.{at}");
            let params = json!([{"vname": "at", "type": "String", "value": value}]);
            receipt["event_logs"] =
                json!([{"_eventname": "Told", "address": address, "params": params}]);
        }
        json!({
            "ID": hash(number, at),
            "version": "65537",
            "nonce": (number + at).to_string(),
            "toAddr": if calls { CONTRACT } else { WALLET },
            "senderPubKey": SENDER,
            "amount": (number * 1000 + at).to_string(),
            "signature": format!("0x{}", "0".repeat(128)),
            "gasPrice": "2000000000",
            "gasLimit": "50",
            "receipt": receipt,
        })
    }

    fn code(&self, address: &str) -> Result<Value, (i64, String)> {
        match (address.trim_start_matches("0x"), self.shape) {
            (CONTRACT, Shape::Zq1) => Ok(json!({"code": "scilla_version 0"})),
            (CONTRACT, Shape::Zq2) => Ok(json!({"code": "scilla_version 0", "type": "scilla"})),
            (WALLET, Shape::Zq1) => Err((-5, "Address not contract address".to_owned())),
            (WALLET, Shape::Zq2) => Ok(json!({"code": "", "type": "evm"})),
            (other, _) => Err((-5, format!("Address does not exist: {other}"))),
        }
    }
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    let error = json!({"code": code, "message": message, "data": null});
    json!({"id": id, "jsonrpc": "2.0", "error": error})
}

fn hash(number: u64, at: u64) -> String {
    format!("{number:032x}{at:032x}")
}

fn hashes(number: u64, which: std::ops::Range<u64>) -> Vec<String> {
    which.map(|at| hash(number, at)).collect()
}
