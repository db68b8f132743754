//! Entries of the log as the server stores and answers them.

use super::script::{LogState, number, text};
use redis::Value;
use std::time::Duration;

/// The maximum number of entries that are asked for at a time.
pub(super) const ENTRIES: usize = 64;
/// The time within which an answer is so quick that twice as many entries come in time, too.
const QUICK: Duration = Duration::from_millis(500);

/// How many entries are asked for at a time. Their bytes are not known before, and the time for an
/// answer is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageSize(usize);

impl Default for PageSize {
    fn default() -> PageSize {
        PageSize(ENTRIES)
    }
}

impl PageSize {
    pub(super) fn entries(self) -> usize {
        self.0
    }

    /// The size after an answer that has come within `took`; `None` if it has not come.
    pub(super) fn after(self, took: Option<Duration>) -> PageSize {
        match took {
            None => PageSize((self.0 / 2).max(1)),
            Some(took) if took <= QUICK => PageSize((self.0 * 2).min(ENTRIES)),
            Some(_) => self,
        }
    }
}

/// An entry as it is stored: `SEQUENCE STORED ENDS PREDECESSOR BODY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredEntry {
    pub(super) sequence: u64,
    pub(super) stored_ms: u64,
    /// When it expires, 0 for never.
    ends_ms: u64,
    pub(super) body: Vec<u8>,
}

impl StoredEntry {
    fn read(mut bytes: Vec<u8>) -> Option<StoredEntry> {
        let mut ends = [0; 4];
        let mut from = 0;
        for end in &mut ends {
            *end = from + bytes[from..].iter().position(|byte| *byte == b' ')?;
            from = *end + 1;
        }
        let word = |from: usize, to: usize| str::from_utf8(&bytes[from..to]).ok();
        let sequence = word(0, ends[0])?.parse().ok()?;
        let stored_ms = word(ends[0] + 1, ends[1])?.parse().ok()?;
        let ends_ms = word(ends[1] + 1, ends[2])?.parse().ok()?;
        bytes.drain(..from);
        Some(StoredEntry { sequence, stored_ms, ends_ms, body: bytes })
    }
}

/// Entries in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EntryPage {
    pub(super) entries: Vec<StoredEntry>,
    /// Whether there were no further entries when the server was asked.
    pub(super) is_last: bool,
    /// The sequence number up to which these are all entries; 0 if there was none.
    pub(super) end: u64,
}

impl EntryPage {
    fn new(entries: Vec<StoredEntry>, is_last: bool) -> EntryPage {
        let end = entries.last().map_or(0, |last| last.sequence);
        EntryPage { entries, is_last, end }
    }

    /// Leaves out what has expired by the server's time, in milliseconds. The server removes many
    /// entries at a time, and so some of them late.
    pub(super) fn without_expired(mut self, now_ms: u64) -> EntryPage {
        self.entries.retain(|entry| entry.ends_ms == 0 || entry.ends_ms > now_ms);
        self
    }
}

/// Reads the answer to `XREAD` of one stream; `None` if it is malformed. No answer in the time of
/// its `BLOCK` is an empty page.
pub(super) fn of_xread(answer: Value, size: PageSize) -> Option<EntryPage> {
    let streams = match answer {
        Value::Nil => return Some(EntryPage::new(Vec::new(), true)),
        answer => list(answer)?,
    };
    let stream = list(streams.into_iter().next()?)?;
    let entries = of_stream(stream.into_iter().nth(1)?)?;
    let is_last = entries.len() < size.entries();
    Some(EntryPage::new(entries, is_last))
}

/// Merges what the sorted set of kept entries and the stream have after a position, each up to
/// `size` entries; `None` if an answer is malformed. An entry can be in both.
pub(super) fn merged(kept: Value, stream: Value, size: PageSize) -> Option<EntryPage> {
    let kept: Option<Vec<StoredEntry>> =
        list(kept)?.into_iter().map(|it| StoredEntry::read(bytes(it)?)).collect();
    let (kept, stream) = (kept?, of_stream(stream)?);
    // Behind the end of a list that was cut there may be entries that it would have had.
    let end = |list: &[StoredEntry]| match list.last() {
        Some(last) if list.len() >= size.entries() => last.sequence,
        _ => u64::MAX,
    };
    let end = end(&kept).min(end(&stream));
    let mut entries = kept;
    entries.extend(stream);
    entries.retain(|entry| entry.sequence <= end);
    entries.sort_by_key(|entry| entry.sequence);
    entries.dedup_by_key(|entry| entry.sequence);
    Some(EntryPage::new(entries, end == u64::MAX))
}

/// The entries of a stream: a list of ids with the values of their fields.
fn of_stream(value: Value) -> Option<Vec<StoredEntry>> {
    let read = |item: Value| {
        let fields = list(list(item)?.into_iter().nth(1)?)?;
        StoredEntry::read(bytes(fields.into_iter().nth(1)?)?)
    };
    list(value)?.into_iter().map(read).collect()
}

/// Reads the answer of the script `attach`.
pub(super) fn log_state(answer: Value) -> Option<LogState> {
    let words = list(answer)?;
    let word = |at: usize| number(words.get(at)?);
    Some(LogState { epoch: word(0)?, last: word(1)?, run: word(2)? })
}

/// Reads the answer to `TIME`, in milliseconds; `None` if it is malformed, or has no room in 64
/// bits.
pub(super) fn time_ms(answer: Value) -> Option<u64> {
    let words = list(answer)?;
    let (s, us) = (number(words.first()?)?, number(words.get(1)?)?);
    s.checked_mul(1000)?.checked_add(us / 1000)
}

/// The next cursor and the keys in an answer to `SCAN`.
pub(super) fn scanned(answer: Value) -> Option<(u64, Vec<String>)> {
    let mut parts = list(answer)?.into_iter();
    let cursor = number(&parts.next()?)?;
    let keys = list(parts.next()?)?;
    Some((cursor, keys.iter().filter_map(text).map(str::to_owned).collect()))
}

/// The elements of a list.
pub(super) fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(sequence: u64) -> String {
        format!("{sequence} 1700 0 0 body {sequence}")
    }

    fn kept(sequences: &[u64]) -> Value {
        Value::Array(sequences.iter().map(|it| bulk(&entry(*it))).collect())
    }

    fn stream(sequences: &[u64]) -> Value {
        let item = |sequence: &u64| {
            let fields = Value::Array(vec![bulk("e"), bulk(&entry(*sequence))]);
            Value::Array(vec![bulk(&format!("{sequence}-0")), fields])
        };
        Value::Array(sequences.iter().map(item).collect())
    }

    fn numbers(page: &EntryPage) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.sequence).collect()
    }

    #[test]
    fn cluster_redis_entry_is_read() {
        let read = |text: &str| StoredEntry::read(text.as_bytes().to_vec());
        let body = b"a b  c".to_vec();
        let expected = StoredEntry { sequence: 7, stored_ms: 1700, ends_ms: 1760, body };
        assert_eq!(read("7 1700 1760 4 a b  c"), Some(expected));
        assert!(read("7 1700 0 4 ").is_some_and(|it| it.body.is_empty()));
        for bad in ["", "7 1700 0 4", "x 1700 0 4 a", "7 x 0 4 a", "7 1700 x 4 a", "7"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn cluster_redis_expired_entries_are_not_delivered() {
        let of = |text: &str| StoredEntry::read(text.as_bytes().to_vec()).expect("an entry");
        let page =
            || EntryPage::new(vec![of("1 5 0 0 a"), of("2 5 10 0 b"), of("3 5 9 0 c")], true);
        for (now_ms, expected) in [(8, vec![1, 2, 3]), (9, vec![1, 2]), (10, vec![1])] {
            let page = page().without_expired(now_ms);
            assert_eq!((numbers(&page), page.end, page.is_last), (expected, 3, true), "{now_ms}");
        }
        let time = Value::Array(vec![bulk("1700000000"), bulk("123999")]);
        assert_eq!(time_ms(time), Some(1_700_000_000_123));
        let largest = u64::MAX / 1000;
        for (s, us, ms) in [
            (largest, 614_999, Some(largest * 1000 + 614)),
            (largest, 616_000, None),
            (largest + 1, 0, None),
            (u64::MAX, u64::MAX, None),
        ] {
            let time = Value::Array(vec![bulk(&s.to_string()), bulk(&us.to_string())]);
            assert_eq!(time_ms(time), ms, "{s} {us}");
        }
    }

    #[test]
    fn cluster_redis_live_entries_are_read() {
        let answer = |entries| Value::Array(vec![Value::Array(vec![bulk("{p}:log"), entries])]);
        let size = PageSize::default();
        let page = of_xread(answer(stream(&[4, 5])), size).expect("well-formed");
        assert_eq!((numbers(&page), page.is_last), (vec![4, 5], true));
        let full: Vec<u64> = (1..=ENTRIES as u64).collect();
        let page = of_xread(answer(stream(&full)), size).expect("well-formed");
        assert_eq!((page.entries.len(), page.is_last), (ENTRIES, false));
        let none = of_xread(Value::Nil, size).expect("nothing has come");
        assert!(none.entries.is_empty() && none.is_last);
        assert_eq!(of_xread(Value::Int(1), size), None);
        assert_eq!(of_xread(answer(bulk("x")), size), None);
    }

    #[test]
    fn cluster_redis_page_is_smaller_after_each_answer_that_is_late() {
        let mut size = PageSize::default();
        for entries in [32, 16, 8, 4, 2, 1, 1] {
            size = size.after(None);
            assert_eq!(size.entries(), entries);
        }
        assert_eq!(size.after(Some(QUICK + Duration::from_millis(1))), size, "it is not quick");
        for entries in [2, 4, 8, 16, 32, 64, 64] {
            size = size.after(Some(QUICK));
            assert_eq!(size.entries(), entries);
        }
    }

    proptest! {
        /// EntryPage by page the entries of both come once, in order, wherever the lists are cut.
        #[test]
        fn cluster_redis_kept_entries_and_the_stream_are_merged(
            all in proptest::collection::btree_map(1..400_u64, 0..3_u8, 0..300),
            halvings in 0..8_u8,
        ) {
            let size = (0..halvings).fold(PageSize::default(), |size, _| size.after(None));
            let of = |kind: u8| all.iter().filter(move |(_, it)| **it == kind || **it == 2);
            let list = |kind: u8, after: u64| -> Vec<u64> {
                let behind = of(kind).map(|it| *it.0).filter(|it| *it > after);
                behind.take(size.entries()).collect()
            };
            let (mut got, mut after) = (Vec::new(), 0);
            loop {
                let page = merged(kept(&list(0, after)), stream(&list(1, after)), size);
                let page = page.expect("well-formed");
                got.extend(numbers(&page));
                after = got.last().copied().unwrap_or(0);
                if page.is_last {
                    break;
                }
                prop_assert!(!page.entries.is_empty(), "it goes on");
            }
            prop_assert_eq!(got, all.keys().copied().collect::<Vec<_>>());
        }
    }
}
