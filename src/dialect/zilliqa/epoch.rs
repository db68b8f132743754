//! One epoch: a Tx block, the hashes of its transactions and what those have done.
//!
//! The document is kept as it was received, and what is passed on unchanged is a span of it. What
//! many subscribers are sent is written once, by the core that first needs it, and shared by all.

use super::address::{self, Address, KEY_BYTES};
use crate::hub::Event;
use crate::mem::Frozen;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// One epoch. Shared by all cores.
pub struct Epoch {
    text: Box<str>,
    number: u64,
    block: Range<usize>,
    hashes: Range<usize>,
    /// In the order of their first logs.
    emitters: Vec<Emitter>,
    by_address: HashMap<Address, u32, ahash::RandomState>,
    /// In block order.
    transactions: Vec<Transaction>,
    skipped: Vec<Anomaly>,
    new_block: OnceLock<Part>,
    by_account: OnceLock<HashMap<Address, Account, ahash::RandomState>>,
}

/// The transactions that an account has received and sent.
type Account = (Vec<u32>, Vec<u32>);

/// What many notifications have in common, in pieces that each fit a frame.
pub type Part = Box<[Frozen]>;

/// The events of one contract.
#[derive(Debug)]
pub struct Emitter {
    /// The contract.
    pub address: Address,
    /// The name and the parameters of each, as they stand in the document.
    logs: Vec<(Range<usize>, Range<usize>)>,
    written: OnceLock<Part>,
}

/// What a transaction has moved.
#[derive(Debug)]
pub struct Transaction {
    /// Who received it.
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

/// Whether a transaction that cannot be understood makes the document wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// It does.
    Refuse,
    /// It is left out: see [`Epoch::skipped`].
    Skip,
}

/// A transaction that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Transactions[{index}]: {what}")]
pub struct Anomaly {
    /// Which one.
    pub index: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Why a document is no epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// It is not JSON, not an object, or lacks a member.
    #[error("the document must be an object with TxBlock, TxHashes and, optionally, Transactions")]
    Document,
    /// The block has no number.
    #[error("TxBlock must be an object whose header.BlockNum is a decimal string")]
    BlockNum,
    /// The block is the one that a node gives for a number that it does not have.
    #[error("TxBlock is the placeholder for a block that does not exist")]
    Placeholder,
    /// The hashes are not lists of hashes.
    #[error("TxHashes must be an array of null or of arrays of 64 hexadecimal digits")]
    TxHashes,
    /// A transaction is not understood.
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
    /// Reads a document: `{"TxBlock":..,"TxHashes":..,"Transactions":[..]}` with the results of a
    /// node's `GetTxBlock`, `GetTransactionsForTxBlock` and `GetTransaction`.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub fn read(text: String, strictness: Strictness) -> Result<Epoch, EpochError> {
        let text = text.into_boxed_str();
        let document: Document<'_> = object(&text).ok_or(EpochError::Document)?;
        let number = number_of(document.block.get())?;
        check_hashes(document.hashes.get())?;
        let span = |part: &str| span(&text, part);
        let (block, hashes) = (span(document.block.get()), span(document.hashes.get()));
        let mut found = Found::new(&text);
        for (index, given) in document.transactions.iter().enumerate() {
            if let Err(what) = found.take(given.get()) {
                let anomaly = Anomaly { index, what };
                match strictness {
                    Strictness::Refuse => return Err(anomaly.into()),
                    Strictness::Skip => found.skipped.push(anomaly),
                }
            }
        }
        let Found { emitters, by_address, transactions, skipped, .. } = found;
        let (new_block, by_account) = (OnceLock::new(), OnceLock::new());
        Ok(Epoch {
            number,
            block,
            hashes,
            emitters,
            by_address,
            transactions,
            skipped,
            new_block,
            by_account,
            text,
        })
    }

    /// The block's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Transactions that were left out.
    pub fn skipped(&self) -> &[Anomaly] {
        &self.skipped
    }

    /// The contracts with events, in the order of their first ones.
    pub fn emitters(&self) -> &[Emitter] {
        &self.emitters
    }

    /// The place of a contract among those with events.
    pub fn emitter(&self, address: &Address) -> Option<u32> {
        self.by_address.get(address).copied()
    }

    /// The transactions in block order.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The places of the transactions that an account has received, and of those that it has sent.
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

    /// Computes the senders' accounts, if nobody has done so. A key of Ethereum's takes about ten
    /// microseconds.
    pub fn prepare(&self) {
        for transaction in &self.transactions {
            transaction.from();
        }
    }

    /// What is published to make it known: on [`super::CHANNEL`] of [`super::APP`].
    pub fn event(self: Arc<Self>) -> Event {
        Event { message: Some(self), ..Event::default() }
    }

    /// `{"query":"NewBlock","value":{..}}`, in pieces of `max_bytes` bytes.
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

    /// The list of a contract's events, each with its name and its parameters only, in pieces of
    /// `max_bytes` bytes.
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

    /// A transaction's record.
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
    /// Who sent it.
    pub fn from(&self) -> &Address {
        self.from.get_or_init(|| match &self.sender {
            Sender::Account(address) => *address,
            Sender::Key(key) => address::of_key(key),
            // What is no point cannot have signed; the account of its digest serves as well.
            Sender::EthereumKey(key) => {
                address::of_ethereum_key(key).unwrap_or_else(|| address::of_key(key))
            }
        })
    }
}

fn part(bytes: &[u8], max_bytes: usize) -> Part {
    bytes.chunks(max_bytes.max(1)).map(Frozen::new).collect()
}

/// Reads an object; a list of its values in order will not do.
fn object<'t, T: Deserialize<'t>>(text: &'t str) -> Option<T> {
    let is_object = text.trim_ascii_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).ok()).flatten()
}

/// Where `part` lies in `text`, of which it is a slice.
fn span(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr() as usize - text.as_ptr() as usize;
    start..start + part.len()
}

/// The number in the block's header, as canonical decimal.
fn number_of(block: &str) -> Result<u64, EpochError> {
    let header = object(block).and_then(|block: Block<'_>| object(block.header.get()));
    let Header { number: digits } = header.ok_or(EpochError::BlockNum)?;
    let number = digits.parse().ok().filter(|number: &u64| number.to_string() == digits);
    match number.ok_or(EpochError::BlockNum)? {
        u64::MAX => Err(EpochError::Placeholder),
        number => Ok(number),
    }
}

fn check_hashes(hashes: &str) -> Result<(), EpochError> {
    let shards: Vec<Option<Vec<&str>>> =
        serde_json::from_str(hashes).map_err(|_| EpochError::TxHashes)?;
    let is_hash = |hash: &&str| hash.len() == 64 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    match shards.iter().flatten().flatten().all(is_hash) {
        true => Ok(()),
        false => Err(EpochError::TxHashes),
    }
}

/// What stands between the quotes of a JSON string without escapes.
fn plain(raw: &RawValue) -> Option<&str> {
    let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// What has been read of a document.
struct Found<'t> {
    text: &'t str,
    emitters: Vec<Emitter>,
    by_address: HashMap<Address, u32, ahash::RandomState>,
    transactions: Vec<Transaction>,
    skipped: Vec<Anomaly>,
}

impl<'t> Found<'t> {
    fn new(text: &'t str) -> Found<'t> {
        Found {
            text,
            emitters: Vec::new(),
            by_address: HashMap::default(),
            transactions: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Takes one transaction with its receipt.
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

    /// Takes the logs that are events of contracts; those of Ethereum's are not.
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

/// The account if it is given, or else the key that it follows from. The low half of a
/// transaction's version says in which manner it was signed: 2 to 4 are Ethereum's.
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
