//! The channels of one application that a core is the home of, and the claims of subscribers to
//! new ones.

/// The number of subscriptions from which a connection's claim is [`Claim::Many`].
const FEW: usize = 16;

/// The kind of subscriber that asks for a channel which is not occupied. Clients can make up names
/// of public channels, and must not use up the channels that are left for signed subscriptions and
/// for the many connections with few subscriptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// The application has signed the subscription, or the server itself makes it.
    #[default]
    Signed,
    /// The channel is public, and the connection has few subscriptions.
    Few,
    /// The channel is public, and the connection has many subscriptions.
    Many,
}

impl Claim {
    /// The claim of a connection with `subscriptions` subscriptions.
    pub(super) fn new(is_public: bool, subscriptions: usize) -> Claim {
        match is_public {
            false => Claim::Signed,
            true if subscriptions < FEW => Claim::Few,
            true => Claim::Many,
        }
    }

    /// The number of occupied channels, out of at most `channels`, from which this claim is
    /// refused.
    pub(super) fn part_of(self, channels: usize) -> usize {
        match self {
            Claim::Signed => channels,
            Claim::Few => channels - channels / 10,
            Claim::Many => channels - channels / 4,
        }
    }
}

/// The channels of one application.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// The numbers of the channels.
    pub(super) list: Vec<u32>,
    pub(super) occupied: usize,
}

/// The value of [`super::channel::ChannelState::listed`] for a channel that is in no list.
pub(super) const UNLISTED: u32 = u32::MAX;
