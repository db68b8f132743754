//! Connections of this dialect on any node of a cluster.

use crate::dialect::Env;
use crate::hub::ConnId;

/// A connection of this dialect on any node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZenithPeer {
    /// The process of the node; 0 is this one.
    pub process: u64,
    /// The connection there.
    pub conn: ConnId,
}

impl From<ConnId> for ZenithPeer {
    fn from(conn: ConnId) -> ZenithPeer {
        ZenithPeer { process: 0, conn }
    }
}

impl ZenithPeer {
    /// The process, also of this node.
    pub(super) fn process_in(self, env: &Env) -> u64 {
        match self.process {
            0 => env.runtime.cluster.process(),
            process => process,
        }
    }

    /// The connection with this process, which may be this one.
    pub(super) fn of(env: &Env, process: u64, conn: ConnId) -> ZenithPeer {
        let is_ours = process == env.runtime.cluster.process();
        ZenithPeer { process: if is_ours { 0 } else { process }, conn }
    }
}
