//! One request to a webhook, and what became of it.

use super::client::{self, Kept, Target};
use hyper::body::Bytes;
use hyper::header::HeaderName;
use std::time::Duration;

/// How long one attempt may take: look-up, connection and answer.
const ATTEMPT: Duration = Duration::from_secs(4);
/// Bytes of an answer's body that are read, so that the connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostOutcome {
    /// Answered by a status of success.
    Delivered,
    /// Anything else.
    Failed,
    /// Not made: the endpoint is at an address that it may not have.
    Refused,
}

/// Makes one request, over the kept connection or a new one.
pub(super) async fn post(
    target: &Target,
    kept: &Kept,
    body: Bytes,
    more: &[(HeaderName, String)],
) -> PostOutcome {
    match tokio::time::timeout(ATTEMPT, target.send(kept, &body, more)).await {
        Ok(Ok(Some((response, connection)))) => {
            let success = response.status().is_success();
            let rest = client::finish(response, connection, kept, ANSWER_BYTES);
            // Whatever the body is, the status has been the answer.
            let _ = tokio::time::timeout(ATTEMPT / 4, rest).await;
            if success { PostOutcome::Delivered } else { PostOutcome::Failed }
        }
        Ok(Ok(None)) => PostOutcome::Refused,
        Ok(Err(error)) => {
            tracing::debug!(host = target.host(), %error, "a webhook is not reached");
            PostOutcome::Failed
        }
        Err(_) => PostOutcome::Failed,
    }
}
