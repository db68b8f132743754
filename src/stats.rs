//! The counters of one core. One thread writes a core's counters; any thread may read them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter or gauge that one thread writes and any thread may read, without locked instructions.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts `n`. Only the owning thread may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Replaces the value. Only the owning thread may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Returns the value; on other threads than the owner's it may be slightly out of date.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One core's counters for the WebSockets of one listener.
#[derive(Debug, Default)]
pub struct Streams {
    /// WebSockets opened.
    pub opened: Counter,
    /// WebSockets that have ended.
    pub ended: Counter,
    /// Ended WebSockets whose peer had sent a close frame.
    pub closes_received: Counter,
    /// Ended WebSockets whose peer was sent a close frame.
    pub closes_sent: Counter,
    /// Bytes received.
    pub received_bytes: Counter,
    /// Bytes sent, without the handshake response.
    pub sent_bytes: Counter,
}

impl Streams {
    /// Listeners with counters of their own; further listeners are counted with the last of these.
    pub const LISTENERS: usize = 16;
}

/// A histogram of durations. One thread writes it; any thread may read it.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; Histogram::BOUNDS_NS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// The upper bounds of the buckets in nanoseconds, inclusive: from 10 us to 10 s. One more
    /// bucket, without a bound, follows the last.
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

    /// Counts one duration of `ns` nanoseconds. Only the owning thread may call this.
    pub fn observe(&self, ns: u64) {
        // Linear search: most durations are short, so they match one of the first bounds.
        let at = Histogram::BOUNDS_NS.iter().take_while(|bound| ns > **bound).count();
        self.buckets[at].add(1);
        self.sum_ns.add(ns);
    }

    /// The number of durations in each bucket; the bucket without a bound is last.
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
            /// The durations of reactor turns, without the time in which the core was idle.
            pub turn_ns: Histogram,
            /// The work of each turn, in the units of [`crate::work`].
            pub turn_work: Histogram,
            /// How long the engine of the cluster took to store an entry.
            pub cluster_append_ns: Histogram,
            /// The longest turn that ended in the last minute, in nanoseconds.
            pub turn_longest_ns: Counter,
            /// The time of the thread's last sign of life, in milliseconds of the clock that all
            /// threads of the server share; 0 before the thread has begun.
            pub beat_ms: Counter,
        }

        impl Counters {
            /// The help texts of the counters, in the order of [`Counters::list`]. Each line begins
            /// with a space.
            pub const HELP: &[&str] = &[$(concat!($($doc),*),)*];

            /// The counters of the listener with this number.
            pub fn streams(&self, listener: u16) -> &Streams {
                &self.streams[usize::from(listener).min(Streams::LISTENERS - 1)]
            }

            /// The names and values of all counters.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections open now, including those to upstreams.
    connections,
    /// Connections accepted.
    accepted,
    /// Accepts that failed with an error other than a lack of files or memory (such as
    /// ECONNABORTED).
    accept_errors,
    /// Accepts postponed because the process (EMFILE) or the system (ENFILE, ENOBUFS, ENOMEM)
    /// lacked file descriptors or memory.
    accept_no_file,
    /// Times a listener was left without an accept, so that new connections stayed in the backlog,
    /// because all connection slots were taken.
    accept_no_slot,
    /// Connections closed at once because limits.connections_per_address were open from their
    /// address.
    refused_address,
    /// PROXY headers of trusted proxies that were read.
    proxy_headers,
    /// Connections closed because they did not begin with a PROXY header although the listener
    /// requires one.
    proxy_headers_missing,
    /// Connections closed because their PROXY header was malformed or too long.
    proxy_headers_malformed,
    /// Connections that ended, or whose time was over, before their PROXY header was whole.
    proxy_headers_torn,
    /// Connections closed because they began with a PROXY header, or had to, and did not come from
    /// a trusted proxy.
    proxy_headers_untrusted,
    /// Requests with forwarding header fields that were ignored because they did not come from a
    /// trusted proxy.
    forwarded_untrusted,
    /// Requests of trusted proxies answered with 400 because their forwarding header fields could
    /// not be read.
    forwarded_malformed,
    /// Connections closed because they had sent no whole request within two seconds and
    /// limits.handshakes such connections were open.
    refused_handshake,
    /// Connections closed at once because nine tenths of limits.memory_bytes were in use.
    refused_memory,
    /// Connections whose reading was paused because they held the most memory when four fifths of
    /// limits.memory_bytes were in use.
    memory_read_paused,
    /// Connections closed because they held the most memory when limits.memory_bytes were nearly
    /// used up.
    memory_ended,
    /// Bytes held by connections and channels, as counted against limits.memory_bytes, at the last
    /// sweep.
    memory_bytes,
    /// The maximum of memory_bytes, near which cores refuse and close connections:
    /// limits.memory_bytes.
    memory_limit_bytes,
    /// The part of memory_bytes in unfinished messages and requests, and in input that waits to be
    /// processed.
    memory_input_bytes,
    /// The part of memory_bytes in frames in write queues, each frame counted once per core.
    memory_frames_bytes,
    /// Connections closed because their peer read less than limits.min_bytes_per_s.
    send_too_slow,
    /// Times new connections were left in the backlog because limits.handshakes connections had not
    /// sent a whole request yet.
    accept_handshakes,
    /// Connections accepted from the listening socket of another core that had no room.
    accepted_for_others,
    /// Idle HTTP connections closed to free connection slots for new connections.
    idle_closed,
    /// WebSockets of applications refused because limits.overload_sockets or limits.overload_bytes
    /// was reached.
    refused_overload,
    /// Connections refused because limits.connections of their application was reached, in a
    /// cluster by all nodes together.
    refused_quota,
    /// Connections refused, to try again later, because this node of a cluster could not reserve
    /// one of limits.connections of their application for them in time.
    refused_not_reserved,
    /// Connections that had to wait until this node of a cluster had reserved one of
    /// limits.connections of their application for them.
    room_waits,
    /// Reads of numbers of subscribers that wait until all nodes of the cluster have stated theirs,
    /// at the last sweep.
    count_reads_waiting,
    /// Reads of numbers of subscribers that were answered with 503 because too many waited on their
    /// core until all nodes of the cluster have stated theirs.
    count_reads_refused,
    /// Users of presence channels whose joins wait until the log of the cluster has them, at the
    /// last sweep.
    cluster_joins_waiting,
    /// Joins of presence channels that were refused because the log of the cluster did not have
    /// their user within cluster.hold_ms, or could not be given it.
    cluster_joins_refused,
    /// Subscriptions refused because their channel had no subscribers and their application had its
    /// maximum number of channels.
    refused_channels,
    /// Bytes waiting in the write queues of all connections, at the last sweep.
    queued_bytes,
    /// Bytes received.
    received_bytes,
    /// Bytes sent.
    sent_bytes,
    /// Send operations completed.
    sends,
    /// Short sends: sends that wrote only part of their batch, whose rest was sent again.
    short_sends,
    /// Sends that failed because the peer had closed or reset the connection (EPIPE, ECONNRESET).
    send_peer_gone,
    /// Sends that failed with another error.
    send_errors,
    /// Receives that found no free buffer (ENOBUFS) and were started again.
    receive_no_buffer,
    /// Receives that failed because the connection was reset or the peer unreachable (ECONNRESET,
    /// EPIPE, ETIMEDOUT, EHOSTUNREACH).
    receive_reset,
    /// Receives that failed with another error.
    receive_errors,
    /// Operations cancelled by the server (ECANCELED).
    cancelled,
    /// Completions that arrived after their connection was closed.
    late_completions,
    /// Times the submission queue was full and had to be submitted in the middle of a turn.
    submission_full,
    /// Times the kernel refused further submissions until completions were reaped (EBUSY, EAGAIN).
    submission_busy,
    /// Turns in which the completion queue had overflowed into the kernel's overflow list.
    completion_overflow,
    /// Configuration reloads applied by the cores.
    renewals,
    /// Times freed memory was returned to the operating system.
    memory_given_back,
    /// Reactor turns.
    turns,
    /// Reactor turns that took longer than 50 milliseconds.
    turns_long,
    /// Times input of a connection was deferred to a later turn because the turn or the connection
    /// had used up its share of work, or because mail to other cores was congested.
    work_held,
    /// Wake-ups sent to sleeping cores.
    wakes_sent,
    /// Messages for another core that had to wait because its mailbox was full.
    mail_waited,
    /// TLS handshakes completed.
    tls_handshakes,
    /// TLS handshakes that resumed an earlier session.
    tls_resumed,
    /// TLS connections that failed: handshake timeout, no common parameters, or a protocol
    /// violation by the peer.
    tls_failed,
    /// Connections closed because the client spoke plain HTTP to a TLS listener.
    tls_plain,
    /// TLS connections that the peer ended without a close_notify alert, so that truncation by
    /// others cannot be ruled out.
    tls_truncated,
    /// Domains whose certificates are ordered by ACME.
    acme_domains,
    /// Domains of acme_domains without a certificate.
    acme_missing,
    /// Certificates ordered by ACME, with those whose order has failed.
    acme_orders,
    /// Certificates issued by ACME.
    acme_certificates,
    /// Orders that failed because the certificate authority could not be reached.
    acme_unreachable,
    /// Orders that failed because a rate limit of the certificate authority was reached.
    acme_rate_limited,
    /// Orders that failed because the certificate authority could not verify the domain.
    acme_challenges_failed,
    /// Orders that failed because the certificate authority refused a request.
    acme_refused,
    /// Orders that failed because the issued certificate could not be used.
    acme_certificates_unusable,
    /// Orders that failed because the store could not be read or written.
    acme_store_failed,
    /// Challenges of certificate authorities answered by the listeners.
    acme_challenges,
    /// TLS handshakes that failed because the certificate of their domain was not issued yet.
    acme_handshakes_refused,
    /// HTTP requests answered.
    http_requests,
    /// HTTP requests answered with a status of 400 or more.
    http_errors,
    /// HTTP API requests refused because their auth_timestamp was too far from the server's time.
    requests_stale,
    /// Publishes answered with the answer to an earlier publish with the same idempotency key.
    idempotent_replays,
    /// Publishes refused because their idempotency key was used for another publish, or by one that
    /// was not answered yet.
    idempotency_refused,
    /// Idempotency keys held now, at the last sweep.
    idempotency_keys,
    /// Idempotency keys removed before their two minutes were over, because their application had
    /// limits.idempotency_keys or limits.idempotency_bytes.
    idempotency_dropped,
    /// Publishes of publishers on WebSockets that were refused.
    publishes_refused,
    /// HTTP requests answered after their head, with their body discarded, because no endpoint
    /// would read it.
    http_bodies_unread,
    /// Upgrades to WebSocket.
    upgrades,
    /// HTTP requests that use streamed bodies in place of a WebSocket, with those for server-sent
    /// events.
    http_streams,
    /// Messages not delivered to an HTTP stream because its framing has no record for them, or
    /// because the record would be longer than its write queue.
    http_streams_unsaid,
    /// Streams of server-sent events open now.
    event_streams,
    /// Requests for server-sent events refused because a signature was missing or wrong.
    event_streams_unsigned,
    /// Events not published because they came through a view of a linked channel that may not
    /// publish, or that the source's dialect cannot express.
    link_refused,
    /// Events not delivered to a subscriber through a view because its dialect cannot express them.
    link_unexpressed,
    /// WebSockets refused because of their Origin header.
    origins_refused,
    /// Requests refused because servers interpret their path in different ways and their route is a
    /// proxy without allow_ambiguous_paths.
    paths_refused,
    /// Requests that the guards of a route let in.
    guard_allowed,
    /// Requests refused because only guarded routes match them and they carried no token.
    guard_no_token,
    /// Requests refused because their token was not accepted.
    guard_bad_token,
    /// Requests refused because only routes that require a client certificate match them and they
    /// had none.
    guard_no_certificate,
    /// Requests refused because their client certificate is not one that the guard accepts.
    guard_bad_certificate,
    /// Requests and messages whose token was not verified because too many tokens from their
    /// address had failed verification in that second.
    guard_throttled,
    /// Connections closed after three tokens that failed verification.
    guard_failures_closed,
    /// Requests refused because their token lacks a role, or renews no connection's token.
    guard_no_role,
    /// Requests refused because no key of the guard has been fetched yet.
    guard_no_keys,
    /// Tokens accepted in place of tokens that were about to expire.
    guard_renewals,
    /// Times a token of a connection came close to its expiry without having been renewed.
    guard_challenges,
    /// Connections closed because their token had expired.
    guard_expired,
    /// Key sets fetched for guards.
    keys_fetched,
    /// Key sets that could not be fetched or contain no usable key.
    keys_failed,
    /// Connections that agreed on compression without windows of their own because the core's share
    /// of compression.windows_bytes was used up.
    windows_refused,
    /// Compressed messages that waited because another message was being decompressed on their
    /// core.
    inflate_waits,
    /// Bytes of kept compression windows and of messages being decompressed, at the last sweep.
    inflated_bytes,
    /// Whole WebSocket messages received.
    messages_received,
    /// Client messages ignored because they were invalid or not allowed, in a dialect without an
    /// error reply for them.
    messages_ignored,
    /// Answers of Zenith back ends without a waiting call: late, duplicate, or never requested.
    backend_answers_late,
    /// Calls and subscriptions not forwarded to Zenith back ends because too many bytes were
    /// waiting for them.
    backend_calls_refused,
    /// Tokens, passwords and grants of Zenith clients and back ends that were wrong.
    sign_ins_wrong,
    /// Zenith sign-in attempts refused without verification because their address had reached
    /// zenith.wrong_tokens_per_minute.
    sign_ins_refused,
    /// Queries of Zilliqa clients refused because their core held zilliqa.addresses_per_core
    /// addresses.
    addresses_refused,
    /// Violations of RFC 6455 by peers.
    violations,
    /// Connections closed because the peer sent more than limits.control_frames_per_s pings, pongs
    /// and empty messages in a second.
    control_floods,
    /// Messages refused because they do not match their route's model.
    messages_invalid,
    /// Messages that broke their schema's rules and were passed on because the model is lenient.
    messages_lenient,
    /// Connections to proxy upstreams open now, including those being established.
    upstreams,
    /// Connections to proxy upstreams started.
    proxy_dials,
    /// Upstream connections not started because the core had no free connection slot.
    proxy_no_slot,
    /// Upstream connections that could not be established.
    proxy_unreachable,
    /// Upstreams that did not connect, or did not answer, before their timeout.
    proxy_timed_out,
    /// Upstreams that answered a WebSocket handshake with a status other than 101.
    proxy_refused,
    /// Upstreams whose response to a WebSocket handshake broke the protocol or was missing.
    proxy_bad_answers,
    /// Messages forwarded from clients to upstreams.
    proxy_sent,
    /// Bytes of messages forwarded from clients to upstreams.
    proxy_sent_bytes,
    /// Messages forwarded from upstreams to clients.
    proxy_received,
    /// Bytes of messages forwarded from upstreams to clients.
    proxy_received_bytes,
    /// Upstream connections not started because the upstream's name was not resolved.
    proxy_unresolved,
    /// Times an upstream was taken out of use because of repeated failures.
    proxy_aside,
    /// DNS lookups of upstream names that found addresses.
    names_found,
    /// DNS lookups of upstream names that failed.
    names_failed,
    /// Messages whose schema was not available from the registry: refused, or passed on, as the
    /// model configures.
    schemas_missed,
    /// Messages parked until their schema was fetched or their timeout expired.
    schemas_awaited,
    /// Schemas fetched from registries, or confirmed as unchanged.
    schemas_retrieved,
    /// Schema fetches that failed: no answer in time, unknown schema, or an error.
    schemas_unretrievable,
    /// Schemas fetched from registries that were invalid or too large.
    schemas_bad,
    /// Failed schema refreshes after which an older version stays in use.
    schemas_stale,
    /// Broadcast frames put into write queues.
    deliveries,
    /// Subscriptions refused because their client had started too many in a second.
    subscriptions_refused,
    /// Broadcast frames dropped because a write queue was at its limit (policy `drop`).
    slow_consumer_dropped,
    /// Connections closed because their write queue was at its limit (policy `close`).
    slow_consumer_closed,
    /// Events published on this core by clients and by the control thread.
    published,
    /// Upgrades to a new binary that have failed, so that this server goes on.
    upgrades_failed,
    /// Connections closed by a timeout: handshake, head, body, idle, heartbeat, close or send.
    timed_out,
    /// Webhook requests answered with a success status.
    hooks_sent,
    /// Webhook requests that failed, to be retried or given up.
    hooks_failed,
    /// Webhook events dropped: full queue, five minutes of failed attempts, or shutdown.
    hooks_dropped,
    /// Webhook events not sent because a later event reversed them while they waited, such as a
    /// channel occupied and vacated again.
    hooks_cancelled,
    /// Webhook requests not sent because the endpoint has a private address.
    hooks_refused,
    /// Requests to the nodes whose epochs are published.
    node_requests,
    /// Requests to nodes that failed: no connection, no answer in time, or an error.
    node_failures,
    /// Node responses rejected because they did not match the request or were too large.
    node_nonsense,
    /// Transactions published without logs because no node returned them.
    bodies_missing,
    /// Accounts treated as non-contracts because no node answered whether they are contracts.
    contracts_unknown,
    /// Epochs skipped at the start because there were more than zilliqa.node.replay.
    epochs_skipped,
    /// Epochs of nodes not published because the same or a later epoch had been posted, or in a
    /// cluster was in the log before.
    epochs_passed_over,
    /// Epochs of nodes published; in a cluster all that the log has had.
    epochs,
    /// The number of the last published epoch, or of the epoch after which publishing starts.
    last_epoch,
    /// Failed writes of the last epoch's number to zilliqa.node.state_file.
    state_failures,
    /// Cached events, pictures and histories of channels dropped because limits.cached_bytes were
    /// used up or a picture was too large.
    kept_dropped,
    /// Elements dropped from pictures of the kind `log` at their limit, and events dropped from the
    /// histories of channels and groups at their limit in bytes.
    log_dropped,
    /// Bytes of cached events, pictures and histories that this core keeps for later subscribers.
    kept_bytes,
    /// Subscriptions that resumed at the position that the client had sent, or before the last
    /// events.
    history_recovered,
    /// Subscriptions that did not resume because the client's position could not be read.
    history_malformed,
    /// Subscriptions that did not resume because the client's position is one of another stream:
    /// the channel's history had ended, or the server was restarted.
    history_other_stream,
    /// Subscriptions that did not resume because the channel has not reached the client's position.
    history_future,
    /// Subscriptions that did not resume because events after the client's position are not kept
    /// any more.
    history_expired,
    /// Subscriptions that did not resume because the missed events did not fit the connection's
    /// write queue.
    history_too_large,
    /// Events in the histories of channels that this core is the home of.
    history_events,
    /// Bytes of these histories, which are part of kept_bytes.
    history_bytes,
    /// Whether the engine of the cluster can be used (1) or not (0).
    cluster_up,
    /// Times the connection to the engine was lost, or the engine did not answer.
    cluster_lost,
    /// The sequence number of the last entry of the cluster's log that this node has applied.
    cluster_position,
    /// Milliseconds from the storing of the last entry to its arrival here, by the two clocks.
    cluster_lag_ms,
    /// Entries sent to the engine of the cluster, repetitions included.
    cluster_appends,
    /// Entries sent to the engine again, because no answer came.
    cluster_resent,
    /// Events not published because the engine has refused them or could not be reached, or because
    /// what waits has its share of cluster.hold_bytes, or the log of cluster.log_bytes.
    cluster_refused,
    /// Events of which it is not known whether they were published, because the engine has not
    /// answered.
    cluster_unknown,
    /// Bytes of the cluster's log, as the engine had it within the last seconds. At 80 % of
    /// cluster.log_bytes events are refused.
    cluster_log_bytes,
    /// Bytes of events that wait for the engine, at most cluster.hold_bytes.
    cluster_held_bytes,
    /// Entries of the cluster's log that were applied.
    cluster_entries,
    /// States of nodes in these entries: members of channels, and numbers of subscribers.
    cluster_states,
    /// Events in these entries.
    cluster_events,
    /// Entries that arrived again and were dropped.
    cluster_repeated,
    /// Entries and parts of entries that were skipped: malformed, of a newer format, or of an
    /// application that this node does not have.
    cluster_skipped,
    /// Times the log was read again from this node's position, after a loss of the connection or of
    /// a delivery.
    cluster_fillings,
    /// Entries that were stored while this node did not follow the log, and were read then.
    cluster_filled,
    /// Times this node was away for so long that entries may have expired; its subscribers were
    /// closed.
    cluster_gaps,
    /// Times the engine came back with another log.
    cluster_epochs,
    /// Times this node has read the cluster's log from its beginning because a reload had added
    /// applications of which it had skipped entries.
    cluster_added_readings,
    /// Idempotency keys of the cluster's log that this node remembers.
    cluster_keys,
    /// Events with an idempotency key that were not published, because the cluster's log had them
    /// already.
    cluster_key_repeats,
    /// Events not published because the cluster's log had their idempotency key with another
    /// publish.
    cluster_key_conflicts,
    /// Idempotency keys of the log removed before their two minutes were over, because their
    /// application had limits.idempotency_keys or limits.idempotency_bytes.
    cluster_keys_dropped,
    /// Connections that this node has reserved of limits.connections of all applications, open
    /// ones included.
    cluster_reserved,
    /// Times this node has changed in the log what it has reserved of limits.connections of an
    /// application, unsuccessful attempts included.
    cluster_reservations,
    /// Nodes of the cluster that are not dead, this one included, as far as this node has read.
    cluster_nodes,
    /// Nodes whose end this node has read: they were declared dead, or had left.
    cluster_removed_nodes,
    /// Renewals of this node's entry that the engine has stored.
    cluster_node_renewals,
    /// Times this node stopped publishing, because its renewals were not answered and other nodes
    /// could soon declare it dead.
    cluster_fenced,
    /// Times this node went on under another id, because the log had its death, or had lost its
    /// entry.
    cluster_new_ids,
    /// Events that were sent to the other process of an upgrade: by the replaced one to be ordered,
    /// by the new one to be delivered.
    upgrade_sent,
    /// Events that the other process of an upgrade has sent.
    upgrade_received,
    /// Channels whose cached event or history was taken over from the replaced process.
    upgrade_adopted,
    /// Channels whose cached event or history was not handed over to the new process in time.
    upgrade_left,
    /// Events that a replaced process has refused, because it does not reach the new one any more.
    upgrade_refused,
    /// Times that the replaced process was sent no more events, because too many bytes waited for
    /// it; it has closed its subscribers.
    upgrade_overflows,
    /// Channels with a subscriber on this core.
    channels,
    /// Subscriptions of connections of this core.
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
