//! One epoch: a Tx block, the hashes of its transactions, and the events and transfers of those.
//!
//! The document is kept as received, and the parts that are forwarded unchanged are byte ranges of
//! it. What many subscribers receive is serialized once, by the core that needs it first, and
//! shared by all cores.

use super::address::{self, Address, KEY_BYTES};
use crate::mem::Frozen;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

/// One epoch, shared by all cores.
pub struct Epoch {
    text: Box<str>,
    number: u64,
    block: Range<usize>,
    hashes: Range<usize>,
    /// The contracts with events, in the order of their first events.
    emitters: Vec<Emitter>,
    by_address: HashMap<Address, u32, ahash::RandomState>,
    /// The transactions in block order.
    transactions: Vec<Transaction>,
    skipped: Vec<Anomaly>,
    /// The number of hashes in `TxHashes`.
    hash_count: usize,
    new_block: OnceLock<Part>,
    by_account: OnceLock<HashMap<Address, Account, ahash::RandomState>>,
}

/// The indexes of the transactions that an account has received, and of those that it has sent.
type Account = (Vec<u32>, Vec<u32>);

/// Serialized bytes that many notifications have in common, in pieces that each fit a frame.
pub type Part = Box<[Frozen]>;

/// A contract with events in this epoch.
#[derive(Debug)]
pub struct Emitter {
    /// The contract's address.
    pub address: Address,
    /// The name and the parameters of each event, as byte ranges of the document.
    logs: Vec<(Range<usize>, Range<usize>)>,
    written: OnceLock<Part>,
}

/// A transaction with its sender, receiver and amount.
#[derive(Debug)]
pub struct Transaction {
    /// The receiver's account.
    pub to: Address,
    id: Range<usize>,
    amount: Range<usize>,
    success: bool,
    sender: Sender,
    from: OnceLock<Address>,
    written: OnceLock<Box<[u8]>>,
}

#[derive(Debug)]
enum Sender {
    Account(Address),
    Key([u8; KEY_BYTES]),
    EthereumKey([u8; KEY_BYTES]),
}

/// Whether a transaction that cannot be parsed makes the whole document invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// The document is refused.
    Refuse,
    /// The transaction is left out, and reported by [`Epoch::skipped`].
    Skip,
}

/// A transaction that cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Transactions[{index}]: {what}")]
pub struct Anomaly {
    /// The transaction's index in the document's `Transactions`.
    pub index: usize,
    /// What is wrong with the transaction.
    pub what: &'static str,
}

/// Why a document is not a valid epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The document is not JSON, not an object, or lacks a member.
    #[error("the document must be an object with TxBlock, TxHashes and, optionally, Transactions")]
    Document,
    /// The block has no valid number.
    #[error("TxBlock must be an object whose header.BlockNum is a decimal string")]
    BlockNum,
    /// The block is the placeholder that a node returns for a block which does not exist.
    #[error("TxBlock is the placeholder for a block that does not exist")]
    Placeholder,
    /// `TxHashes` is not an array of null or of arrays of hashes.
    #[error("TxHashes must be an array of null or of arrays of 64 hexadecimal digits")]
    TxHashes,
    /// A transaction cannot be parsed.
    #[error(transparent)]
    Transaction(#[from] Anomaly),
}

#[derive(Deserialize)]
struct Document<'t> {
    #[serde(borrow, rename = "TxBlock")]
    block: &'t RawValue,
    #[serde(borrow, rename = "TxHashes")]
    hashes: &'t RawValue,
    #[serde(borrow, rename = "Transactions", default)]
    transactions: Vec<&'t RawValue>,
}

#[derive(Deserialize)]
struct Block<'t> {
    #[serde(borrow)]
    header: &'t RawValue,
}

#[derive(Deserialize)]
struct Header<'t> {
    #[serde(rename = "BlockNum")]
    number: &'t str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given<'t> {
    #[serde(borrow, rename = "ID")]
    id: Option<&'t RawValue>,
    #[serde(borrow)]
    to_addr: Option<&'t RawValue>,
    #[serde(borrow)]
    sender_addr: Option<&'t RawValue>,
    #[serde(borrow)]
    sender_pub_key: Option<&'t RawValue>,
    #[serde(borrow)]
    amount: Option<&'t RawValue>,
    #[serde(borrow)]
    version: Option<&'t RawValue>,
    #[serde(borrow)]
    receipt: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct Receipt<'t> {
    success: bool,
    #[serde(borrow)]
    event_logs: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct Log<'t> {
    #[serde(borrow, rename = "_eventname")]
    name: &'t RawValue,
    #[serde(borrow)]
    address: &'t RawValue,
    #[serde(borrow)]
    params: &'t RawValue,
}

impl Epoch {
    /// Parses a document: `{"TxBlock":..,"TxHashes":..,"Transactions":[..]}`, with the results of a
    /// node's `GetTxBlock`, `GetTransactionsForTxBlock` and `GetTransaction`.
    ///
    /// # Errors
    /// The first problem found.
    pub fn read(text: String, strictness: Strictness) -> Result<Epoch, EpochError> {
        let text = text.into_boxed_str();
        let document: Document<'_> = object(&text).ok_or(EpochError::Document)?;
        let number = number_of(document.block.get())?;
        let hash_count = check_hashes(document.hashes.get())?;
        let span = |part: &str| span(&text, part);
        let (block, hashes) = (span(document.block.get()), span(document.hashes.get()));
        let mut found = PartialEpoch::new(&text);
        for (index, given) in document.transactions.iter().enumerate() {
            if let Err(what) = found.take(given.get()) {
                let anomaly = Anomaly { index, what };
                match strictness {
                    Strictness::Refuse => return Err(anomaly.into()),
                    Strictness::Skip => found.skipped.push(anomaly),
                }
            }
        }
        let PartialEpoch { emitters, by_address, transactions, skipped, .. } = found;
        let (new_block, by_account) = (OnceLock::new(), OnceLock::new());
        Ok(Epoch {
            number,
            block,
            hashes,
            emitters,
            by_address,
            transactions,
            skipped,
            hash_count,
            new_block,
            by_account,
            text,
        })
    }

    /// The block's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The document as it was received.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The transactions that were left out, with the reasons.
    pub fn skipped(&self) -> &[Anomaly] {
        &self.skipped
    }

    /// Whether the document has the block's transactions. While no client needs them, they are not
    /// fetched from a node.
    pub fn has_transactions(&self) -> bool {
        let known = self.transactions.len() + self.skipped.len();
        self.hash_count == 0 || known > 0
    }

    /// The estimated memory of the epoch in bytes, with everything that may be serialized of it.
    pub fn memory(&self) -> usize {
        /// Bytes of a serialized transaction and of its entries in the table of accounts, besides
        /// what is copied from the document.
        const RECORD: usize = 512;
        const EMITTER: usize = size_of::<Emitter>() + 128;
        let transactions = self.transactions.len() * (size_of::<Transaction>() + RECORD);
        let ranges: usize = self.emitters.iter().map(|emitter| emitter.logs.capacity()).sum();
        let ranges = ranges * size_of::<(Range<usize>, Range<usize>)>();
        size_of::<Epoch>()
            + 2 * self.text.len()
            + transactions
            + self.emitters.len() * EMITTER
            + ranges
    }

    /// The contracts with events, in the order of their first events.
    pub fn emitters(&self) -> &[Emitter] {
        &self.emitters
    }

    /// The index of a contract in [`Epoch::emitters`]; `None` if it has no events.
    pub fn emitter(&self, address: &Address) -> Option<u32> {
        self.by_address.get(address).copied()
    }

    /// The transactions in block order.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The indexes of the transactions that an account has received, and of those that it has sent.
    pub fn transactions_of(&self, account: &Address) -> (&[u32], &[u32]) {
        let all = self.by_account.get_or_init(|| {
            let mut all: HashMap<Address, Account, ahash::RandomState> = HashMap::default();
            for (at, transaction) in (0..).zip(&self.transactions) {
                all.entry(transaction.to).or_default().0.push(at);
                all.entry(*transaction.from()).or_default().1.push(at);
            }
            all
        });
        all.get(account).map_or((&[], &[]), |(received, sent)| (received, sent))
    }

    /// Computes the senders' accounts that are not known yet. For an Ethereum key this takes about
    /// 10 microseconds.
    pub fn prepare(&self) {
        for transaction in &self.transactions {
            transaction.from();
        }
    }

    /// The epoch's `{"query":"NewBlock","value":{..}}`, in pieces of at most `max_bytes` bytes. The
    /// first call decides the size for all later ones.
    pub fn new_block(&self, max_bytes: usize) -> &[Frozen] {
        self.new_block.get_or_init(|| {
            let (block, hashes) = (&self.text[self.block.clone()], &self.text[self.hashes.clone()]);
            let mut out = Vec::with_capacity(block.len() + hashes.len() + 64);
            out.extend_from_slice(br#"{"query":"NewBlock","value":{"TxBlock":"#);
            out.extend_from_slice(block.as_bytes());
            out.extend_from_slice(br#","TxHashes":"#);
            out.extend_from_slice(hashes.as_bytes());
            out.extend_from_slice(b"}}");
            part(&out, max_bytes)
        })
    }

    /// The list of a contract's events, each with its name and parameters only, in pieces of at
    /// most `max_bytes` bytes. The first call decides the size for all later ones.
    pub fn event_logs<'e>(&'e self, emitter: &'e Emitter, max_bytes: usize) -> &'e [Frozen] {
        emitter.written.get_or_init(|| {
            let mut out = b"[".to_vec();
            for (name, params) in &emitter.logs {
                if out.len() > 1 {
                    out.push(b',');
                }
                out.extend_from_slice(br#"{"_eventname":"#);
                out.extend_from_slice(&self.text.as_bytes()[name.clone()]);
                out.extend_from_slice(br#","params":"#);
                out.extend_from_slice(&self.text.as_bytes()[params.clone()]);
                out.push(b'}');
            }
            out.push(b']');
            part(&out, max_bytes)
        })
    }

    /// The record of a transaction in a `TxnLog` notification.
    pub fn record<'e>(&'e self, transaction: &'e Transaction) -> &'e [u8] {
        transaction.written.get_or_init(|| {
            let mut out = Vec::with_capacity(256);
            let from = address::text(transaction.from());
            let to = address::text(&transaction.to);
            let success: &[u8] = if transaction.success { b"true" } else { b"false" };
            for part in [
                br#"{"ID":"#,
                &self.text.as_bytes()[transaction.id.clone()],
                br#","amount":"#,
                &self.text.as_bytes()[transaction.amount.clone()],
                br#","fromAddr":""#,
                &from,
                br#"","success":"#,
                success,
                br#","toAddr":""#,
                &to,
                br#""}"#,
            ] {
                out.extend_from_slice(part);
            }
            out.into_boxed_slice()
        })
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch")
            .field("number", &self.number)
            .field("bytes", &self.text.len())
            .field("emitters", &self.emitters.len())
            .field("transactions", &self.transactions.len())
            .finish_non_exhaustive()
    }
}

impl Transaction {
    /// The sender's account.
    pub fn from(&self) -> &Address {
        self.from.get_or_init(|| match &self.sender {
            Sender::Account(address) => *address,
            Sender::Key(key) => address::of_key(key),
            // A key that is not a point on the curve cannot have signed a transaction. The account
            // of its SHA-256 digest is used, so that there always is one.
            Sender::EthereumKey(key) => {
                address::of_ethereum_key(key).unwrap_or_else(|| address::of_key(key))
            }
        })
    }
}

fn part(bytes: &[u8], max_bytes: usize) -> Part {
    bytes.chunks(max_bytes.max(1)).map(Frozen::new).collect()
}

/// Parses a JSON object. Serde would also accept an array of the values in order.
fn object<'t, T: Deserialize<'t>>(text: &'t str) -> Option<T> {
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok()).flatten()
}

/// The byte range of `part` in `text`. `part` must be a slice of `text`.
fn span(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

/// The number in the block's header, which must be in canonical decimal form.
fn number_of(block: &str) -> Result<u64, EpochError> {
    let header = object(block).and_then(|block: Block<'_>| object(block.header.get()));
    let Header { number: digits } = header.ok_or(EpochError::BlockNum)?;
    let number = digits.parse().ok().filter(|number: &u64| number.to_string() == digits);
    match number.ok_or(EpochError::BlockNum)? {
        u64::MAX => Err(EpochError::Placeholder),
        number => Ok(number),
    }
}

/// The number of hashes.
fn check_hashes(hashes: &str) -> Result<usize, EpochError> {
    let shards: Vec<Option<Vec<&str>>> =
        serde_json::from_str(hashes).map_err(|_| EpochError::TxHashes)?;
    let is_hash = |hash: &&str| hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    match shards.iter().flatten().flatten().all(is_hash) {
        true => Ok(shards.iter().flatten().map(Vec::len).sum()),
        false => Err(EpochError::TxHashes),
    }
}

/// The content of a JSON string without escapes.
fn plain(raw: &RawValue) -> Option<&str> {
    let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// What was parsed of a document so far.
struct PartialEpoch<'t> {
    text: &'t str,
    emitters: Vec<Emitter>,
    by_address: HashMap<Address, u32, ahash::RandomState>,
    transactions: Vec<Transaction>,
    skipped: Vec<Anomaly>,
}

impl<'t> PartialEpoch<'t> {
    fn new(text: &'t str) -> PartialEpoch<'t> {
        PartialEpoch {
            text,
            emitters: Vec::new(),
            by_address: HashMap::default(),
            transactions: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Parses one transaction with its receipt, and adds it.
    fn take(&mut self, given: &'t str) -> Result<(), &'static str> {
        let given: Given<'_> = object(given).ok_or("it must be an object")?;
        let is_id = |id: &&str| id.len() == 64 && id.bytes().all(|it| it.is_ascii_hexdigit());
        let is_amount =
            |amount: &&str| !amount.is_empty() && amount.bytes().all(|it| it.is_ascii_digit());
        let id = given.id.filter(|id| plain(id).filter(is_id).is_some());
        let amount = given.amount.filter(|amount| plain(amount).filter(is_amount).is_some());
        let to = given.to_addr.and_then(plain).and_then(address::parse_with_prefix);
        let sender = sender(&given).ok_or("neither senderAddr nor senderPubKey is well formed")?;
        let receipt = given.receipt.and_then(|receipt| object(receipt.get()));
        let Receipt { success, event_logs } =
            receipt.ok_or("receipt must be an object with a boolean success")?;
        let id = id.ok_or("ID must be 64 hexadecimal digits")?;
        let amount = amount.ok_or("amount must be a decimal string")?;
        self.transactions.push(Transaction {
            to: to.ok_or("toAddr must be 40 hexadecimal digits")?,
            id: span(self.text, id.get()),
            amount: span(self.text, amount.get()),
            success,
            sender,
            from: OnceLock::new(),
            written: OnceLock::new(),
        });
        if let Some(logs) = event_logs.filter(|_| success) {
            self.logs(logs.get());
        }
        Ok(())
    }

    /// Adds the logs that are events of contracts. Ethereum's logs are skipped.
    fn logs(&mut self, logs: &'t str) {
        let Ok(logs) = serde_json::from_str::<Vec<&RawValue>>(logs) else { return };
        for log in logs {
            let Some(log) = object::<Log<'_>>(log.get()) else { continue };
            let named = log.name.get().starts_with('"') && log.params.get().starts_with('[');
            let address = plain(log.address).and_then(address::parse_with_prefix);
            let (true, Some(address)) = (named, address) else { continue };
            let next = self.emitters.len() as u32;
            let at = *self.by_address.entry(address).or_insert(next);
            if at == next {
                let logs = Vec::new();
                self.emitters.push(Emitter { address, logs, written: OnceLock::new() });
            }
            let spans = (span(self.text, log.name.get()), span(self.text, log.params.get()));
            self.emitters[at as usize].logs.push(spans);
        }
    }
}

/// The sender of a transaction: the account if it is given, else the public key. The lower 16 bits
/// of a transaction's version give its signature scheme: 2 to 4 are Ethereum's.
fn sender(given: &Given<'_>) -> Option<Sender> {
    if let Some(account) = given.sender_addr.filter(|it| it.get() != "null") {
        return plain(account).and_then(address::parse_with_prefix).map(Sender::Account);
    }
    let key = given.sender_pub_key.and_then(plain).and_then(address::parse_key)?;
    let version = given.version.map_or("1", |version| version.get().trim_matches('"'));
    match version.parse::<u32>().unwrap_or(1) & 0xffff {
        2..=4 => Some(Sender::EthereumKey(key)),
        _ => Some(Sender::Key(key)),
    }
}

#[cfg(test)]
mod tests;
