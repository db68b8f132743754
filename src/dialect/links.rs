//! Linked channels: maps the names of a view's channels to those of its source, and back.
//!
//! There is one channel, the source's. A subscriber through a view joins it and differs only in the
//! form of the events that it gets, so this table is all that knows of views by name. The numbers
//! of views stay the same over a reload of the configuration, because subscriptions contain them.

mod index;

use crate::config::{Config, LinkEnd, LinkTarget, NameTemplate, may_lead_to, own_state};
use crate::crypto::sha256;
use index::TemplateIndex;
use std::collections::HashMap;
use std::sync::Arc;

/// The sources and views of all links.
#[derive(Debug, Default)]
pub struct Links {
    ends: Vec<End>,
    /// The keys of views, by their numbers.
    keys: Arc<[u64]>,
    /// Where names lead to, by application number.
    by_app: HashMap<u32, AppLinks>,
}

/// The sources and views of one application, by their positions in the list of all.
#[derive(Debug, Default)]
struct AppLinks {
    /// The views of the present configuration.
    views: TemplateIndex,
    /// All views, also those of earlier configurations.
    past_views: TemplateIndex,
    /// All sources, but only one of those with the same names.
    sources: TemplateIndex,
}

/// A source or a view. A view's position in the list is its number; the first position is a source,
/// so that no view has number 0.
#[derive(Clone, Debug)]
struct End {
    config: LinkEnd,
    app: u32,
    template: NameTemplate,
    /// The maximum length of a name, in bytes.
    max_length: usize,
    /// The position of the source; that of the end itself if it is one.
    source: u16,
    /// Whether the present configuration has it.
    is_present: bool,
}

/// The application number of a source or view, the template of its names in the hub, and their
/// maximum length in bytes. `None` if its application or route does not exist, which the check of
/// the configuration excludes.
pub(super) type LinkPlace = Option<(u32, NameTemplate, usize)>;

/// A channel of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The number of the source's application.
    pub app: u32,
    /// The name of the source's channel.
    pub name: String,
    /// The number of the view.
    pub view: u16,
    /// Whether events may be published through the view.
    pub publish: bool,
}

/// One of the names of a linked channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedName<'l> {
    /// The number of the view; 0 for the source.
    pub view: u16,
    /// The source or view in the configuration.
    pub end: &'l LinkEnd,
    /// The number of its application.
    pub app: u32,
    /// The name as the configuration writes it, with the texts of this channel.
    pub name: String,
}

impl Links {
    /// The links of a new configuration, which has been checked. Sources and views that it does not
    /// have any more keep their numbers, for the subscriptions that exist, but no name leads to
    /// them. `place` says where the channels of a source or view are. `None` if the process has had
    /// more sources and views, over all reloads, than there are numbers.
    pub(super) fn reloaded(
        &self,
        config: &Config,
        place: &impl Fn(&LinkEnd) -> LinkPlace,
    ) -> Option<Links> {
        let mut links = Links { ends: self.ends.clone(), ..Links::default() };
        links.ends.iter_mut().for_each(|end| end.is_present = false);
        for link in &config.links {
            let source = links.add(&link.source, None, place(&link.source)?)?;
            for view in &link.views {
                links.add(view, Some(source), place(view)?)?;
            }
        }
        links.index();
        Some(links)
    }

    fn index(&mut self) {
        let mut by_app: HashMap<u32, Vec<(u16, &End)>> = HashMap::new();
        for (at, end) in self.ends.iter().enumerate() {
            by_app.entry(end.app).or_default().push((at as u16, end));
        }
        let indexed = by_app.into_iter().map(|(app, ends)| (app, AppLinks::new(&ends)));
        self.by_app = indexed.collect();
        self.keys = self.ends.iter().map(|end| self.key_of(end)).collect();
    }

    /// The key of a source or view: a digest of what the configuration says of its names. Whatever
    /// placeholders are called, the keys of different views of one source are different.
    fn key_of(&self, end: &End) -> u64 {
        let (_, _, text) = self.ends[usize::from(end.source)].config.target();
        let mut placeholders = end.template.placeholders();
        placeholders.sort_by_key(|name| text.find(&format!("{{{name}}}")));
        let numbers: Vec<String> = (0..placeholders.len()).map(|at| format!("{{{at}}}")).collect();
        let captures: Vec<(&str, &str)> =
            placeholders.into_iter().zip(numbers.iter().map(String::as_str)).collect();
        let name = end.config.template().fill(&captures);
        let (target, kind, _) = end.config.target();
        let app = if let LinkTarget::App(id) = target { id } else { "" };
        let digest = sha256(&[kind.as_bytes(), b"\0", app.as_bytes(), b"\0", name.as_bytes()]);
        u64::from_le_bytes(std::array::from_fn(|at| digest[at]))
    }

    /// The keys of views, by their numbers. The key of a view is the same on all nodes of a cluster
    /// whose configurations have a view of these names.
    pub fn keys(&self) -> Arc<[u64]> {
        self.keys.clone()
    }

    /// The key of a view.
    pub(super) fn key(&self, view: u16) -> Option<u64> {
        self.keys.get(usize::from(view)).copied()
    }

    /// Adds a source or a view, or finds it among those that exist. `None` if there is no number
    /// for it.
    fn add(
        &mut self,
        end: &LinkEnd,
        source: Option<u16>,
        (app, template, max_length): (u32, NameTemplate, usize),
    ) -> Option<u16> {
        let number = u16::try_from(self.ends.len()).ok()?;
        let is_same = |(at, other): (usize, &End)| {
            let same_source = other.source == source.unwrap_or(at as u16);
            same_source && (&other.config, other.app, &other.template) == (end, app, &template)
        };
        let known = self.ends.iter().enumerate().position(is_same);
        if let Some(at) = known {
            self.ends[at].is_present = true;
            self.ends[at].max_length = max_length;
            return Some(at as u16);
        }
        let (config, source) = (end.clone(), source.unwrap_or(number));
        self.ends.push(End { config, app, template, max_length, source, is_present: true });
        Some(number)
    }

    /// Whether there are no links, and never were.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn at(&self, number: u16) -> Option<&End> {
        self.ends.get(usize::from(number))
    }

    /// The source's channel, if `name` is a channel of a view.
    pub fn resolve(&self, app: u32, name: &str) -> Option<Resolved> {
        let mut views = self.by_app.get(&app)?.views.candidates(name);
        views.find_map(|view| self.resolve_in(view, self.at(view)?, name))
    }

    /// The channels of all sources to which `name` leads or has led, also by links that the
    /// configuration does not have any more.
    pub fn resolve_past(&self, app: u32, name: &str) -> Vec<Resolved> {
        let Some(links) = self.by_app.get(&app) else { return Vec::new() };
        let mut views: Vec<u16> = links.past_views.candidates(name).collect();
        views.sort_unstable();
        let resolve = |view| self.resolve_in(view, self.at(view)?, name);
        views.into_iter().filter_map(resolve).collect()
    }

    fn resolve_in(&self, view: u16, end: &End, name: &str) -> Option<Resolved> {
        let source = &self.ends[usize::from(end.source)];
        let is_app = matches!(end.config.target().0, LinkTarget::App(_));
        if end.source == view || is_app && own_state(name).is_some() {
            return None;
        }
        let captures = end.template.capture(name)?;
        let mapped = source.template.fill(&captures);
        let is_accepted = match source.config.target().0 {
            LinkTarget::App(_) => may_lead_to(&source.template, &mapped, source.max_length),
            _ => mapped.len() <= source.max_length,
        };
        if !is_accepted {
            return None;
        }
        // A name that the source would read differently belongs to no channel of the link.
        let mut back = source.template.capture(&mapped)?;
        let mut captures = captures;
        back.sort_unstable();
        captures.sort_unstable();
        let found =
            Resolved { app: source.app, view, publish: end.config.publish, name: mapped.clone() };
        (back == captures).then_some(found)
    }

    /// Whether events of the channel may be published under this name: it is not a channel of a
    /// view, or the view may publish.
    pub fn may_publish(&self, app: u32, name: &str) -> bool {
        self.is_empty() || self.resolve(app, name).is_none_or(|resolved| resolved.publish)
    }

    /// Whether the channel is the source of views, so that its events need further forms.
    pub fn is_source(&self, app: u32, name: &str) -> bool {
        let Some(links) = self.by_app.get(&app) else { return false };
        let mut sources = links.sources.candidates(name).filter_map(|at| self.at(at));
        sources.any(|end| end.template.capture(name).is_some())
    }

    /// The name by which the subscribers of a view know the source's channel `name`.
    pub fn name_in(&self, view: u16, name: &str) -> Option<String> {
        let end = self.ends.get(usize::from(view))?;
        let captures = self.ends[usize::from(end.source)].template.capture(name)?;
        Some(end.template.fill(&captures))
    }

    /// The names of a channel, which `name` is one of: first that of its source, then those of the
    /// views of the present configuration. Empty if the channel is not linked. Visits all links.
    pub fn names_of(&self, app: u32, name: &str) -> Vec<LinkedName<'_>> {
        let (app, name) = match self.resolve(app, name) {
            Some(resolved) => (resolved.app, resolved.name),
            None => (app, name.to_owned()),
        };
        let is_source = |(at, end): &(u16, &End)| {
            let is_present = end.is_present && end.source == *at && end.app == app;
            is_present && end.template.capture(&name).is_some()
        };
        let numbered = || (0..).zip(&self.ends);
        let Some((source, end)) = numbered().find(is_source) else { return Vec::new() };
        let captures = end.template.capture(&name).unwrap_or_default();
        let linked_name = |(at, end): (u16, &'_ End)| {
            let (config, view) =
                (&self.ends[usize::from(at)].config, if at == source { 0 } else { at });
            LinkedName { view, end: config, app: end.app, name: config.template().fill(&captures) }
        };
        let views =
            numbered().filter(|(at, end)| *at != source && end.is_present && end.source == source);
        std::iter::once((source, end)).chain(views).map(linked_name).collect()
    }

    /// The application number of a view, and the name of events that have none.
    pub(super) fn view(&self, view: u16) -> Option<(u32, &str)> {
        self.ends.get(usize::from(view)).map(|end| (end.app, end.config.event.as_str()))
    }

    /// The application number of a view's source, and the name of events that have none.
    pub(super) fn source_of(&self, view: u16) -> Option<(u32, &str)> {
        self.ends.get(usize::from(view)).and_then(|end| self.view(end.source))
    }
}

impl AppLinks {
    /// The indexes of an application's sources and views.
    fn new(ends: &[(u16, &End)]) -> AppLinks {
        let (sources, views): (Vec<_>, Vec<_>) =
            ends.iter().partition(|(at, end)| end.source == *at);
        let mut by_names = HashMap::new();
        for (at, end) in sources {
            by_names.entry(&end.template).or_insert(at);
        }
        let present = views.iter().filter(|(_, end)| end.is_present);
        AppLinks {
            views: TemplateIndex::new(present.map(|(at, end)| (*at, &end.template))),
            past_views: TemplateIndex::new(views.iter().map(|(at, end)| (*at, &end.template))),
            sources: TemplateIndex::new(by_names.into_iter().map(|(it, at)| (at, it))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::index::COMPARISONS;
    use super::*;
    use crate::config::ChannelLink;

    /// Applications have the number before their id.
    fn place(end: &LinkEnd) -> LinkPlace {
        Some((end.app.parse::<u32>().ok()? - 1, end.template(), 20))
    }

    fn end(app: &str, channel: &str) -> LinkEnd {
        LinkEnd { app: app.to_owned(), channel: channel.to_owned(), ..LinkEnd::default() }
    }

    fn config(views: &[(&str, &str)]) -> Config {
        let mut config = Config::demo();
        for id in ["2", "3"] {
            let mut app = config.apps[0].clone();
            (app.id, app.key) = (id.to_owned(), format!("key-{id}"));
            config.apps.push(app);
        }
        let views = views.iter().map(|(app, channel)| end(app, channel)).collect();
        config.links = vec![ChannelLink { source: end("1", "q-{a}-{b}"), views }];
        config
    }

    #[test]
    fn links_map_names_both_ways() {
        let config = config(&[("2", "{b}.{a}.x"), ("3", "z{a}-{b}")]);
        let links = Links::default().reloaded(&config, &place).unwrap();
        let found = links.resolve(1, "2.1.x").expect("a view");
        assert_eq!((found.app, found.name.as_str(), found.view), (0, "q-1-2", 1));
        assert_eq!(links.name_in(1, "q-1-2").as_deref(), Some("2.1.x"));
        assert_eq!(links.name_in(2, "q-1-2").as_deref(), Some("z1-2"));
        // The source would read q-1-2-3 as a = 1, b = 2-3.
        assert_eq!(links.resolve(1, "3.1-2.x"), None);
        assert_eq!(links.resolve(2, "z1-2-3").map(|it| it.name).as_deref(), Some("q-1-2-3"));
        assert_eq!(links.resolve(1, "other"), None);
        assert_eq!(links.resolve(2, "zebra-2").map(|it| it.name).as_deref(), Some("q-ebra-2"));
        assert_eq!(links.resolve(0, "q-1-2"), None, "the source is no view");
        assert!(links.is_source(0, "q-1-2") && !links.is_source(0, "q-1"));
        assert!(!links.is_source(1, "2.1.x"));
        assert!(links.may_publish(0, "q-1-2") && links.may_publish(1, "other"));
        assert!(!links.may_publish(1, "2.1.x"));
    }

    #[test]
    fn links_list_the_names_of_a_channel() {
        let before = config(&[("2", "{b}.{a}.x"), ("3", "z{a}-{b}")]);
        let links = Links::default().reloaded(&before, &place).unwrap();
        let names = |links: &Links, app, name: &str| -> Vec<(u16, u32, String)> {
            let names = links.names_of(app, name).into_iter();
            names.map(|it| (it.view, it.app, it.name)).collect()
        };
        let all = [(0, 0, "q-1-2"), (1, 1, "2.1.x"), (2, 2, "z1-2")];
        let all: Vec<_> = all.map(|(view, app, name)| (view, app, name.to_owned())).into();
        for (app, name) in [(0, "q-1-2"), (1, "2.1.x"), (2, "z1-2")] {
            assert_eq!(names(&links, app, name), all, "{name}");
        }
        for (app, name) in [(0, "q-1"), (1, "q-1-2"), (2, "other")] {
            assert_eq!(names(&links, app, name), [], "{name}");
        }
        let links = links.reloaded(&config(&[("3", "z{a}-{b}")]), &place).unwrap();
        assert_eq!(names(&links, 0, "q-1-2"), [all[0].clone(), all[2].clone()]);
        assert_eq!(names(&links, 1, "2.1.x"), []);
    }

    #[test]
    fn links_have_keys_that_are_equal_on_all_nodes() {
        let keys = |views: &[(&str, &str)], source: &str| {
            let mut config = config(views);
            config.links[0].source = end("1", source);
            let links = Links::default().reloaded(&config, &place).unwrap();
            links.keys()[1..].to_vec()
        };
        let [one, two] = keys(&[("2", "{b}.{a}.x"), ("3", "z{a}-{b}")], "q-{a}-{b}")[..] else {
            panic!("two views")
        };
        assert_ne!(one, two);
        // Neither the order of the views nor the names of placeholders matter.
        assert_eq!(keys(&[("3", "z{y}-{x}"), ("2", "{x}.{y}.x")], "q-{y}-{x}"), [two, one]);
        let others = keys(&[("3", "{b}.{a}.x"), ("2", "{a}.{b}.x")], "q-{a}-{b}");
        assert!(!others.contains(&one) && !others.contains(&two), "other views");
    }

    #[test]
    fn links_lead_only_to_channels_of_the_written_kind() {
        let mut config = config(&[("2", "{a}.{b}")]);
        config.links[0].source = end("1", "{a}-{b}");
        let links = Links::default().reloaded(&config, &place).unwrap();
        for (name, is_view) in [
            ("some.thing", true),
            ("private.thing", false),
            ("presence.thing", false),
            ("cache.thing", false),
            ("privateer.thing", true),
            ("some.123456789012345", true),
            ("some.1234567890123456", false),
            ("some.th/ing", false),
        ] {
            assert_eq!(links.resolve(1, name).is_some(), is_view, "{name}");
        }
        config.links[0].source = end("1", "private-{a}-{b}");
        let links = Links::default().reloaded(&config, &place).unwrap();
        assert!(links.resolve(1, "some.thing").is_some());
        assert!(links.resolve(1, "cache.thing").is_none());
    }

    #[test]
    fn links_leave_out_channels_with_state_of_their_own() {
        let config = config(&[("2", "{a}-{b}"), ("3", "private-{a}-{b}")]);
        let links = Links::default().reloaded(&config, &place).unwrap();
        for (app, name, is_view) in [
            (1, "some-thing", true),
            (1, "presence-thing", false),
            (1, "cache-thing", false),
            (2, "private-some-thing", true),
            (2, "private-cache-thing", false),
            (2, "private-encrypted-thing", false),
        ] {
            assert_eq!(links.resolve(app, name).is_some(), is_view, "{name}");
        }
    }

    #[test]
    fn links_keep_the_numbers_of_views_over_a_reload() {
        let before = config(&[("2", "{b}.{a}.x"), ("3", "z{a}-{b}")]);
        let links = Links::default().reloaded(&before, &place).unwrap();
        let after = config(&[("3", "z{a}-{b}"), ("2", "y{a}.{b}")]);
        let links = links.reloaded(&after, &place).unwrap();
        assert_eq!(links.resolve(2, "z1-2").map(|it| it.view), Some(2));
        assert_eq!(links.resolve(1, "2.1.x"), None, "the view was removed");
        let past = links.resolve_past(1, "2.1.x");
        assert_eq!(past.iter().map(|it| (it.view, &*it.name)).collect::<Vec<_>>(), [(1, "q-1-2")]);
        assert_eq!(links.name_in(1, "q-1-2").as_deref(), Some("2.1.x"), "it has subscribers");
        assert_eq!(links.resolve(1, "y1.2").map(|it| it.view), Some(3));
        let links = links.reloaded(&Config::demo(), &place).unwrap();
        assert!(!links.is_empty() && links.is_source(0, "q-1-2"));
        assert_eq!(links.resolve(1, "y1.2"), None);
    }

    #[test]
    fn links_are_refused_when_the_numbers_are_used_up() {
        let spare = config(&[]).links[0].source.clone();
        let one = End {
            template: spare.template(),
            config: spare,
            app: 9,
            max_length: 20,
            source: 0,
            is_present: false,
        };
        for (used, fits) in [(usize::from(u16::MAX) - 1, true), (usize::from(u16::MAX), false)] {
            let links = Links { ends: vec![one.clone(); used], ..Links::default() };
            let next = config(&[("2", "{b}.{a}.x")]);
            assert_eq!(links.reloaded(&next, &place).is_some(), fits, "{used}");
        }
    }

    /// The comparisons that `look` makes with entries of the indexes.
    fn comparisons<T>(look: impl FnOnce() -> T) -> usize {
        COMPARISONS.set(0);
        look();
        COMPARISONS.get()
    }

    #[test]
    fn links_are_looked_up_by_few_comparisons() {
        let mut config = config(&[("2", "unused")]);
        // The most that a configuration may have, as names that begin alike or end alike, and
        // with literals that are beginnings of others.
        let all = 4096 / 2;
        config.links = (0..all)
            .map(|n| {
                let (source, view) = match n % 4 {
                    0 => (format!("{{a}}-of-{n}"), format!("{{a}}.of.{n}")),
                    1 => (format!("q{n}-{{a}}"), format!("r.{n}.{{a}}")),
                    2 => (format!("{}{{a}}+{n}", "s".repeat(n / 16 + 1)), format!("name-{n}")),
                    _ => (format!("fixed-{n}"), format!("fixed.{n}")),
                };
                ChannelLink { source: end("1", &source), views: vec![end("2", &view)] }
            })
            .collect();
        let links = Links::default().reloaded(&config, &place).unwrap();
        assert_eq!(links.ends.iter().filter(|end| end.is_present).count(), 2 * all);
        for n in (0..all).step_by(4) {
            let names = [format!("one.of.{n}"), format!("r.{}.two", n + 1)];
            for name in names.iter().map(String::as_str).chain(["other", "", "r.", "name-2x"]) {
                let count = comparisons(|| links.resolve(1, name));
                assert!(count <= 40, "{name}: {count} comparisons");
            }
            assert!(names.iter().all(|name| links.resolve(1, name).is_some()), "{names:?}");
            let names = [format!("one-of-{n}"), format!("q{}-two", n + 1), "sssst+2".to_owned()];
            for name in names.iter().map(String::as_str).chain(["other", "ssssssssssssssss"]) {
                let count = comparisons(|| links.is_source(0, name));
                // Each literal that the name begins with has a table of literals at the end.
                let max = if name.starts_with("ssss") { 100 } else { 40 };
                assert!(count <= max, "{name}: {count} comparisons");
            }
            assert!(names.iter().all(|name| links.is_source(0, name)), "{names:?}");
            let fixed = format!("fixed-{}", n + 3);
            assert!(links.is_source(0, &fixed) && !links.is_source(1, &fixed));
        }
        // An application without links costs one look-up.
        assert_eq!(comparisons(|| (links.resolve(2, "q1-x"), links.is_source(2, "q1-x"))), 0);
    }
}
