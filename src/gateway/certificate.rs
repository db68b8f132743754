//! Guards of type certificate: which client certificates they accept, and the claims that follow
//! from one.

use crate::claims::Claims;
use crate::config::GuardCertificate;
use crate::tls::{Holder, PeerCertificate};

/// The claims of the client's certificate at `now_s` seconds since 1970: the first common name, or
/// else alternative name, as the identity, and the organisational units as the roles. `None` if the
/// certificate is not valid at that time, or `wanted` has a list and the certificate is not in it.
pub(super) fn claims(
    wanted: &GuardCertificate,
    client: &PeerCertificate,
    now_s: u64,
) -> Option<Claims> {
    // The validity is checked here too, because a session that is resumed by a ticket was verified
    // only when it began.
    let holder = Holder::read(client.certificate()).filter(|holder| holder.is_good_at(now_s))?;
    let fingerprints = &mut wanted.fingerprints.iter();
    let is_listed = wanted.is_empty()
        || fingerprints.any(|it| it.0 == *client.fingerprint())
        || holds(&wanted.common_names, &holder.common_names)
        || holds(&wanted.alternative_names, &holder.alternative_names);
    let Holder { common_names, units, alternative_names, .. } = holder;
    is_listed.then(|| Claims {
        identity: common_names.into_iter().chain(alternative_names).next(),
        roles: units,
        ..Claims::default()
    })
}

fn holds(patterns: &[crate::config::Pattern], names: &[String]) -> bool {
    names.iter().any(|name| patterns.iter().any(|pattern| pattern.matches(name)))
}
