//! Certificates of any bytes: the names that are read are not empty and have no control characters.

use polycast::tls::Holder;

pub(crate) fn run(data: &[u8]) {
    let Some(holder) = Holder::read(data) else { return };
    let Holder { common_names, units, alternative_names, from_s, until_s } = &holder;
    for name in common_names.iter().chain(units).chain(alternative_names) {
        assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}");
    }
    for name in alternative_names {
        let (kind, rest) = name.split_once(':').expect("its kind");
        assert!(["dns", "email", "uri", "ip"].contains(&kind) && !rest.is_empty(), "{name:?}");
        assert!(kind != "dns" || !rest.bytes().any(|byte| byte.is_ascii_uppercase()), "{name:?}");
    }
    for at in [*from_s, *until_s].into_iter().filter_map(|at| u64::try_from(at).ok()) {
        assert_eq!(holder.is_good_at(at), from_s <= until_s);
    }
}
