//! The views of the linked channels of a run: the applications and protocols by whose names clients
//! share the channels of the first application.

use super::history::CHANNELS;
use crate::peer::{APP, SECOND, auth_of};
use fastrand::Rng;

/// The limit of the view of another vendor, which does not get longer events.
const SHORT_BYTES: usize = 1500;

/// The applications, routes and links of a run. Nobody may publish on `two` through a view. One
/// view has the limit [`SHORT_BYTES`].
pub(super) const LINKS: &str = r"
[[apps]]
id = '2'
key = 'second-key'
secret = 'second-secret'
[[apps]]
id = '3'
key = 'third-key'
secret = 'third-secret'
dialect = 'broadcastt'
limits.event_bytes = 1500
[[routes]]
when = [{ path = '/of/*' }]
endpoint = 'channel'
[[routes]]
endpoint = 'apps'
[[links]]
source = { app = '1', channel = 'zero', event = 'e' }
views = [
    { app = '2', channel = 'v-zero', publish = true },
    { app = '3', channel = 'b-zero' },
    { path = '/of/zero', publish = true },
]
[[links]]
source = { app = '1', channel = 'tw{rest}' }
views = [
    { app = '2', channel = 'v-tw{rest}' },
    { app = '3', channel = 'b-tw{rest}' },
    { path = '/of/tw{rest}' },
]
[[links]]
source = { app = '1', channel = 'f{a}u{b}' }
views = [
    { app = '2', channel = 'v-f{a}u{b}', publish = true },
    { app = '3', channel = 'b-f{a}u{b}' },
    { path = '/of/f{a}u{b}' },
]
";

/// The channels that have views, and those on which the second application may publish.
const LINKED: [usize; 3] = [0, 2, 4];
pub(super) const PUBLISHED: [usize; 2] = [0, 4];
/// The one on which it may not.
pub(super) const REFUSED: usize = 2;

/// How a client takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum View {
    /// As a client of the channels' own application.
    #[default]
    Source,
    /// As a client of a second application of the same vendor.
    Second,
    /// As a client of an application of another vendor.
    Broadcastt,
    /// As a plain WebSocket on this channel.
    Plain(usize),
}

impl View {
    /// The number of kinds of views, and what distinguishes them in counts.
    pub(super) const KINDS: usize = 4;

    /// Most clients are those of the source.
    pub(super) fn of_new_client(rng: &mut Rng) -> View {
        match rng.u32(0..10) {
            0 | 1 => View::Second,
            2 => View::Broadcastt,
            3 => View::Plain(LINKED[rng.usize(0..LINKED.len())]),
            _ => View::Source,
        }
    }

    pub(super) fn kind(self) -> usize {
        match self {
            View::Source => 0,
            View::Second => 1,
            View::Broadcastt => 2,
            View::Plain(_) => 3,
        }
    }

    /// Whether the view does not get long events.
    pub(super) fn is_short(self) -> bool {
        self == View::Broadcastt
    }

    /// Whether the view gets an event whose data has this many bytes.
    pub(super) fn expresses(self, bytes: usize) -> bool {
        !self.is_short() || bytes <= SHORT_BYTES
    }

    /// The id of the application that publishes under the names of this view.
    pub(super) fn app(self) -> &'static str {
        if self == View::Second { SECOND.0 } else { APP.0 }
    }

    /// The signature of a connection for a name.
    pub(super) fn auth(self, socket_id: &str, name: &str) -> String {
        let (_, key, secret) = if self == View::Second { SECOND } else { APP };
        auth_of(key, secret, socket_id, name)
    }

    /// The target of the handshake.
    pub(super) fn target(self) -> String {
        match self {
            View::Source => "/app/app-key?protocol=7".to_owned(),
            View::Second => "/app/second-key?protocol=7".to_owned(),
            View::Broadcastt => "/apps/third-key".to_owned(),
            View::Plain(channel) => format!("/of/{}", CHANNELS[channel]),
        }
    }

    /// What the names of the vendor's events begin with.
    pub(super) fn vendor(self) -> &'static str {
        if self == View::Broadcastt { "broadcastt" } else { "pusher" }
    }

    /// A channel of this view.
    pub(super) fn any_channel(self, rng: &mut Rng) -> usize {
        match self {
            View::Source => rng.usize(0..CHANNELS.len()),
            _ => LINKED[rng.usize(0..LINKED.len())],
        }
    }

    /// Whether the view has this channel.
    pub(super) fn has(self, channel: usize) -> bool {
        self == View::Source || LINKED.contains(&channel)
    }

    /// The name by which the view knows a channel.
    pub(super) fn name(self, channel: usize) -> String {
        let prefix = match self {
            View::Second => "v-",
            View::Broadcastt => "b-",
            View::Source | View::Plain(_) => "",
        };
        format!("{prefix}{}", CHANNELS[channel])
    }

    /// The channel that the view knows by this name.
    pub(super) fn channel(self, name: &str) -> usize {
        let found = (0..CHANNELS.len()).find(|channel| self.name(*channel) == name);
        found.unwrap_or_else(|| panic!("{name} is no channel of {self:?}"))
    }
}
