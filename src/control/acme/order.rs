//! One order of a certificate (RFC 8555 section 7.4), from the account to the stored certificate.

use super::failure::{OrderFailure, describe};
use super::issuer::Issuer;
use super::plan::Validity;
use crate::config::AcmeChallenge;
use crate::tls::{IssuedCertificates, Pair};
use instant_acme::{
    Account, AuthorizationStatus, Authorizations, CertificateIdentifier, ChallengeHandle,
    ChallengeType, Error, Identifier, NewOrder, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How the state of an order is polled: after half a second, and then more and more rarely.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));
/// Timeout of a whole order.
const ORDER: Duration = Duration::from_secs(600);

/// Orders the certificate of `domain`, stores it, and uses it from then on. A retry does not say
/// which certificate is replaced, because that may be the reason why the order before has failed.
///
/// # Errors
/// Why there is no new certificate. The old one stays in use.
pub(super) async fn order(
    issuer: &Issuer,
    domain: &str,
    is_retry: bool,
) -> Result<Validity, OrderFailure> {
    let attempt = async {
        // Before anything is ordered: a certificate that cannot be stored would be lost.
        let name = domain.to_owned();
        issuer.on_disk(move |store| store.probe().and_then(|()| store.certificate(&name))).await?;
        let account = issuer.account().await?;
        let (key, chain) = certified(issuer, &account, domain, is_retry).await?;
        keep(issuer, domain, key, chain).await
    };
    match tokio::time::timeout(ORDER, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(OrderFailure::Refused("the order has taken too long".to_owned())),
    }
}

/// Asks when the certificate of `domain` should be renewed (RFC 9773): the first and the last
/// second of the window, and after how many seconds to ask again. `None` if the certificate
/// authority does not say so.
pub(super) async fn renewal_info(issuer: &Issuer, domain: &str) -> Option<(Validity, u64)> {
    let current = issuer.issued.certificate(domain)?;
    let certificate = CertificateDer::from(current.certificate());
    let id = CertificateIdentifier::try_from(&certificate).ok()?;
    let account = issuer.account().await.ok()?;
    match account.renewal_info(&id).await {
        Ok((info, again)) => {
            issuer.has_renewal_info.set(true);
            let window = info.suggested_window;
            let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
            Some((window, again.as_secs()))
        }
        Err(error) => {
            tracing::debug!(domain, %error, "there is no renewal information");
            None
        }
    }
}

/// A certificate chain and its new key, both in PEM.
async fn certified(
    issuer: &Issuer,
    account: &Account,
    domain: &str,
    is_retry: bool,
) -> Result<(String, String), OrderFailure> {
    let identifiers = [Identifier::Dns(domain.to_owned())];
    let mut new = NewOrder::new(&identifiers);
    let current = issuer.issued.certificate(domain);
    let current = current.filter(|_| issuer.has_renewal_info.get() && !is_retry);
    let current = current.as_ref().map(|it| CertificateDer::from(it.certificate()));
    let id =
        current.and_then(|it| CertificateIdentifier::try_from(&it).ok().map(|id| id.into_owned()));
    if let Some(id) = id {
        new = new.replaces(id);
    }
    let mut order = account.new_order(&new).await.map_err(OrderFailure::of)?;
    if order.state().status == OrderStatus::Pending {
        let pending = answer_all(issuer, order.authorizations()).await?;
        let polled = order.poll_ready(&POLL).await;
        drop(pending);
        match polled {
            Ok(OrderStatus::Ready) => {}
            Ok(_) | Err(Error::Api(_)) => {
                let problem = order.state().error.clone();
                let reason = reason(problem.as_ref(), order.authorizations()).await;
                return Err(OrderFailure::Challenge(reason));
            }
            Err(error) => return Err(as_challenge(error)),
        }
    }
    let key = match order.state().status {
        OrderStatus::Ready => order.finalize().await.map_err(OrderFailure::of)?,
        // The key of an order that was finalized before is not known.
        status => return Err(OrderFailure::Refused(format!("a new order is {status:?}"))),
    };
    let chain = order.poll_certificate(&POLL).await.map_err(OrderFailure::of)?;
    Ok((key, chain))
}

/// Answers the challenges of an order, until the result is dropped.
async fn answer_all(
    issuer: &Issuer,
    mut authorizations: Authorizations<'_>,
) -> Result<Vec<PendingChallenge>, OrderFailure> {
    let mut pending = Vec::new();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(OrderFailure::of)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => {
                let text = format!("an authorization of a new order is {status:?}");
                return Err(OrderFailure::Refused(text));
            }
        }
        let kind = match issuer.settings.challenge {
            AcmeChallenge::TlsAlpn => ChallengeType::TlsAlpn01,
            AcmeChallenge::Http => ChallengeType::Http01,
        };
        let Some(mut challenge) = authorization.challenge(kind.clone()) else {
            let text = format!("it does not offer the challenge {kind:?} for this domain");
            return Err(OrderFailure::Refused(text));
        };
        pending.push(answer(&issuer.issued, &challenge, issuer.settings.challenge)?);
        challenge.set_ready().await.map_err(as_challenge)?;
    }
    Ok(pending)
}

/// Why an order is invalid: its own problem, and those of its challenges.
async fn reason(problem: Option<&Problem>, mut authorizations: Authorizations<'_>) -> String {
    let mut reasons: Vec<String> = problem.map(describe).into_iter().collect();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { break };
        let errors = state.challenges.iter().filter_map(|it| it.error.as_ref());
        reasons.extend(errors.map(describe));
    }
    if reasons.is_empty() { "the order is invalid".to_owned() } else { reasons.join("; ") }
}

fn as_challenge(error: Error) -> OrderFailure {
    match OrderFailure::of(error) {
        OrderFailure::Refused(text) => OrderFailure::Challenge(text),
        other => other,
    }
}

/// An answer to a challenge, which all listeners give until this is dropped.
struct PendingChallenge {
    issued: Arc<IssuedCertificates>,
    /// The domain (TLS-ALPN-01) or the token (HTTP-01).
    name: String,
    kind: AcmeChallenge,
}

impl Drop for PendingChallenge {
    fn drop(&mut self) {
        match self.kind {
            AcmeChallenge::TlsAlpn => self.issued.end_challenge(&self.name),
            AcmeChallenge::Http => self.issued.end_response(&self.name),
        }
    }
}

fn answer(
    issued: &Arc<IssuedCertificates>,
    challenge: &ChallengeHandle<'_>,
    kind: AcmeChallenge,
) -> Result<PendingChallenge, OrderFailure> {
    let authorization = challenge.key_authorization();
    let name = match kind {
        AcmeChallenge::TlsAlpn => {
            let domain = challenge.identifier().to_string();
            let pair = challenge_pair(&domain, authorization.digest().as_ref())
                .map_err(|error| OrderFailure::Refused(error.to_string()))?;
            issued.begin_challenge(&domain, pair).map_err(OrderFailure::Store)?;
            domain
        }
        AcmeChallenge::Http => {
            issued.begin_response(&challenge.token, authorization.as_str());
            challenge.token.clone()
        }
    };
    Ok(PendingChallenge { issued: issued.clone(), name, kind })
}

/// The self-signed certificate that answers a TLS-ALPN-01 challenge (RFC 8737 section 3): its only
/// name is the domain, and it has the digest of the key authorization.
fn challenge_pair(domain: &str, digest: &[u8]) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let pem = format!("{}{}", key.serialize_pem(), params.self_signed(&key)?.pem());
    Pair::from_pem(Path::new("challenge"), pem.as_bytes())
        .map_err(|_| rcgen::Error::CouldNotParseCertificate)
}

/// Checks a new certificate, stores it, and then uses it.
async fn keep(
    issuer: &Issuer,
    domain: &str,
    key: String,
    chain: String,
) -> Result<Validity, OrderFailure> {
    let unusable = |text: String| OrderFailure::Certificate(text);
    let checked = issuer.store.check(domain, &key, &chain);
    let certificate = checked.map_err(|error| unusable(format!("it {}", error.what)))?;
    let validity = (certificate.from_s, certificate.until_s);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    if u64::try_from(validity.1).map_or(true, |until_s| until_s <= now.as_secs()) {
        return Err(unusable("it has expired, or the clock of this machine is wrong".to_owned()));
    }
    let name = domain.to_owned();
    issuer.on_disk(move |store| store.put_certificate(&name, &key, &chain)).await?;
    issuer.issued.put(certificate);
    Ok(validity)
}
