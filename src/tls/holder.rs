//! The names and the validity in a client's certificate (RFC 5280).

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::AttributeTypeAndValue;

/// The names in a certificate and its validity. Names with control characters are left out, because
/// readers differ in whether such a character ends the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The common names of the subject (`CN`).
    pub common_names: Vec<String>,
    /// The organisational units of the subject (`OU`).
    pub units: Vec<String>,
    /// The subject's alternative names (RFC 5280 section 4.2.1.6), each with a prefix for its kind:
    /// `dns:` (the name is in lower case), `email:`, `uri:` or `ip:`.
    pub alternative_names: Vec<String>,
    /// The first second of validity, since 1970.
    pub from_s: i64,
    /// The last second of validity, since 1970.
    pub until_s: i64,
}

impl Holder {
    /// Reads a certificate in DER. `None` if it is malformed, or has more than one subjectAltName
    /// extension.
    pub fn read(der: &[u8]) -> Option<Holder> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let subject = certificate.subject();
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|it| &it.value.general_names);
        let validity = certificate.validity();
        Some(Holder {
            common_names: subject.iter_common_name().filter_map(text).collect(),
            units: subject.iter_organizational_unit().filter_map(text).collect(),
            alternative_names: names.filter_map(alternative).collect(),
            from_s: validity.not_before.timestamp(),
            until_s: validity.not_after.timestamp(),
        })
    }

    /// Whether the certificate is valid at `now_s` seconds since 1970.
    pub fn is_good_at(&self, now_s: u64) -> bool {
        i64::try_from(now_s).is_ok_and(|now_s| (self.from_s..=self.until_s).contains(&now_s))
    }
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().and_then(plain)
}

fn plain(text: &str) -> Option<String> {
    let fits = !text.is_empty() && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

fn alternative(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("dns:{}", plain(name)?.to_ascii_lowercase())),
        GeneralName::RFC822Name(name) => Some(format!("email:{}", plain(name)?)),
        GeneralName::URI(name) => Some(format!("uri:{}", plain(name)?)),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let address =
                four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
            Some(format!("ip:{}", address.ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn made(name: &str, unit: &str, alternative: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        params.subject_alt_names = alternative;
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn holder_names_of_each_kind() {
        let ia5 = |text: &str| text.try_into().unwrap();
        let der = made(
            "Ada Lovelace",
            "sensors",
            vec![
                SanType::DnsName(ia5("A.Example")),
                SanType::Rfc822Name(ia5("Ada@a.example")),
                SanType::URI(ia5("spiffe://a/b")),
                SanType::IpAddress([192, 0, 2, 1].into()),
                SanType::IpAddress([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
            ],
        );
        let holder = Holder::read(&der).unwrap();
        assert_eq!(holder.common_names, ["Ada Lovelace"]);
        assert_eq!(holder.units, ["sensors"]);
        let names =
            "dns:a.example email:Ada@a.example uri:spiffe://a/b ip:192.0.2.1 ip:2001:db8::1";
        assert_eq!(holder.alternative_names.join(" "), names);
        let none = Holder::read(&made("", "", Vec::new())).unwrap();
        assert_eq!(none.common_names.len() + none.units.len() + none.alternative_names.len(), 0);
    }

    #[test]
    fn holder_refuses_malformed_names_and_certificates() {
        let holder = Holder::read(&made("a\0.evil", "x\ny", Vec::new())).unwrap();
        assert!(holder.common_names.is_empty() && holder.units.is_empty());
        let der = made("a", "", Vec::new());
        assert!(Holder::read(&[&der[..], &[0]].concat()).is_none());
        for cut in 0..der.len() {
            assert!(Holder::read(&der[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn holder_is_valid_from_first_to_last_second() {
        let holder = Holder::read(&made("a", "", Vec::new())).unwrap();
        let (from, until) = (1_577_836_800, 1_893_456_000);
        assert_eq!((holder.from_s, holder.until_s), (from as i64, until as i64));
        for (at, good) in
            [(from - 1, false), (from, true), (until, true), (until + 1, false), (u64::MAX, false)]
        {
            assert_eq!(holder.is_good_at(at), good, "{at}");
        }
    }
}
