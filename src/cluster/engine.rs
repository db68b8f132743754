//! What a node needs of an engine: a log that all nodes append to and follow.

/// An engine with one log. No call waits or fails: outcomes are [`EngineEvent`]s.
pub trait Engine {
    /// Appends an entry to the log. Only called between [`EngineEvent::Up`] and
    /// [`EngineEvent::Down`]. An entry with the id of one that was stored in the last 20 seconds is
    /// not stored again.
    fn append(&mut self, append: Append);

    /// Removes the entries of all subjects that begin with these tokens, at any time after this
    /// call, or not at all if the engine cannot be used. There is no outcome.
    fn purge(&mut self, tokens: &str);

    /// Delivers the entries after a position, in order, the stored ones first, in place of an
    /// earlier delivery.
    fn follow(&mut self, after: u64);

    /// Looks at the state of the log again, as after an interruption: [`EngineEvent::Up`] or
    /// [`EngineEvent::Down`] follows. Returns false if this engine need not, because its answers
    /// and deliveries never contradict each other; then nothing happens.
    fn look(&mut self) -> bool {
        false
    }

    /// The maximum size of an entry with its subject and its id, in bytes, as far as it is known
    /// since the last [`EngineEvent::Up`]. Larger ones are refused.
    fn max_entry_bytes(&self) -> usize {
        usize::MAX
    }

    /// Takes the outcomes since the last call, oldest first.
    fn take(&mut self) -> Vec<EngineEvent>;

    /// Delivers no further entries, besides a bounded number that is under way, until the next
    /// call; or goes on.
    fn pause(&mut self, is_paused: bool);
}

/// An entry on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The number of the attempt's entry, which the outcome repeats.
    pub number: u64,
    /// The subject of the entry's channel.
    pub subject: String,
    /// The id by which the engine knows an entry that is sent twice.
    pub id: String,
    /// How long the log keeps the entry, in seconds; `None` until another one replaces it.
    pub ttl_s: Option<u64>,
    /// Whether the earlier entries of the subject are removed when this one is stored.
    pub replaces: bool,
    /// The sequence number that the last entry of the subject must have, 0 for none; otherwise the
    /// entry is refused.
    pub expected: Option<u64>,
    /// The entry.
    pub body: Vec<u8>,
}

/// The state of the log when a connection to the engine has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogInfo {
    /// The life of the log: sequence numbers of two epochs cannot be compared.
    pub epoch: u64,
    /// The sequence number of the last entry, which may have expired; 0 if there was none.
    pub last: u64,
}

/// Why an engine does not take an entry into its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot store it now. The same entry may be taken a little later.
    Later,
    /// It has no room for the entry, or the entry is too large.
    Never,
    /// The last entry of the subject is another one than was expected.
    Conflict,
}

/// What an engine reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// The engine can be used, and nothing is delivered until [`Engine::follow`]. Comes again
    /// whenever deliveries may have been lost.
    Up(LogInfo),
    /// The engine cannot be reached, or does not answer.
    Down,
    /// An entry is in the log.
    Stored {
        /// Its number.
        number: u64,
        /// Its sequence number.
        sequence: u64,
        /// How long the engine has taken, in nanoseconds.
        took_ns: u64,
    },
    /// An entry was not taken into the log.
    Refused {
        /// Its number.
        number: u64,
        /// Why.
        refusal: Refusal,
    },
    /// An entry of the log.
    Entry {
        /// Its sequence number.
        sequence: u64,
        /// When it was stored, in milliseconds of the engine's Unix time.
        stored_ms: u64,
        /// Whether no entry is stored after it.
        is_last: bool,
        /// The entry.
        body: Vec<u8>,
    },
    /// The size of the log in bytes, from time to time.
    Size(u64),
    /// The delivery works, and everything that is stored has been delivered.
    Current,
}
