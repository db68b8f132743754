//! Several hubs with their mail carried by hand.

use super::*;
use crate::mem::Frozen;

struct World {
    hubs: Vec<Hub>,
    posts: Vec<Post>,
    /// (core, slot, text) in the order of delivery.
    heard: Vec<(u16, u32, String)>,
    told: Vec<(u16, u32)>,
}

fn slot(index: u32) -> Slot {
    Slot { index, generation: 1 }
}

impl World {
    fn new(cores: u16) -> World {
        let hasher = Hasher::new(1);
        World {
            hubs: (0..cores).map(|core| Hub::new(core, cores, hasher.clone())).collect(),
            posts: (0..cores).map(|_| Post::new(cores)).collect(),
            heard: Vec::new(),
            told: Vec::new(),
        }
    }

    fn join(&mut self, core: u16, index: u32, name: &str) -> Joined {
        let at = core as usize;
        self.hubs[at].join(slot(index), 0, name, 3, &mut self.posts[at])
    }

    fn leave(&mut self, core: u16, index: u32, name: &str) -> bool {
        let at = core as usize;
        self.hubs[at].leave(slot(index), 0, name, &mut self.posts[at])
    }

    fn publish(&mut self, core: u16, name: &str, text: &str) {
        let event = Event { frame: Frozen::new(text.as_bytes()), squeezed: None, except: None };
        let at = core as usize;
        if let Published::Ordered(_) =
            self.hubs[at].publish(0, name, &event, None, &mut self.posts[at])
        {
            let name = self.hubs[at].name(0, name);
            self.hear(core, &name, &event);
        }
    }

    fn hear(&mut self, core: u16, name: &ChannelName, event: &Event) {
        let text = String::from_utf8_lossy(&event.frame).into_owned();
        for subscriber in self.hubs[core as usize].subscribers(name) {
            self.heard.push((core, subscriber.slot, text.clone()));
        }
    }

    fn deliver_mail(&mut self) {
        while let Some((from, to)) = self.next_mail() {
            let lanes = self.posts[from as usize].to(to);
            if let Some(up) = lanes.up.pop_front() {
                let at = to as usize;
                if let Some((name, event)) = self.hubs[at].request(from, up, &mut self.posts[at]) {
                    self.hear(to, &name, &event);
                }
                continue;
            }
            match lanes.down.pop_front() {
                Some(Down::Interested { asked, name }) => {
                    let told = self.hubs[to as usize].interested(asked, &name);
                    self.told.extend(told.iter().map(|subscriber| (to, subscriber.slot)));
                }
                Some(Down::Deliver { name, event }) => self.hear(to, &name, &event),
                Some(Down::Published { .. }) | None => {}
            }
        }
    }

    fn next_mail(&mut self) -> Option<(u16, u16)> {
        let cores = self.hubs.len() as u16;
        (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))).find(|&(from, to)| {
            let lanes = self.posts[from as usize].to(to);
            !lanes.up.is_empty() || !lanes.down.is_empty()
        })
    }

    /// A name whose home is `core`.
    fn name_at(&self, core: u16) -> String {
        let hub = &self.hubs[0];
        (0..)
            .map(|n| format!("channel-{n}"))
            .find(|name| hub.home_of(hub.hasher.hash(0, name)) == core)
            .expect("one of many names has this home")
    }
}

#[test]
fn a_join_at_home_is_done_at_once_and_elsewhere_when_the_home_has_answered() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    assert_eq!(world.join(0, 1, &name), Joined::Now);
    assert_eq!(world.join(1, 1, &name), Joined::Later);
    assert_eq!(world.join(1, 2, &name), Joined::Later);
    world.publish(0, &name, "before");
    assert_eq!(world.heard, [(0, 1, "before".to_owned())]);
    world.deliver_mail();
    assert_eq!(world.told, [(1, 1), (1, 2)]);
    assert_eq!(world.join(1, 3, &name), Joined::Now);
    world.heard.clear();
    world.publish(1, &name, "after");
    world.deliver_mail();
    let mut hearers: Vec<_> = world.heard.iter().map(|(core, slot, _)| (*core, *slot)).collect();
    hearers.sort_unstable();
    assert_eq!(hearers, [(0, 1), (1, 1), (1, 2), (1, 3)]);
}

#[test]
fn a_second_join_changes_nothing_and_the_bound_on_subscriptions_holds() {
    let mut world = World::new(1);
    assert_eq!(world.join(0, 1, "a"), Joined::Now);
    assert_eq!(world.join(0, 1, "a"), Joined::Already);
    assert_eq!(world.join(0, 1, "b"), Joined::Now);
    assert_eq!(world.join(0, 1, "c"), Joined::Now);
    assert_eq!(world.join(0, 1, "d"), Joined::Full);
    assert!(world.leave(0, 1, "a"));
    assert!(!world.leave(0, 1, "a"));
    assert_eq!(world.join(0, 1, "d"), Joined::Now);
    world.publish(0, "a", "x");
    assert!(world.heard.is_empty());
}

#[test]
fn an_answer_to_an_older_question_subscribes_nobody() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    assert_eq!(world.join(1, 1, &name), Joined::Later);
    assert!(world.leave(1, 1, &name));
    assert_eq!(world.join(1, 1, &name), Joined::Later);
    // The home has seen: interest, forget, interest. A publish between the first answer and the
    // second must not be promised.
    let lanes = world.posts[1].to(0);
    assert_eq!(lanes.up.len(), 3);
    let first = lanes.up.pop_front().expect("the first question");
    world.hubs[0].request(1, first, &mut world.posts[0]);
    let Some(Down::Interested { asked, name: asked_name }) = world.posts[0].to(1).down.pop_front()
    else {
        panic!("the home answers");
    };
    assert!(world.hubs[1].interested(asked, &asked_name).is_empty());
    world.deliver_mail();
    assert_eq!(world.told, [(1, 1)]);
}

#[test]
fn nothing_is_left_when_all_have_gone() {
    let mut world = World::new(3);
    for core in 0..3 {
        for index in 0..20 {
            for name in ["a", "b", "c"] {
                world.join(core, index, name);
            }
        }
    }
    world.deliver_mail();
    for core in 0..3 {
        for index in (0..20).rev() {
            let at = core as usize;
            assert_eq!(world.hubs[at].leave_all(slot(index), &mut world.posts[at]), 3);
        }
    }
    world.deliver_mail();
    for hub in &world.hubs {
        assert_eq!(hub.channel_count(), 0);
    }
}
