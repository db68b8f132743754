//! What a node needs of an engine: a log that all nodes append to and follow.

/// An engine with one log. No call waits or fails: outcomes are [`EngineEvent`]s.
pub trait Engine {
    /// Appends an entry to the log. Only called between [`EngineEvent::Up`] and
    /// [`EngineEvent::Down`]. An entry with the id of one that was stored in the last 20 seconds is
    /// not stored again.
    fn append(&mut self, append: Append);

    /// Delivers the entries behind a position, in order, the stored ones first, in place of an
    /// earlier delivery.
    fn follow(&mut self, after: u64);

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
    /// How long the log keeps the entry, in seconds.
    pub ttl_s: u64,
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
        /// Whether the same entry may be taken a little later.
        again: bool,
    },
    /// An entry of the log.
    Entry {
        /// Its sequence number.
        sequence: u64,
        /// When it was stored, in milliseconds of the engine's Unix time.
        stored_ms: u64,
        /// Whether no entry is stored behind it.
        is_last: bool,
        /// The entry.
        body: Vec<u8>,
    },
    /// The delivery works, and everything that is stored has been delivered.
    Current,
}
