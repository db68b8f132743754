//! Fetches one epoch from a node, call by call.

use super::rpc::{self, Block, Hashes, InvalidReply, RpcReply};
use serde_json::value::RawValue;

/// The number of transactions above which nodes return a block in pages.
const PAGE: u64 = 2500;
/// The maximum number of transactions in one batch, if they are requested by their hashes.
const BATCH: usize = 50;
/// How often missing transactions are requested again before the epoch is published without them.
const TRIES: u32 = 5;

/// The fetch of one epoch; see the module's documentation.
#[derive(Debug)]
pub(super) struct EpochFetch {
    number: u64,
    max_bytes: usize,
    asked: bool,
    /// The node that the last part was requested from.
    node: usize,
    step: Step,
    block: Option<(Block, Box<RawValue>)>,
    hashes: Hashes,
    bodies: Vec<Box<RawValue>>,
    /// Bytes of all responses that were kept.
    bytes: usize,
    tries: u32,
}

/// What is requested next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Block,
    /// Transaction hashes, from this page on.
    Hashes(u64),
    /// All transactions of the block, from this page on.
    Bodies(u64),
    /// Transactions by their hashes, from this index on.
    Each(usize),
    Whole,
}

/// The result of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FetchProgress {
    /// The response was kept. `missing` is the number of transactions that were given up.
    Further { missing: u64 },
    /// The node does not have the block yet.
    NotYet,
    /// The node does not return all transactions of a block in one response.
    NotOffered,
    /// The node responded with an error: its code and message.
    Error(i64, String),
}

impl EpochFetch {
    /// A fetch of the epoch `number`, whose responses may have `max_bytes` bytes in total.
    pub(super) fn new(number: u64, max_bytes: usize) -> EpochFetch {
        EpochFetch {
            number,
            max_bytes,
            asked: false,
            node: 0,
            step: Step::Block,
            block: None,
            hashes: Vec::new(),
            bodies: Vec::new(),
            bytes: 0,
            tries: 0,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether a request is in flight.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// The node that the epoch was fetched from, if the fetch is complete. Without `wants_logs` it
    /// is complete without transactions.
    pub(super) fn whole(&self, wants_logs: bool) -> Option<usize> {
        let enough = match self.step {
            Step::Whole => true,
            // No client needs more than the block and its hashes.
            Step::Bodies(0) | Step::Each(0) => !wants_logs && self.bodies.is_empty(),
            _ => false,
        };
        (enough && !self.asked).then_some(self.node)
    }

    /// Discards all parts and begins again with the block.
    pub(super) fn restart(&mut self) {
        *self = EpochFetch { tries: self.tries, ..EpochFetch::new(self.number, self.max_bytes) };
    }

    /// Builds the request for the next part. `offers_bodies` is false if the node is known not to
    /// return all transactions of a block in one response.
    pub(super) fn next_request(&mut self, node: usize, offers_bodies: bool) -> String {
        if node != self.node {
            // All parts must come from one node, because nodes differ in what they leave out.
            self.restart();
        }
        (self.asked, self.node) = (true, node);
        let divided = self.block.as_ref().is_some_and(|(block, _)| block.divided);
        // The newer nodes, whose blocks are not divided, leave the event logs out of this response.
        if let Step::Bodies(0) = self.step
            && !(offers_bodies && divided)
        {
            self.step = Step::Each(0);
        }
        let number = self.number.to_string();
        let number = number.as_str();
        let pages = self.block.as_ref().is_some_and(|(block, _)| block.count > PAGE);
        let call = |method: &str, page: u64| match pages {
            true => rpc::call(0, &format!("{method}Ex"), &[number, &page.to_string()]),
            false => rpc::call(0, method, &[number]),
        };
        match self.step {
            Step::Block | Step::Whole => rpc::call(0, "GetTxBlock", &[number]),
            Step::Hashes(page) => call("GetTransactionsForTxBlock", page),
            Step::Bodies(page) => call("GetTxnBodiesForTxBlock", page),
            Step::Each(from) => {
                let hashes = self.hashes.iter().flatten().flatten().skip(from).take(BATCH);
                let calls = hashes.enumerate();
                let calls = calls.map(|(id, hash)| rpc::call(id, "GetTransaction", &[hash]));
                format!("[{}]", calls.collect::<Vec<_>>().join(","))
            }
        }
    }

    /// Notes that the request had no usable response: it will be made again.
    pub(super) fn unanswered(&mut self) {
        self.asked = false;
    }

    /// Takes the response to the request in flight.
    ///
    /// # Errors
    /// The response is invalid, or the epoch is larger than `max_bytes`.
    pub(super) fn answered(&mut self, bytes: &[u8]) -> Result<FetchProgress, InvalidReply> {
        self.asked = false;
        if self.bytes + bytes.len() > self.max_bytes {
            self.restart();
            return Err(InvalidReply("the responses for the epoch are larger than answer_bytes"));
        }
        let progress = match self.step {
            Step::Each(from) => self.take_each(from, bytes)?,
            step => match rpc::answer(bytes, 0)? {
                RpcReply::Result(raw) => self.take(step, raw)?,
                RpcReply::Error(code, message) => self.refused(step, code, &message),
            },
        };
        if let FetchProgress::Further { .. } = progress {
            self.bytes += bytes.len();
        }
        Ok(progress)
    }

    fn refused(&mut self, step: Step, code: i64, message: &str) -> FetchProgress {
        match step {
            Step::Block if rpc::is_not_yet(message) => FetchProgress::NotYet,
            Step::Bodies(_) if rpc::is_not_offered(code, message) => {
                self.bodies.clear();
                self.step = Step::Each(0);
                FetchProgress::NotOffered
            }
            _ => FetchProgress::Error(code, message.to_owned()),
        }
    }

    fn take(&mut self, step: Step, raw: &RawValue) -> Result<FetchProgress, InvalidReply> {
        match step {
            Step::Block | Step::Whole => {
                let Some(block) = rpc::block(raw)? else { return Ok(FetchProgress::NotYet) };
                if block.number != self.number {
                    return Err(InvalidReply("the response has another block"));
                }
                self.block = Some((block, raw.to_owned()));
                self.step = if block.count == 0 { Step::Whole } else { Step::Hashes(0) };
            }
            Step::Hashes(page) => {
                let (raw, pages) = self.page(raw, page)?;
                let hashes = rpc::hashes(raw)?;
                if !hashes.iter().flatten().any(|shard| !shard.is_empty()) {
                    return Err(InvalidReply(
                        "the block has transactions, but the response has no hashes",
                    ));
                }
                add(&mut self.hashes, hashes);
                let is_last = page + 1 >= pages;
                self.step = if is_last { Step::Bodies(0) } else { Step::Hashes(page + 1) };
            }
            Step::Bodies(page) => {
                let (raw, pages) = self.page(raw, page)?;
                self.bodies.extend(rpc::bodies(raw)?);
                let is_last = page + 1 >= pages;
                self.step = if is_last { Step::Whole } else { Step::Bodies(page + 1) };
            }
            Step::Each(_) => {}
        }
        Ok(FetchProgress::Further { missing: 0 })
    }

    fn page<'r>(&self, raw: &'r RawValue, page: u64) -> Result<(&'r RawValue, u64), InvalidReply> {
        match &self.block {
            Some((block, _)) if block.count > PAGE => rpc::page(raw, page),
            _ => Ok((raw, 1)),
        }
    }

    fn take_each(&mut self, from: usize, bytes: &[u8]) -> Result<FetchProgress, InvalidReply> {
        let total = self.hashes.iter().flatten().flatten().count();
        let count = total.saturating_sub(from).min(BATCH);
        let replies = rpc::answers(bytes, count)?;
        let found = |reply: &RpcReply<'_>| match reply {
            RpcReply::Result(raw) if raw.get().starts_with('{') => Some((*raw).to_owned()),
            _ => None,
        };
        let bodies: Vec<_> = replies.iter().filter_map(found).collect();
        let missing = (count - bodies.len()) as u64;
        if missing > 0 && self.tries < TRIES {
            self.tries += 1;
            let (code, message) = match replies.iter().find(|reply| found(reply).is_none()) {
                Some(RpcReply::Error(code, message)) => (*code, message.as_ref()),
                _ => (0, "the response has no transaction"),
            };
            return Ok(FetchProgress::Error(code, message.to_owned()));
        }
        self.bodies.extend(bodies);
        let next = from + count;
        self.step = if next >= total { Step::Whole } else { Step::Each(next) };
        Ok(FetchProgress::Further { missing })
    }

    /// The epoch as one JSON document.
    pub(super) fn document(&self) -> String {
        let block = self.block.as_ref().map_or("null", |(_, raw)| raw.get());
        // Serializing lists of strings cannot fail.
        let hashes = serde_json::to_string(&self.hashes).unwrap_or_default();
        let mut text = String::with_capacity(self.bytes + 64);
        text += r#"{"TxBlock":"#;
        text += block;
        text += r#","TxHashes":"#;
        text += &hashes;
        text += r#","Transactions":["#;
        for (at, body) in self.bodies.iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            text += body.get();
        }
        text + "]}"
    }
}

/// Appends the hashes of another page to those of their shards.
fn add(all: &mut Hashes, more: Hashes) {
    for (shard, hashes) in more.into_iter().enumerate() {
        if shard == all.len() {
            all.push(None);
        }
        if let Some(hashes) = hashes {
            all[shard].get_or_insert_default().extend(hashes);
        }
    }
}
