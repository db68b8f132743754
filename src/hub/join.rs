//! What a joining connection requests from the home of a channel, and what the home answers.

use super::encodings::Encodings;
use super::frames::SharedFrame;
use super::replay::{ResumeReply, ResumeRequest};
use super::roster::{Member, Users};
use crate::codec::Format;
use crate::mem::Frozen;
use std::sync::Arc;

/// What a joining connection requests from the home.
#[derive(Clone, Debug)]
pub struct JoinRequest<M> {
    /// Make the connection a member.
    pub member: Option<Box<Member<M>>>,
    /// Return the cached event.
    pub cached: bool,
    /// Return the channel's picture in this format.
    pub picture: Option<Format>,
    /// Return the channel's history.
    pub history: bool,
    /// Resume the channel's history at a position.
    pub resume: Option<ResumeRequest>,
}

impl<M> Default for JoinRequest<M> {
    /// A request for nothing.
    fn default() -> JoinRequest<M> {
        JoinRequest { member: None, cached: false, picture: None, history: false, resume: None }
    }
}

impl<M> JoinRequest<M> {
    /// What a subscriber through this view of a link may request: to resume. The channel's members,
    /// its cached event and its picture are for those of the channel itself.
    pub fn through(self, view: u16) -> Option<JoinRequest<M>> {
        let resume = self.resume.map(|resume| ResumeRequest { view, ..resume })?;
        Some(JoinRequest { resume: Some(resume), ..JoinRequest::default() })
    }
}

/// The home's answer to a [`JoinRequest`].
#[derive(Clone, Debug, Default)]
pub struct JoinReply {
    /// All members, including a new one. For a request without a member, `None` if there are no
    /// members.
    pub users: Option<Arc<Users>>,
    /// The cached event if it was requested; `Some(None)` if there is none.
    pub cached: Option<Option<Frozen>>,
    /// The picture if it was requested and there is one, encoded in the requested format. The
    /// session queues it before it calls the dialect's `joined`.
    pub picture: Option<Arc<Encodings>>,
    /// Whether the picture was requested and this node does not know it yet.
    pub is_picture_unknown: bool,
    /// The history, the oldest event first, if it was requested. The session queues it before it
    /// calls the dialect's `joined`.
    pub history: Vec<SharedFrame>,
    /// What the request to resume has found. The session queues its events after it has called the
    /// dialect's `joined`.
    pub resumed: Option<Box<ResumeReply>>,
}

/// Why a connection may not join a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinRefusal {
    /// The channel has its maximum number of members.
    ChannelFull,
    /// The channel has no subscriber, and the application has its maximum number of channels.
    NoRoom,
    /// The log of the cluster has not taken the member in time. It may be tried again.
    NotStored,
}
