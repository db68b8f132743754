//! The queries of the HTTP API: channels, their attributes, and the users of presence channels.

use super::super::context::DialectContext;
use super::super::effects::Effect;
use super::super::forms::history_of;
use super::super::reply::{Answered, HttpReply};
use super::data::ChannelKind;
use super::reply::{json_error, ok};
use super::vendor::Vendor;
use super::{channel, details, positions};
use crate::codec::json::push_string;
use crate::http::query;
use crate::hub::{Answer, ChannelInfo, Query};
use std::borrow::Cow;

/// The channel attributes that a request asks for, in any combination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) user_count: bool,
    pub(super) subscription_count: bool,
    cache: bool,
    position: bool,
    history: bool,
    link: bool,
}

impl Info {
    /// Parses a list such as `user_count,subscription_count`.
    ///
    /// # Errors
    /// The first unknown attribute, cut to 50 characters.
    pub(super) fn read<V: Vendor>(list: &str) -> Result<Info, String> {
        let mut info = Info::default();
        for attribute in list.split(',').map(str::trim).filter(|attribute| !attribute.is_empty()) {
            match attribute {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" if V::DATA.prefixes.iter().any(|(.., cached)| *cached) => info.cache = true,
                "position" => info.position = true,
                "history" => info.history = true,
                "link" => info.link = true,
                unknown => return Err(unknown.chars().take(50).collect()),
            }
        }
        Ok(info)
    }

    /// The attribute that needs a query of its own, if there is one.
    pub(super) fn detail(self) -> Option<&'static str> {
        match self {
            Info { history: true, .. } => Some("history"),
            Info { link: true, .. } => Some("link"),
            _ => None,
        }
    }

    /// These attributes with `user_count` and `subscription_count` added.
    fn with_counts(self) -> Info {
        Info { user_count: true, subscription_count: true, ..self }
    }

    /// The first requested attribute that a channel of this name cannot have.
    fn inapplicable<V: Vendor>(self, name: &str) -> Option<&'static str> {
        let presence = channel::kind(V::DATA, name) == ChannelKind::Presence;
        match self {
            Info { user_count: true, .. } if !presence => Some("user_count"),
            Info { cache: true, .. } if !channel::is_cached(V::DATA, name) => Some("cache"),
            _ => None,
        }
    }

    /// Appends the requested attributes that the channel can have, each preceded by a comma.
    pub(super) fn push_applicable<V: Vendor>(
        self,
        out: &mut Vec<u8>,
        name: &str,
        channel_info: &ChannelInfo,
    ) {
        if is_hidden(name) {
            return;
        }
        let presence = channel::kind(V::DATA, name) == ChannelKind::Presence;
        if self.user_count && presence {
            out.extend_from_slice(format!(r#","user_count":{}"#, channel_info.users).as_bytes());
        }
        match channel_info.subscriptions {
            _ if !self.subscription_count => {}
            _ if channel_info.is_count_unknown => {
                out.extend_from_slice(br#","subscription_count":null"#);
            }
            count => {
                out.extend_from_slice(format!(r#","subscription_count":{count}"#).as_bytes());
            }
        }
        if self.cache && channel::is_cached(V::DATA, name) {
            push_cache(out, channel_info);
        }
        if self.position {
            positions::push_position(out, channel_info.position);
        }
    }
}

fn push_cache(out: &mut Vec<u8>, channel_info: &ChannelInfo) {
    let Some((keep, left_ms)) = &channel_info.kept else {
        return out.extend_from_slice(br#","cache":null"#);
    };
    out.extend_from_slice(br#","cache":{"event":"#);
    push_string(out, &keep.event);
    out.extend_from_slice(br#","data":"#);
    push_string(out, &keep.data);
    out.extend_from_slice(format!(r#","ttl":{}}}"#, left_ms.div_ceil(1000)).as_bytes());
}

/// A JSON object with the requested attributes that the channel can have.
pub(super) fn object<V: Vendor>(info: Info, name: &str, channel_info: &ChannelInfo) -> Vec<u8> {
    let mut members = Vec::new();
    info.push_applicable::<V>(&mut members, name, channel_info);
    let mut out = b"{".to_vec();
    out.extend_from_slice(members.get(1..).unwrap_or(&[]));
    out.push(b'}');
    out
}

/// Whether the channel is internal, such as a user's own channel. The API reports nothing about
/// internal channels.
fn is_hidden(name: &str) -> bool {
    name.starts_with('#')
}

pub(super) fn parameter<'q, V: Vendor>(text: &'q str, name: &str) -> Cow<'q, str> {
    let raw = query::get(text, name).unwrap_or("");
    query::decode(raw, V::DATA.signing.plus()).unwrap_or(Cow::Borrowed(raw))
}

/// `GET /channels`: lists the occupied channels.
pub(super) fn channels<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    query: &str,
) -> Answered {
    let prefix = parameter::<V>(query, "filter_by_prefix").into_owned();
    let info = match Info::read::<V>(&parameter::<V>(query, "info")) {
        Ok(info) => info,
        Err(unknown) => return refuse::<V>(&format!("info {unknown} is not known")),
    };
    if info.user_count && !prefix.starts_with("presence-") {
        return refuse::<V>("user_count needs filter_by_prefix to begin with presence-");
    }
    let of_one = match info {
        Info { cache: true, .. } => Some("cache"),
        Info { position: true, .. } => Some("position"),
        _ => info.detail(),
    };
    if let Some(attribute) = of_one {
        return refuse::<V>(&format!("info {attribute} is for one channel"));
    }
    let config = &context.env.apps.get(app).config;
    let (max, counts) = (config.limits.listed_channels, config.counts_in_reads);
    let asked =
        Query::Channels { app, prefix: prefix.into(), max, counts: info.subscription_count };
    context.effects.push(Effect::Query { query: asked, part: 0 });
    let info = if counts { info.with_counts() } else { info };
    Answered::Gathered(Box::new(move |answers| listed::<V>(answers, (max, counts), info)))
}

/// The reply with a list of channels, of which there are at most `max`. With `counts` each says
/// that it is occupied.
fn listed<V: Vendor>(
    answers: Vec<(u16, Answer)>,
    (max, counts): (usize, bool),
    info: Info,
) -> HttpReply {
    if answers.iter().any(|(_, answer)| matches!(answer, Answer::CountsUnknown)) {
        return counts_unknown::<V>();
    }
    let mut out = br#"{"channels":{"#.to_vec();
    let start = out.len();
    let lists = answers.into_iter().filter_map(|(_, answer)| match answer {
        Answer::Channels(list) => Some(list),
        _ => None,
    });
    for (count, (name, channel_info)) in lists.flatten().enumerate() {
        if count == max {
            let message = format!("more than {max} channels: filter_by_prefix must be longer");
            return json_error::<V>(400, &message);
        }
        if out.len() > start {
            out.push(b',');
        }
        push_string(&mut out, name.text());
        out.push(b':');
        let attributes = object::<V>(info, name.text(), &channel_info);
        match attributes.strip_suffix(b"}") {
            Some(members) if counts => {
                out.extend_from_slice(members);
                out.extend_from_slice(br#","occupied":true}"#);
            }
            _ => out.extend_from_slice(&attributes),
        }
    }
    out.extend_from_slice(b"}}");
    ok(out)
}

/// `GET /channels/{name}`: reports the attributes of one channel.
pub(super) fn channel<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    name: &str,
    query: &str,
) -> Answered {
    let info = match Info::read::<V>(&parameter::<V>(query, "info")) {
        Ok(info) => info,
        Err(unknown) => return refuse::<V>(&format!("info {unknown} is not known")),
    };
    if let Some(attribute) = info.inapplicable::<V>(name) {
        return refuse::<V>(&format!("this channel has no {attribute}"));
    }
    if let Some(problem) = bad_name::<V>(context, app, name) {
        return refuse::<V>(&problem);
    }
    if info.position && history_of(context.env, app, name).is_none() {
        return refuse::<V>("this channel has no position");
    }
    let counts = context.env.apps.get(app).config.counts_in_reads;
    let info = if counts { info.with_counts() } else { info };
    if info.detail().is_some() && !is_hidden(name) {
        return detailed::<V>(context, app, name, info);
    }
    let counts = info.subscription_count;
    let asked = Query::Channel { app, name: name.into(), counts, by_view: false };
    context.effects.push(Effect::Query { query: asked, part: 0 });
    let name = name.to_owned();
    Answered::Later(Box::new(move |answers| {
        let channel_info = channel_info_of(&answers, 0);
        if channel_info.is_count_unknown {
            return counts_unknown::<V>();
        }
        let occupied = channel_info.subscriptions > 0 && !is_hidden(&name);
        let mut out = format!(r#"{{"occupied":{occupied}"#).into_bytes();
        info.push_applicable::<V>(&mut out, &name, &channel_info);
        out.push(b'}');
        ok(out)
    }))
}

/// The attributes of a channel with those that all cores are asked for.
fn detailed<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    name: &str,
    info: Info,
) -> Answered {
    let link = match info.link {
        true => details::link_of(context.env, app, name),
        false => details::LinkDetail::default(),
    };
    // In a cluster no core knows the subscribers of other nodes.
    let by_view = context.env.config.cluster.is_some() && !link.is_empty();
    let counts = info.subscription_count;
    let query = Query::Channel { app, name: name.into(), counts, by_view };
    context.effects.push(Effect::Query { query, part: 0 });
    let query = Query::Usage { app, name: name.into() };
    context.effects.push(Effect::Query { query, part: 1 });
    let name = name.to_owned();
    Answered::Gathered(Box::new(move |answers| {
        let channel_info = channel_info_of(&answers, 0);
        if channel_info.is_count_unknown && by_view {
            return json_error::<V>(503, LINK_UNKNOWN);
        }
        if channel_info.is_count_unknown {
            return counts_unknown::<V>();
        }
        let usage = details::total(&answers);
        let counts = match by_view {
            true => link.counts_of_nodes(&channel_info),
            false => link.counts_of_cores(&usage),
        };
        let occupied = channel_info.subscriptions > 0;
        let mut out = format!(r#"{{"occupied":{occupied}"#).into_bytes();
        info.push_applicable::<V>(&mut out, &name, &channel_info);
        if info.history {
            details::push_history(&mut out, usage.history.as_ref());
        }
        if info.link {
            link.push(&mut out, &counts);
        }
        out.push(b'}');
        ok(out)
    }))
}

/// Why the names of a link are not answered with their numbers of subscribers.
const LINK_UNKNOWN: &str = "some nodes have not stated their subscribers by the names of links: \
                            they do not answer, or are of an earlier release; try again";

/// Why `name` is not a valid channel name, if the vendor checks names in queries.
pub(super) fn bad_name<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    name: &str,
) -> Option<String> {
    let max = V::settings(context.env, &context.env.apps.get(app).config).name_length;
    V::DATA.quirks.checks_names.then(|| channel::check(V::DATA, name, max).err()).flatten()
}

/// The channel information in the answer to query `part`; empty if there is no answer.
pub(super) fn channel_info_of(answers: &[(u16, Answer)], part: u16) -> ChannelInfo {
    let found = answers.iter().find_map(|(other, answer)| match answer {
        Answer::Channel(channel_info) if *other == part => Some(channel_info.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// `GET /channels/{name}/users`: lists the users of a presence channel.
pub(super) fn users<V: Vendor>(context: &mut DialectContext<'_>, app: u32, name: &str) -> Answered {
    if let Some(problem) = bad_name::<V>(context, app, name) {
        return refuse::<V>(&problem);
    }
    if channel::kind(V::DATA, name) != ChannelKind::Presence {
        return refuse::<V>("only presence channels know their users");
    }
    let asked = Query::Users { app, name: name.into() };
    context.effects.push(Effect::Query { query: asked, part: 0 });
    Answered::Later(Box::new(move |answers| {
        let mut out = br#"{"users":["#.to_vec();
        let users = answers.into_iter().find_map(|(_, answer)| match answer {
            Answer::Users(users) => Some(users),
            _ => None,
        });
        for (at, (id, _)) in users.unwrap_or_default().iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(br#"{"id":"#);
            V::push_user_id(&mut out, id);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        ok(out)
    }))
}

/// The reply to a read of numbers of subscriptions that not all nodes of the cluster have stated in
/// time.
fn counts_unknown<V: Vendor>() -> HttpReply {
    json_error::<V>(503, "some nodes have not stated their subscription_count; try again")
}

pub(super) fn refuse<V: Vendor>(message: &str) -> Answered {
    Answered::Now(json_error::<V>(400, message))
}

#[cfg(test)]
mod tests {
    use super::super::super::pusher::Pusher;
    use super::*;
    use crate::hub::StreamPosition;

    #[test]
    fn reads_info_and_what_does_not_apply() {
        let read = |list| Info::read::<Pusher>(list);
        let both = Info { user_count: true, subscription_count: true, ..Info::default() };
        assert_eq!(read(""), Ok(Info::default()));
        assert_eq!(read("user_count, subscription_count"), Ok(both));
        assert_eq!(read("user_count,nonsense"), Err("nonsense".to_owned()));
        let inapplicable =
            |list, name| read(list).ok().and_then(|info| info.inapplicable::<Pusher>(name));
        assert_eq!(inapplicable("user_count", "news"), Some("user_count"));
        assert_eq!(inapplicable("user_count", "presence-a"), None);
        assert_eq!(inapplicable("subscription_count", "presence-a"), None);
        assert_eq!(inapplicable("subscription_count", "news"), None);
        assert_eq!(inapplicable("cache", "news"), Some("cache"));
        assert_eq!(inapplicable("cache", "cache-a"), None);
        let channel_info = ChannelInfo { subscriptions: 3, users: 2, ..ChannelInfo::default() };
        let counts = br#"{"user_count":2,"subscription_count":3}"#;
        assert_eq!(object::<Pusher>(both, "presence-a", &channel_info), counts);
        assert_eq!(object::<Pusher>(both, "news", &channel_info), br#"{"subscription_count":3}"#);
        assert_eq!(object::<Pusher>(Info::default(), "news", &channel_info), b"{}");
        let unknown = ChannelInfo { is_count_unknown: true, ..channel_info.clone() };
        let counts = br#"{"user_count":2,"subscription_count":null}"#;
        assert_eq!(object::<Pusher>(both, "presence-a", &unknown), counts);
        let position = read("position").expect("it is known");
        let none = br#"{"stream_id":null,"serial":null}"#;
        assert_eq!(object::<Pusher>(position, "news", &channel_info), none);
        let at = StreamPosition { stream: 11, serial: 3 };
        let kept = ChannelInfo { position: Some(at), ..channel_info };
        let some = br#"{"stream_id":"000000000000000b","serial":3}"#;
        assert_eq!(object::<Pusher>(position, "news", &kept), some);
    }
}
