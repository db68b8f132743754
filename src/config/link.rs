//! Linked channels: one channel that clients of several protocols or applications share.

use super::app::AppConfig;
use super::reflect::Grouping;
use super::route::{EndpointKind, Route};
use super::template::NameTemplate;
use crate::settings::error::{Error, Problem};
use crate::settings::pattern::Pattern;
use crate::settings::section::section;

/// The maximum number of sources and views of a configuration.
const MAX_ENDS: usize = 4096;

/// Beginnings of channel names whose subscribers expect what a view does not have: members, a
/// cached event, or a shared secret.
const OWN_STATE: [&str; 6] =
    ["presence-", "cache-", "private-cache-", "presence-cache-", "private-encrypted-", "#"];

section! {
    /// Linked channels. A link has a source and one or more views, by which clients of other
    /// protocols or applications share the source's channels. An event that is published once
    /// reaches the subscribers of the source and of all views, in one order.
    pub struct ChannelLink {
        /// The channels that are shared. Their application or protocol decides about presence,
        /// cached events and history.
        pub source: LinkEnd = LinkEnd::default();
        /// Other names for the same channels. Each has the placeholders of the source.
        pub views: Vec<LinkEnd> = Vec::new();
    }
}

section! {
    /// A source or a view of a link: one of `app` with `channel`, `zenith`, `reflect` and `path`. A
    /// placeholder such as {symbol} stands for at least one character.
    pub struct LinkEnd {
        /// The id of an application, for `channel`.
        pub app: String = String::new();
        /// The name of the application's channels: "quotes-{symbol}". A view may not be a presence,
        /// cache or encrypted channel.
        pub channel: String = String::new();
        /// Controller and topic of Zenith, with a slash between them: "Prices/{symbol}". The
        /// section `zenith` says who may subscribe.
        pub zenith: String = String::new();
        /// The path of groups of exactly one route with the endpoint "reflect" and `group =
        /// "path"`: "/rooms/{id}".
        pub reflect: String = String::new();
        /// The path of plain WebSockets of a route with the endpoint "channel": "/quotes/{symbol}".
        /// Only for a view.
        pub path: String = String::new();
        /// The name of events that come from where events have no names: of a view, for its
        /// subscribers; of the source, for what is published through views. Other sources and views
        /// than those of `channel` have no use for it.
        pub event: String = "message".to_owned();
        /// Whether events may be published through this view. Events that are published through the
        /// source need no permission.
        pub publish: bool = false;
    }
}

/// Where the channels of a source or view are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget<'l> {
    /// Channels of the application with this id.
    App(&'l str),
    /// Topics of Zenith.
    Zenith,
    /// Groups of a route with the endpoint `reflect`.
    Reflect,
    /// Plain WebSockets.
    Path,
}

impl LinkEnd {
    /// Where the channels are, the key of their names, and the names.
    pub fn target(&self) -> (LinkTarget<'_>, &'static str, &str) {
        match self {
            LinkEnd { zenith, .. } if !zenith.is_empty() => (LinkTarget::Zenith, "zenith", zenith),
            LinkEnd { reflect, .. } if !reflect.is_empty() => {
                (LinkTarget::Reflect, "reflect", reflect)
            }
            LinkEnd { path, .. } if !path.is_empty() => (LinkTarget::Path, "path", path),
            _ => (LinkTarget::App(&self.app), "channel", &self.channel),
        }
    }

    /// The template of the names. The configuration has been checked.
    pub fn template(&self) -> NameTemplate {
        let (_, _, text) = self.target();
        NameTemplate::parse(text).unwrap_or_default()
    }
}

/// What the name of an application's channel begins with if its subscribers expect what a view does
/// not have. Such a name belongs to no view, even if a template matches it.
pub fn own_state(name: &str) -> Option<&'static str> {
    OWN_STATE.into_iter().find(|own| name.starts_with(own))
}

/// Whether a name that a view maps to an application's channel `mapped` may lead there: the name is
/// one that the application accepts, of at most `max` bytes, and the operator has written whatever
/// makes the channel private or gives it state.
pub fn may_lead_to(source: &NameTemplate, mapped: &str, max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=@,.;".contains(&byte);
    let mut kinds = OWN_STATE.iter().chain(["private-"].iter());
    mapped.len() <= max
        && mapped.bytes().all(allowed)
        && kinds.all(|kind| !mapped.starts_with(kind) || source.prefix().starts_with(kind))
}

/// The routes whose groups have paths that the pattern of `reflect` can match.
pub fn reflect_routes<'r>(
    routes: &'r [Route],
    pattern: &'r Pattern,
) -> impl Iterator<Item = &'r Route> {
    routes.iter().filter(move |route| {
        let is_group = route.endpoint == EndpointKind::Reflect;
        is_group && route.reflect.group == Grouping::Path && can_match(route, pattern)
    })
}

fn can_match(route: &Route, pattern: &Pattern) -> bool {
    let overlaps = |path: &Pattern| path.is_empty() || path.overlaps(pattern);
    route.when.is_empty() || route.when.iter().any(|when| overlaps(&when.path))
}

/// What the links may refer to.
pub(super) struct LinkContext<'c> {
    pub(super) apps: &'c [AppConfig],
    pub(super) routes: &'c [Route],
    pub(super) has_zenith: bool,
}

/// Refuses links without a meaning, and links that meet: the same channel in two of them.
pub(super) fn check(links: &[ChannelLink], context: &LinkContext<'_>) -> Result<(), Error> {
    let mut ends: Vec<(&LinkEnd, Pattern)> = Vec::new();
    for (index, link) in links.iter().enumerate() {
        check_link(link, context, &mut ends)
            .map_err(|error| error.under(&format!("links[{index}]")))?;
    }
    Ok(())
}

fn check_link<'l>(
    link: &'l ChannelLink,
    context: &LinkContext<'_>,
    ends: &mut Vec<(&'l LinkEnd, Pattern)>,
) -> Result<(), Error> {
    let source = check_end(&link.source, context).map_err(|error| error.under("source"))?;
    if link.source.target().0 == LinkTarget::Path {
        return Err(other("path", "a plain path is no channel by itself; it can only be a view")
            .under("source"));
    }
    if link.source.publish {
        let problem = "only a view has this key; whoever may publish on the source still may";
        return Err(other("publish", problem).under("source"));
    }
    add(&link.source, &source, ends).map_err(|error| error.under("source"))?;
    if link.views.is_empty() {
        return Err(Error::keyed("views", Problem::Empty));
    }
    check_targets(link)?;
    for (index, view) in link.views.iter().enumerate() {
        check_view(view, &source, context, ends)
            .map_err(|error| error.under(&format!("views[{index}]")))?;
    }
    Ok(())
}

fn check_view<'l>(
    view: &'l LinkEnd,
    source: &NameTemplate,
    context: &LinkContext<'_>,
    ends: &mut Vec<(&'l LinkEnd, Pattern)>,
) -> Result<(), Error> {
    let template = check_end(view, context)?;
    let (target, key, _) = view.target();
    if template.placeholders() != source.placeholders() {
        let wanted = source.placeholders().join(", ");
        let problem = format!("the placeholders must be those of the source: {wanted}");
        return Err(other(key, problem.trim_end_matches([':', ' '])));
    }
    if matches!(target, LinkTarget::App(_))
        && let Some(own) = own_state(template.prefix())
    {
        let problem = format!("a view cannot be a channel whose name begins with {own}");
        return Err(other(key, &problem));
    }
    add(view, &template, ends)
}

/// Refuses a second name in the same application or in Zenith: a connection could then subscribe to
/// the same channel twice.
fn check_targets(link: &ChannelLink) -> Result<(), Error> {
    let mut taken = vec![link.source.target().0];
    for (index, view) in link.views.iter().enumerate() {
        let (target, key, _) = view.target();
        let is_single = matches!(target, LinkTarget::App(_) | LinkTarget::Zenith);
        if is_single && taken.contains(&target) {
            let problem = "the link has a name in this application or protocol already";
            return Err(other(key, problem).under(&format!("views[{index}]")));
        }
        taken.push(target);
    }
    Ok(())
}

/// Checks a source or view by itself.
fn check_end(end: &LinkEnd, context: &LinkContext<'_>) -> Result<NameTemplate, Error> {
    let texts = [&end.channel, &end.zenith, &end.reflect, &end.path];
    if texts.iter().filter(|text| !text.is_empty()).count() != 1 {
        let problem = "exactly one of `channel`, `zenith`, `reflect` and `path` is required";
        return Err(other("", problem));
    }
    let (target, key, text) = end.target();
    if !end.app.is_empty() && !matches!(target, LinkTarget::App(_)) {
        return Err(other("app", "only `channel` belongs to an application"));
    }
    if end.event.is_empty() {
        return Err(Error::keyed("event", Problem::Empty));
    }
    let template = NameTemplate::parse(text).map_err(|problem| other(key, &problem))?;
    let pattern = template.pattern();
    match target {
        LinkTarget::App(id) if context.apps.iter().all(|app| app.id != id) => {
            return Err(other("app", &format!("no application has the id `{id}`")));
        }
        LinkTarget::Zenith if !context.has_zenith => {
            return Err(other(key, "there is no section `zenith`"));
        }
        LinkTarget::Zenith if !is_topic(text) => {
            return Err(other(key, "expected a controller, a slash and a topic"));
        }
        LinkTarget::Reflect if reflect_routes(context.routes, &pattern).count() != 1 => {
            let problem = "expected the path of exactly one route with `endpoint = \"reflect\"` \
                           and `group = \"path\"`";
            return Err(other(key, problem));
        }
        LinkTarget::Path if !context.routes.iter().any(|route| is_channel(route, &pattern)) => {
            return Err(other(key, "no route with `endpoint = \"channel\"` has such a path"));
        }
        LinkTarget::Reflect | LinkTarget::Path if !text.starts_with('/') => {
            return Err(other(key, "a path begins with a slash"));
        }
        _ => {}
    }
    Ok(template)
}

/// Whether the text has a controller without a placeholder, a slash and a topic.
fn is_topic(text: &str) -> bool {
    let parts = text.split_once('/');
    parts.is_some_and(|(controller, topic)| {
        !controller.is_empty() && !controller.contains('{') && !topic.is_empty()
    })
}

fn is_channel(route: &Route, pattern: &Pattern) -> bool {
    route.endpoint == EndpointKind::Channel && can_match(route, pattern)
}

/// Adds a source or view to those that were checked, unless a channel could be in both.
fn add<'l>(
    end: &'l LinkEnd,
    template: &NameTemplate,
    ends: &mut Vec<(&'l LinkEnd, Pattern)>,
) -> Result<(), Error> {
    let (target, key, _) = end.target();
    let pattern = template.pattern();
    let clash =
        ends.iter().find(|(other, taken)| other.target().0 == target && taken.overlaps(&pattern));
    if let Some((taken, _)) = clash {
        let problem = format!("a channel could also be in `{}` of the links", taken.target().2);
        return Err(other(key, &problem));
    }
    if ends.len() == MAX_ENDS {
        return Err(other(key, &format!("the links have more than {MAX_ENDS} sources and views")));
    }
    ends.push((end, pattern));
    Ok(())
}

fn other(key: &str, problem: &str) -> Error {
    Error::keyed(key, Problem::Other(problem.to_owned()))
}
