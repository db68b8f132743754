//! What a core counts. One thread writes a core's counters, any thread may read them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that its one owner changes and others may read. No locked instruction is used.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` off. Only the owning thread may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Replaces the value. Only the owning thread may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value some moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one core counts of the WebSockets of one listener.
#[derive(Debug, Default)]
pub struct Streams {
    /// WebSockets opened.
    pub opened: Counter,
    /// Those that have ended since.
    pub ended: Counter,
    /// Of these, those whose peer had sent a close frame.
    pub closes_received: Counter,
    /// Of these, those whose peer was sent one.
    pub closes_sent: Counter,
    /// Bytes received.
    pub received_bytes: Counter,
    /// Bytes sent, without the answer to the handshake.
    pub sent_bytes: Counter,
}

impl Streams {
    /// Listeners that are counted apart; further ones are counted with the last of these.
    pub const LISTENERS: usize = 16;
}

/// How often a duration lay between two bounds. One thread counts, any thread may read.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BOUNDS_NS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// The upper bounds of the buckets in nanoseconds, each included: from 10 us to 10 s. Beyond
    /// the last one lies a bucket without a bound.
    pub const BOUNDS_NS: [u64; 16] = [
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        1_000_000_000,
        10_000_000_000,
    ];

    /// Counts one duration. Only the owning thread may call this.
    pub fn observe(&self, ns: u64) {
        // Most are short, so that the first bounds are looked at first.
        let at = Histogram::BOUNDS_NS.iter().take_while(|bound| ns > **bound).count();
        self.buckets[at].add(1);
        self.sum_ns.add(ns);
    }

    /// How often each bucket was met, the one without a bound last.
    pub fn buckets(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Counter::get)
    }

    /// The sum of all durations, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// All counters of one core.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: Counter,)*
            streams: [Streams; Streams::LISTENERS],
            /// How long turns took, without the time in which the core had nothing to do.
            pub turn_ns: Histogram,
            /// How much work turns held, by the prices of [`crate::work`].
            pub turn_work: Histogram,
            /// The longest turn that ended in the last minute, in nanoseconds.
            pub turn_longest_ns: Counter,
            /// When the thread was last about to do something, in milliseconds of the clock that
            /// all threads of the server share; 0 before it has begun.
            pub beat_ms: Counter,
        }

        impl Counters {
            /// What each counter counts, in the order of [`Counters::list`]; a blank stands before
            /// each line.
            pub const HELP: &[&str] = &[$(concat!($($doc),*),)*];

            /// The counters of the listener with this number.
            pub fn streams(&self, listener: u16) -> &Streams {
                &self.streams[usize::from(listener).min(Streams::LISTENERS - 1)]
            }

            /// Every counter's name and value.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections open now, those to upstreams among them.
    connections,
    /// Connections accepted.
    accepted,
    /// Accepts that the kernel ended with a passing error (ECONNABORTED and its like).
    accept_errors,
    /// Accepts put off because the process (EMFILE) or the system (ENFILE) had no file left.
    accept_no_file,
    /// Turns in which a waiting connection was left in the backlog because all slots were taken.
    accept_no_slot,
    /// Connections closed at once: their address had too many open.
    refused_address,
    /// Connections closed before they had sent a whole request: too many had not, and they had had
    /// two seconds for it.
    refused_handshake,
    /// Connections closed at once because nine tenths of limits.memory_bytes were in use.
    refused_memory,
    /// Connections whose reading was stopped because they were among those that held most when
    /// four fifths of limits.memory_bytes were in use.
    memory_read_paused,
    /// Connections ended because they were among those that held most when limits.memory_bytes
    /// were nearly used up.
    memory_ended,
    /// Bytes that connections and channels hold, as far as limits.memory_bytes counts them, at the
    /// last sweep.
    memory_bytes,
    /// With how many of these the cores refuse and end connections: limits.memory_bytes.
    memory_limit_bytes,
    /// Of memory_bytes, unfinished messages and requests, and input that waits.
    memory_input_bytes,
    /// Of memory_bytes, frames that wait in write queues, each counted once for a core.
    memory_frames_bytes,
    /// Connections ended because their peer read less than limits.min_bytes_per_s.
    send_too_slow,
    /// Times newcomers were left in the backlog because too many connections had not sent a whole
    /// request.
    accept_handshakes,
    /// Connections accepted in the place of a core that had no room.
    accepted_for_others,
    /// Idle connections of HTTP closed because the core had no place left for others.
    idle_closed,
    /// WebSockets of applications refused because the process was overloaded.
    refused_overload,
    /// Subscriptions refused because their application had as many channels as it may, and nobody
    /// was in the one that was asked for.
    refused_channels,
    /// Bytes that wait to be written, on all connections, at the last sweep.
    queued_bytes,
    /// Bytes received.
    received_bytes,
    /// Bytes sent.
    sent_bytes,
    /// Send operations completed.
    sends,
    /// Sends that left a rest to be sent again.
    short_sends,
    /// Sends that failed because the peer was gone (EPIPE, ECONNRESET).
    send_peer_gone,
    /// Sends that failed in another way.
    send_errors,
    /// Receives that found no free buffer (ENOBUFS) and were armed again.
    receive_no_buffer,
    /// Receives that ended because the peer reset the connection.
    receive_reset,
    /// Receives that failed in another way.
    receive_errors,
    /// Operations that we cancelled (ECANCELED).
    cancelled,
    /// Completions of an operation whose connection was gone.
    late_completions,
    /// Times the submission queue was full and had to be handed over in the middle of a turn.
    submission_full,
    /// Times the kernel refused more submissions until completions were reaped (EBUSY, EAGAIN).
    submission_busy,
    /// Turns in which the completion queue had overflowed into the kernel's list.
    completion_overflow,
    /// Configurations that were taken over while the core ran.
    renewals,
    /// Times memory that was freed was given back to the system.
    memory_given_back,
    /// Reactor turns.
    turns,
    /// Turns that took longer than 50 milliseconds.
    turns_long,
    /// Times input of a connection was left for the next turn because the turn, or the
    /// connection, had used up its share of work.
    work_held,
    /// Wake-ups sent to sleeping cores.
    wakes_sent,
    /// Messages for another core that had to wait because its mailbox was full.
    mail_waited,
    /// TLS handshakes completed.
    tls_handshakes,
    /// TLS handshakes that went on from an earlier connection's.
    tls_resumed,
    /// TLS connections that failed: no handshake in time, nothing that both sides accept, or a
    /// peer that broke the protocol.
    tls_failed,
    /// Connections closed because they spoke plain HTTP where TLS is spoken.
    tls_plain,
    /// TLS connections that ended without the last word that keeps others from cutting them.
    tls_truncated,
    /// HTTP requests answered.
    http_requests,
    /// HTTP requests answered with a status of 400 or more.
    http_errors,
    /// Requests of the HTTP API refused because their auth_timestamp was too far from the server's
    /// time.
    requests_stale,
    /// HTTP requests answered on their head: nobody would have looked at their body.
    http_bodies_unread,
    /// Upgrades to WebSocket.
    upgrades,
    /// Requests that speak by a streamed body in place of a WebSocket.
    http_streams,
    /// Messages not given to such a client because its framing has no record for them.
    http_streams_unsaid,
    /// WebSockets refused because of the origin of their page.
    origins_refused,
    /// Requests refused because servers read their path differently, and their route leads to one.
    paths_refused,
    /// Requests that the guards of a route let in.
    guard_allowed,
    /// Requests refused because only guarded routes are for them, and they had no token.
    guard_no_token,
    /// Requests refused because their token is not believed.
    guard_bad_token,
    /// Requests refused because only routes that want a client certificate are for them.
    guard_no_certificate,
    /// Requests refused because their certificate is not among those that are let in.
    guard_bad_certificate,
    /// Requests and messages whose token was not verified because their address had brought too
    /// many that are not believed in that second.
    guard_throttled,
    /// Connections closed because they had brought three tokens that are not believed.
    guard_failures_closed,
    /// Requests refused because their token lacks a role, or renews nobody's.
    guard_no_role,
    /// Requests refused because no key was fetched so far.
    guard_no_keys,
    /// Tokens taken in the place of others that were about to end.
    guard_renewals,
    /// Connections whose token is about to end.
    guard_challenges,
    /// Connections closed because their token has ended.
    guard_expired,
    /// Sets of keys fetched for guards.
    keys_fetched,
    /// Sets of keys that were not to be had, or hold no key that can be used.
    keys_failed,
    /// Connections that agreed on compression without windows of their own, because the memory
    /// for those was used up.
    windows_refused,
    /// Compressed messages that waited because another one of their core was being decompressed.
    inflate_waits,
    /// Bytes of kept windows of compression, and of messages that are being decompressed, at the
    /// last sweep.
    inflated_bytes,
    /// Whole WebSocket messages received.
    messages_received,
    /// Messages of clients that are not valid, or not allowed, in a dialect that does not answer
    /// these.
    messages_ignored,
    /// Answers of Zenith's back ends that nobody waits for: too late, given twice or not asked for.
    backend_answers_late,
    /// Calls and subscriptions that Zenith's back ends were not asked about, because too much
    /// waited for them.
    backend_calls_refused,
    /// Tokens, passwords and grants of Zenith clients and back ends that were wrong.
    sign_ins_wrong,
    /// Attempts to sign in to Zenith that were refused unseen, because too many from the same
    /// address had been wrong.
    sign_ins_refused,
    /// Queries of Zilliqa clients that were refused because a core held as many addresses as it
    /// may.
    addresses_refused,
    /// RFC 6455 violations by peers.
    violations,
    /// Clients closed for too many pings, pongs and empty messages in a second.
    control_floods,
    /// Messages that were not as their route's model wants them.
    messages_invalid,
    /// Messages that broke their schema's rules and passed, the model being lenient.
    messages_lenient,
    /// Connections to upstreams of proxies open now, those that are being made among them.
    upstreams,
    /// Connections to upstreams that were begun.
    proxy_dials,
    /// Upstreams that were not dialled because the core had no place for a further connection.
    proxy_no_slot,
    /// Upstreams that could not be connected.
    proxy_unreachable,
    /// Upstreams that were not connected, or had not answered, in their time.
    proxy_timed_out,
    /// Upstreams that answered a handshake with another status than 101.
    proxy_refused,
    /// Upstreams whose answer to a handshake breaks the protocol, or that gave none.
    proxy_bad_answers,
    /// Messages of clients for upstreams.
    proxy_sent,
    /// Their bytes.
    proxy_sent_bytes,
    /// Messages of upstreams for clients.
    proxy_received,
    /// Their bytes.
    proxy_received_bytes,
    /// Upstreams that were not dialled because their name was not resolved.
    proxy_unresolved,
    /// Times an upstream was put aside because of its failures.
    proxy_aside,
    /// Look-ups of the names of upstreams that have found addresses.
    names_found,
    /// Look-ups of the names of upstreams that have not.
    names_failed,
    /// Messages whose schema no registry had given so far: refused, or passed as the model says.
    schemas_missed,
    /// Messages that were held until their schema was there, or their time was up.
    schemas_awaited,
    /// Schemas that registries gave, or said to be the same as before.
    schemas_retrieved,
    /// Schemas that registries did not give: no answer in time, none of that name, an error.
    schemas_unretrievable,
    /// Schemas that registries gave and that are none, or too large.
    schemas_bad,
    /// Failures to get a schema anew of which an older one stays in use.
    schemas_stale,
    /// Frames of broadcasts put into write queues.
    deliveries,
    /// Subscriptions refused because their client had begun too many in a second.
    subscriptions_refused,
    /// Broadcast frames not delivered because a queue was at its bound (policy `drop`).
    slow_consumer_dropped,
    /// Connections closed because their queue was at its bound (policy `close`).
    slow_consumer_closed,
    /// Events published by clients of this core.
    published,
    /// Connections closed by a deadline: head, body, idle, heartbeat, close or send.
    timed_out,
    /// Requests to webhooks that were answered by a status of success.
    hooks_sent,
    /// Requests to webhooks that were not, and are tried again or given up.
    hooks_failed,
    /// Events for webhooks that were dropped: a queue at its bound, five minutes in vain, the end.
    hooks_dropped,
    /// Events for webhooks that were not sent because another one had undone them while they
    /// waited: a channel that was occupied and vacated again.
    hooks_cancelled,
    /// Requests to webhooks that were not made: the endpoint is at a private address.
    hooks_refused,
    /// Requests to nodes whose epochs are published.
    node_requests,
    /// Requests to nodes that were not answered: no connection, no answer in time, an error.
    node_failures,
    /// Answers of nodes that were refused: not what was asked for, or too large.
    node_nonsense,
    /// Transactions of an epoch that no node would give, and which were published without logs.
    bodies_missing,
    /// Accounts of which no node has said whether they are contracts; they were taken for none.
    contracts_unknown,
    /// Epochs left out at the start because they were more than are replayed.
    epochs_skipped,
    /// Epochs of a node that were not published: they, or later ones, had been posted.
    epochs_passed_over,
    /// Epochs of a node that were published.
    epochs,
    /// The number of the last epoch that was published, or of the one behind which the next is.
    last_epoch,
    /// Failures to write the number of the last epoch to its file.
    state_failures,
    /// Last events, pictures and histories of channels that were forgotten because others needed
    /// the room.
    kept_dropped,
    /// Elements that pictures of the kind `log` have lost at their bound, and messages that
    /// histories of groups have lost at theirs in bytes.
    log_dropped,
    /// Bytes of last events, pictures and histories that this core holds for who subscribes later.
    kept_bytes,
    /// Channels of which this core has a subscriber.
    channels,
    /// Subscriptions held by connections of this core.
    subscriptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_counts_a_duration_in_the_first_bucket_whose_bound_it_keeps() {
        let histogram = Histogram::default();
        for ns in [0, 10_000, 10_001, 25_000, 10_000_000_000, 10_000_000_001] {
            histogram.observe(ns);
        }
        let buckets: Vec<u64> = histogram.buckets().collect();
        assert_eq!(buckets.len(), Histogram::BOUNDS_NS.len() + 1);
        assert_eq!((buckets[0], buckets[1], buckets[2]), (2, 2, 0));
        assert_eq!(buckets[buckets.len() - 2..], [1, 1]);
        assert_eq!(histogram.sum_ns(), 20_000_045_002);
        assert!(Histogram::BOUNDS_NS.is_sorted());
    }

    #[test]
    fn counters_list_names_each_with_its_value() {
        let counters = Counters::default();
        counters.accepted.add(3);
        counters.connections.add(3);
        counters.connections.sub(1);
        let list = counters.list();
        assert!(list.contains(&("accepted", 3)));
        assert!(list.contains(&("connections", 2)));
        assert!(list.contains(&("slow_consumer_dropped", 0)));
        assert_eq!(list.len(), Counters::HELP.len());
        let at = list.iter().position(|(name, _)| *name == "mail_waited").unwrap();
        let help = "Messages for another core that had to wait because its mailbox was full.";
        assert_eq!(Counters::HELP[at].trim(), help);
    }
}
