//! Numbers of subscribers that nodes state because somebody reads them.

use super::*;

type State = Statement<crate::dialect::DialectMessage>;

/// Both cores of a node say that they have stated their numbers.
fn confirm(world: &mut World) {
    for core in [0, 1] {
        world.state("", State::Counting(Some((core, 2))));
    }
}

fn rest_all(worlds: &mut [&mut World]) {
    for _ in 0..3 {
        worlds.iter_mut().for_each(|world| world.rest());
    }
}

fn of_all_cores(words: &str) -> Vec<String> {
    (0..2).map(|core| format!("{core} {words}")).collect()
}

#[test]
fn cluster_node_counts_are_whole_when_the_cores_of_all_nodes_have_stated_theirs() {
    let log = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    rest_all(&mut [&mut first, &mut second]);
    for world in [&mut first, &mut second] {
        drop(world.taken());
    }
    first.state("", State::Counting(None));
    rest_all(&mut [&mut first, &mut second]);
    for world in [&mut first, &mut second] {
        assert_eq!(world.taken(), of_all_cores("Counting { app: 0 }"));
    }
    confirm(&mut first);
    second.state("", State::Counting(Some((1, 2))));
    rest_all(&mut [&mut first, &mut second]);
    assert_eq!([first.taken(), second.taken()], [(); 2].map(|()| Vec::<String>::new()));
    confirm(&mut second);
    rest_all(&mut [&mut first, &mut second]);
    let whole = of_all_cores("Counted { app: 0, is_whole: true }");
    for world in [&mut first, &mut second] {
        assert_eq!(world.taken(), whole);
    }
    // A node that starts reads the question, and the others wait for what it states.
    let mut third = World::joined(3, &log);
    let taken = third.taken();
    for expected in of_all_cores("Counting { app: 0 }") {
        assert!(taken.contains(&expected), "{taken:?}");
    }
    rest_all(&mut [&mut first, &mut second, &mut third]);
    assert_eq!(first.taken(), of_all_cores("Counted { app: 0, is_whole: false }"));
    confirm(&mut third);
    rest_all(&mut [&mut first, &mut second, &mut third]);
    for world in [&mut first, &mut third] {
        assert_eq!(world.taken().last(), whole.last());
    }
}

#[test]
fn cluster_node_says_which_core_is_to_confirm_its_counts_again() {
    let log = Rc::default();
    let mut node = World::joined(1, &log);
    node.engine.detach(false, node.now.ms);
    drop(node.taken());
    confirm(&mut node);
    node.state("", State::Counting(None));
    for _ in 0..200 {
        node.wait(100);
    }
    let mut taken = node.taken();
    taken.sort();
    assert_eq!(taken, of_all_cores("Uncounted { app: 0 }"), "nobody is told of the question");
}
