//! The attributes `history` and `link` of `GET /channels/{name}`: what a channel keeps, how often
//! clients have resumed, and the names of a linked channel with the subscribers of each.

use super::super::env::Env;
use super::super::links::LinkedName;
use super::positions::push_position;
use crate::codec::json::push_string;
use crate::config::LinkTarget;
use crate::hub::{Answer, ChannelUsage, HistoryUsage};

/// The use of a channel on all cores.
pub(super) fn total(answers: &[(u16, Answer)]) -> ChannelUsage {
    let mut total = ChannelUsage::default();
    for (_, answer) in answers {
        let Answer::Usage(usage) = answer else { continue };
        total.history = total.history.or(usage.history);
        for (view, count) in &usage.views {
            match total.views.iter_mut().find(|(other, _)| other == view) {
                Some((_, sum)) => *sum += count,
                None => total.views.push((*view, *count)),
            }
        }
    }
    total
}

/// Appends the member `history`, which is null for a channel that keeps nothing.
pub(super) fn push_history(out: &mut Vec<u8>, history: Option<&HistoryUsage>) {
    let Some(history) = history else {
        return out.extend_from_slice(br#","history":null"#);
    };
    let HistoryUsage { position, events, bytes, recovered, not_recovered } = history;
    let resumes = u64::from(*recovered) + u64::from(*not_recovered);
    out.extend_from_slice(
        format!(
            r#","history":{{"events":{events},"bytes":{bytes},"resumes":{resumes},"recovered":{recovered},"not_recovered":{not_recovered}"#
        )
        .as_bytes(),
    );
    push_position(out, Some(*position));
    out.push(b'}');
}

/// The names of a linked channel: the number of the view, and the JSON members that say where the
/// channel is. The first is the source.
pub(super) type LinkMembers = Vec<(u16, String)>;

/// The names that an application learns of: that of the source learns of all views, that of a view
/// of this view and of the source. Empty if `name` is not linked.
pub(super) fn link_of(env: &Env, own_app: u32, name: &str) -> LinkMembers {
    let names = env.links.names_of(own_app, name);
    let is_source = names.first().is_some_and(|source| source.app == own_app);
    let seen = names.iter().filter(|name| is_source || name.view == 0 || name.app == own_app);
    seen.map(|name| (name.view, members_of(env, name))).collect()
}

fn members_of(env: &Env, name: &LinkedName<'_>) -> String {
    let (target, ..) = name.end.target();
    let kind = match target {
        LinkTarget::App(_) => env.apps.get(name.app).config.dialect.name(),
        LinkTarget::Zenith => "zenith",
        LinkTarget::Reflect => "reflect",
        LinkTarget::Path => "path",
    };
    let mut out = format!(r#""kind":"{kind}","#).into_bytes();
    if let LinkTarget::App(id) = target {
        out.extend_from_slice(br#""app":"#);
        push_string(&mut out, id);
        out.push(b',');
    }
    out.extend_from_slice(br#""name":"#);
    push_string(&mut out, &name.name);
    if name.view != 0 {
        out.extend_from_slice(format!(r#","publish":{}"#, name.end.publish).as_bytes());
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the member `link`, which is null for a channel without a link.
pub(super) fn push_link(out: &mut Vec<u8>, link: &LinkMembers, usage: &ChannelUsage) {
    let object = |(view, members): &(u16, String)| {
        let found = usage.views.iter().find(|(other, _)| other == view);
        let count = found.map_or(0, |(_, count)| *count);
        format!(r#"{{{members},"subscribers":{count}}}"#)
    };
    let text = match link.split_first() {
        None => r#","link":null"#.to_owned(),
        Some((source, views)) => {
            let views: Vec<String> = views.iter().map(object).collect();
            format!(r#","link":{{"source":{},"views":[{}]}}"#, object(source), views.join(","))
        }
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(feature = "zenith")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FileFormat};
    use crate::hub::StreamPosition;

    const LINKED: &str = r#"
        [[routes]]
        when = [{ path = "/raw/*" }]
        endpoint = "channel"
        [[apps]]
        id = "one"
        key = "k1"
        secret = "s"
        [[apps]]
        id = "two"
        key = "k2"
        secret = "s"
        dialect = "broadcastt"
        [zenith]
        topics = [{ controller = "Prices", kind = "*" }]
        [[links]]
        source = { app = "one", channel = "q-{s}" }
        views = [
            { app = "two", channel = "b-{s}", publish = true },
            { zenith = "Prices/{s}" },
            { path = "/raw/{s}" },
        ]
    "#;

    fn link_seen_by(own_app: u32, name: &str) -> String {
        let config = Config::parse(LINKED, FileFormat::Toml, "test").unwrap();
        let env = Env::new(config, 1).unwrap();
        let answer = |views: &[(u16, u64)]| {
            (1, Answer::Usage(ChannelUsage { views: views.to_vec(), history: None }))
        };
        let usage = total(&[answer(&[(0, 2), (3, 1)]), answer(&[(3, 4), (1, 9)])]);
        let mut out = Vec::new();
        push_link(&mut out, &link_of(&env, own_app, name), &usage);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn details_of_a_link_list_the_views_that_the_application_may_see() {
        let source = r#","link":{"source":{"kind":"pusher","app":"one","name":"q-A","subscribers":2},"views":["#;
        let own =
            r#"{"kind":"broadcastt","app":"two","name":"b-A","publish":true,"subscribers":9}"#;
        let others = r#",{"kind":"zenith","name":"Prices/A","publish":false,"subscribers":0},{"kind":"path","name":"/raw/A","publish":false,"subscribers":5}"#;
        assert_eq!(link_seen_by(0, "q-A"), format!("{source}{own}{others}]}}"));
        assert_eq!(link_seen_by(1, "b-A"), format!("{source}{own}]}}"));
        assert_eq!(link_seen_by(0, "other"), r#","link":null"#);
        assert_eq!(link_seen_by(1, "q-A"), r#","link":null"#, "a name of another application");
    }

    #[test]
    fn details_of_a_history_are_those_of_its_home() {
        let position = StreamPosition { stream: 10, serial: 7 };
        let history =
            HistoryUsage { position, events: 5, bytes: 999, recovered: 3, not_recovered: 1 };
        let usage = |history| Answer::Usage(ChannelUsage { views: Vec::new(), history });
        let total = total(&[(1, usage(None)), (1, usage(Some(history))), (1, usage(None))]);
        let mut out = Vec::new();
        push_history(&mut out, total.history.as_ref());
        let expected = r#","history":{"events":5,"bytes":999,"resumes":4,"recovered":3,"not_recovered":1,"stream_id":"000000000000000a","serial":7}"#;
        assert_eq!(str::from_utf8(&out), Ok(expected));
        out.clear();
        push_history(&mut out, None);
        assert_eq!(out, br#","history":null"#);
    }
}
