//! Sends one webhook request and classifies its outcome.

use crate::control::client::{self, Kept, Target};
use hyper::body::Bytes;
use hyper::header::HeaderName;
use std::time::Duration;

/// Timeout of one attempt: DNS lookup, connection and the head of the response.
const ATTEMPT: Duration = Duration::from_secs(4);
/// The maximum bytes of a response body that are read, so that the connection can be reused.
const ANSWER_BYTES: usize = 64 * 1024;

/// The outcome of a webhook request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostOutcome {
    /// The response has a 2xx status.
    Delivered,
    /// The response has another status, or the request failed or timed out.
    Failed,
    /// The request was not sent: the endpoint has only private addresses and they are not allowed,
    /// or it has no valid target.
    Refused,
}

/// Sends one POST request over the kept connection or a new one.
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
            // The status alone decides the outcome; an error in the body does not matter.
            let _ = tokio::time::timeout(ATTEMPT / 4, rest).await;
            if success { PostOutcome::Delivered } else { PostOutcome::Failed }
        }
        Ok(Ok(None)) => PostOutcome::Refused,
        Ok(Err(error)) => {
            tracing::debug!(host = target.host(), %error, "a webhook request has failed");
            PostOutcome::Failed
        }
        Err(_) => PostOutcome::Failed,
    }
}
