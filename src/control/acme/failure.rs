//! Why an order of a certificate has failed.

use crate::stats::{Counter, Counters};
use crate::tls;
use instant_acme::Problem;

/// The type of the problem that a rate limit was reached (RFC 8555 section 6.7).
const RATE_LIMITED: &str = "urn:ietf:params:acme:error:rateLimited";
/// The type of the problem that there is no such account.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why an order has failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderFailure {
    /// There is no connection, no answer in time, or a server error without a problem document.
    #[error("the certificate authority cannot be reached: {0}")]
    Unreachable(String),
    /// A rate limit of the certificate authority was reached.
    #[error("a rate limit of the certificate authority was reached: {0}")]
    RateLimited(String),
    /// The certificate authority could not verify that the domain leads to this server.
    #[error("the challenge has failed: {0}")]
    Challenge(String),
    /// The certificate authority has refused a request, or its answer cannot be used.
    #[error("the certificate authority refuses: {0}")]
    Refused(String),
    /// The certificate cannot be used: it is for other names or another key, or has expired.
    #[error("the certificate authority has issued a certificate that cannot be used: {0}")]
    Certificate(String),
    /// The store cannot be read or written.
    #[error("the store cannot be used: {0}")]
    Store(tls::Error),
}

/// A response whose status is an error and whose body is no problem document.
#[derive(Debug, thiserror::Error)]
#[error("it answers {status}")]
pub(super) struct ErrorStatus {
    pub(super) status: u16,
}

impl OrderFailure {
    /// The failure for an error of the client.
    pub(super) fn of(error: instant_acme::Error) -> OrderFailure {
        use instant_acme::Error;
        match error {
            Error::Api(problem) => OrderFailure::of_problem(&problem),
            Error::Other(error) => match error.downcast_ref::<ErrorStatus>() {
                Some(ErrorStatus { status: 429 }) => OrderFailure::RateLimited(error.to_string()),
                _ => OrderFailure::Unreachable(error.to_string()),
            },
            Error::Timeout(_) => {
                OrderFailure::Refused("the order was not processed in time".to_owned())
            }
            other => OrderFailure::Refused(other.to_string()),
        }
    }

    fn of_problem(problem: &Problem) -> OrderFailure {
        let text = describe(problem);
        match problem.r#type.as_deref() {
            Some(RATE_LIMITED) => OrderFailure::RateLimited(text),
            Some(NO_ACCOUNT) => OrderFailure::Refused(format!(
                "{text}; remove the file account.json from the store to register a new account"
            )),
            _ if problem.status == Some(429) => OrderFailure::RateLimited(text),
            _ => OrderFailure::Refused(text),
        }
    }

    /// Whether nothing of the certificate authority was used, so that a next attempt may come soon.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, OrderFailure::Unreachable(_) | OrderFailure::Store(_))
    }

    /// Counts the failure by its reason.
    pub(super) fn count(&self, counters: &Counters) {
        let counter: &Counter = match self {
            OrderFailure::Unreachable(_) => &counters.acme_unreachable,
            OrderFailure::RateLimited(_) => &counters.acme_rate_limited,
            OrderFailure::Challenge(_) => &counters.acme_challenges_failed,
            OrderFailure::Refused(_) => &counters.acme_refused,
            OrderFailure::Certificate(_) => &counters.acme_certificates_unusable,
            OrderFailure::Store(_) => &counters.acme_store_failed,
        };
        counter.add(1);
    }
}

/// A problem document on one line. Its texts come from the certificate authority, which repeats
/// what other servers have answered, so control characters are escaped and the length is limited.
pub(super) fn describe(problem: &Problem) -> String {
    const CHARACTERS: usize = 1000;
    let escaped = problem.to_string().escape_debug().to_string();
    let text = escaped.strip_prefix("API error: ").unwrap_or(&escaped);
    text.chars().take(CHARACTERS).collect()
}
