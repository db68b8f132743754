//! What NATS can read of a log-in.

use async_nats::ConnectOptions;
use nkeys::KeyPair;

/// Whether this is the seed of an nkey.
pub(super) fn is_seed(seed: &str) -> bool {
    KeyPair::from_seed(seed).is_ok()
}

/// Whether this has a JWT and the seed of its nkey.
pub(super) fn is_credentials(text: &str) -> bool {
    ConnectOptions::new().credentials(text).is_ok()
}
