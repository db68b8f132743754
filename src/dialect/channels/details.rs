//! The attributes `history` and `link` of `GET /channels/{name}`: what a channel keeps, how often
//! clients have resumed, and the names of a linked channel with the subscribers of each.

use super::super::env::Env;
use super::super::links::LinkedName;
use super::positions::push_position;
use crate::codec::json::push_string;
use crate::config::LinkTarget;
use crate::hub::{Answer, ChannelInfo, ChannelUsage, HistoryUsage};

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

/// The names of a linked channel that an application learns of; none if the channel is not linked.
#[derive(Default)]
pub(super) struct LinkDetail {
    /// The number of the view, and the JSON members that say where the channel is. The first is the
    /// source.
    names: Vec<(u16, String)>,
    /// The keys and numbers of all views, also of those that the application does not learn of.
    views: Vec<(u64, u16)>,
}

/// The numbers of subscribers of a linked channel by its names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LinkCounts {
    /// By the number of the view; 0 is the source.
    views: Vec<(u16, u64)>,
    /// The subscribers through views that the configuration of this node does not have.
    unlisted: u64,
}

/// The names that an application learns of: that of the source learns of all views, that of a view
/// of this view and of the source. Empty if `name` is not linked.
pub(super) fn link_of(env: &Env, own_app: u32, name: &str) -> LinkDetail {
    let names = env.links.names_of(own_app, name);
    let is_source = names.first().is_some_and(|source| source.app == own_app);
    let seen = names.iter().filter(|name| is_source || name.view == 0 || name.app == own_app);
    let views = names.iter().filter(|name| name.view != 0);
    LinkDetail {
        names: seen.map(|name| (name.view, members_of(env, name))).collect(),
        views: views.filter_map(|name| Some((env.links.key(name.view)?, name.view))).collect(),
    }
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

impl LinkDetail {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The numbers of a server that is no node of a cluster.
    pub(super) fn counts_of_cores(&self, usage: &ChannelUsage) -> LinkCounts {
        let is_listed = |view: u16| view == 0 || self.views.iter().any(|(_, it)| *it == view);
        let (views, others): (Vec<_>, Vec<_>) =
            usage.views.iter().copied().partition(|(view, _)| is_listed(*view));
        LinkCounts { views, unlisted: others.iter().map(|(_, count)| count).sum() }
    }

    /// The numbers of all nodes of a cluster.
    pub(super) fn counts_of_nodes(&self, info: &ChannelInfo) -> LinkCounts {
        let mut counts = LinkCounts::default();
        for (key, count) in &info.views {
            match self.views.iter().find(|(it, _)| it == key) {
                Some((_, view)) => counts.views.push((*view, *count)),
                None => counts.unlisted += count,
            }
        }
        let through_views: u64 = info.views.iter().map(|(_, count)| count).sum();
        counts.views.push((0, info.subscriptions.saturating_sub(through_views)));
        counts
    }

    /// Appends the member `link`, which is null for a channel without a link.
    pub(super) fn push(&self, out: &mut Vec<u8>, counts: &LinkCounts) {
        let object = |(view, members): &(u16, String)| {
            let found = counts.views.iter().find(|(other, _)| other == view);
            let count = found.map_or(0, |(_, count)| *count);
            format!(r#"{{{members},"subscribers":{count}}}"#)
        };
        let text = match self.names.split_first() {
            None => r#","link":null"#.to_owned(),
            Some((source, views)) => {
                let views: Vec<String> = views.iter().map(object).collect();
                let (source, views) = (object(source), views.join(","));
                let unlisted = match counts.unlisted {
                    0 => String::new(),
                    count => format!(r#","unlisted_subscribers":{count}"#),
                };
                format!(r#","link":{{"source":{source},"views":[{views}]{unlisted}}}"#)
            }
        };
        out.extend_from_slice(text.as_bytes());
    }
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
        let link = link_of(&env, own_app, name);
        let mut out = Vec::new();
        link.push(&mut out, &link.counts_of_cores(&usage));
        // The nodes of a cluster may number their views otherwise.
        let (mut of_nodes, key) = (Vec::new(), |view| env.links.key(view).unwrap());
        let views = vec![(key(3), 5), (key(1), 9)];
        let info = ChannelInfo { subscriptions: 16, views, ..ChannelInfo::default() };
        link.push(&mut of_nodes, &link.counts_of_nodes(&info));
        assert_eq!(of_nodes, out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn details_of_a_link_count_who_has_come_through_unknown_views() {
        let config = Config::parse(LINKED, FileFormat::Toml, "test").unwrap();
        let env = Env::new(config, 1).unwrap();
        let link = link_of(&env, 0, "q-A");
        let usage = ChannelUsage { views: vec![(0, 2), (9, 3), (1, 1), (10, 4)], history: None };
        let known = LinkCounts { views: vec![(0, 2), (1, 1)], unlisted: 7 };
        assert_eq!(link.counts_of_cores(&usage), known);
        let key = env.links.key(1).unwrap();
        let views = vec![(1, 3), (key, 1), (2, 4)];
        let info = ChannelInfo { subscriptions: 10, views, ..ChannelInfo::default() };
        let of_nodes = link.counts_of_nodes(&info);
        assert_eq!(of_nodes, LinkCounts { views: vec![(1, 1), (0, 2)], unlisted: 7 });
        let mut out = Vec::new();
        link.push(&mut out, &of_nodes);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with(r#"],"unlisted_subscribers":7}"#), "{text}");
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
