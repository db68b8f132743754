//! Numbers of subscribers that nodes state because somebody reads them.

use super::*;
use crate::hub::{CountedKind, CountingStep};

type State = Statement<crate::dialect::DialectMessage>;

const KIND: CountedKind = CountedKind::ByView;

fn say(world: &mut World, step: CountingStep) {
    world.state("", State::Counting(KIND, step));
}

/// Both cores of a node say that they have stated their numbers.
fn confirm(world: &mut World, question: u64) {
    for core in [0, 1] {
        say(world, CountingStep::Stated { question, core, cores: 2 });
    }
}

/// The number of the question in `Counting { numbers: ..., step: Asked(7) }`.
fn question_in(words: &str) -> u64 {
    let (_, rest) = words.split_once("Asked(").expect("a question");
    rest.split_once(')').expect("its end").0.parse().expect("a number")
}

fn rest_all(worlds: &mut [&mut World]) {
    for _ in 0..3 {
        worlds.iter_mut().for_each(|world| world.rest());
    }
}

/// What both cores are sent about the numbers.
fn of_all_cores(what: &str, rest: &str) -> Vec<String> {
    let numbers = format!("numbers: CountedNumbers {{ app: 0, kind: {KIND:?} }}");
    (0..2).map(|core| format!("{core} {what} {{ {numbers}{rest} }}")).collect()
}

fn of_step(step: CountingStep) -> Vec<String> {
    of_all_cores("Counting", &format!(", step: {step:?}"))
}

fn of_whole(is_whole: bool) -> Vec<String> {
    of_all_cores("Counted", &format!(", is_whole: {is_whole}"))
}

#[test]
fn cluster_node_counts_are_whole_when_the_cores_of_all_nodes_have_stated_theirs() {
    let log = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    rest_all(&mut [&mut first, &mut second]);
    for world in [&mut first, &mut second] {
        drop(world.taken());
    }
    say(&mut first, CountingStep::Asked(0));
    rest_all(&mut [&mut first, &mut second]);
    let asked = first.taken();
    let question = question_in(&asked[0]);
    assert_eq!(asked, of_step(CountingStep::Asked(question)));
    assert_eq!(second.taken(), asked, "its place in the log, which is the same for all");
    confirm(&mut first, question);
    say(&mut second, CountingStep::Stated { question, core: 1, cores: 2 });
    rest_all(&mut [&mut first, &mut second]);
    assert_eq!([first.taken(), second.taken()], [(); 2].map(|()| Vec::<String>::new()));
    confirm(&mut second, question);
    rest_all(&mut [&mut first, &mut second]);
    for world in [&mut first, &mut second] {
        assert_eq!(world.taken(), of_whole(true));
    }
    // A node that starts reads the question, and the others wait for what it states.
    let mut third = World::joined(3, &log);
    let taken = third.taken();
    for expected in &asked {
        assert!(taken.contains(expected), "{taken:?}");
    }
    rest_all(&mut [&mut first, &mut second, &mut third]);
    assert_eq!(first.taken(), of_whole(false));
    confirm(&mut third, question);
    rest_all(&mut [&mut first, &mut second, &mut third]);
    for world in [&mut first, &mut third] {
        assert_eq!(world.taken().last(), of_whole(true).last());
    }
}

/// All nodes learn of the end of numbers at one place of the log, and a node that starts later does
/// not take the answers from before it for answers to a later question.
#[test]
fn cluster_node_counts_that_have_ended_are_not_whole_before_all_have_answered_again() {
    let log = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    say(&mut first, CountingStep::Asked(0));
    rest_all(&mut [&mut first, &mut second]);
    let question = question_in(first.taken().last().expect("a question"));
    confirm(&mut first, question);
    confirm(&mut second, question);
    rest_all(&mut [&mut first, &mut second]);
    assert_eq!(first.taken(), of_whole(true));
    drop(second.taken());
    say(&mut second, CountingStep::Read);
    rest_all(&mut [&mut first, &mut second]);
    say(&mut second, CountingStep::Ended);
    rest_all(&mut [&mut first, &mut second]);
    let expected = [of_step(CountingStep::Read), of_step(CountingStep::Ended)].concat();
    assert_eq!([first.taken(), second.taken()], [expected.clone(), expected]);
    say(&mut first, CountingStep::Asked(0));
    rest_all(&mut [&mut first, &mut second]);
    let again = question_in(first.taken().last().expect("a question"));
    assert!(again > question, "{again}");
    let mut third = World::joined(3, &log);
    confirm(&mut third, again);
    confirm(&mut first, again);
    rest_all(&mut [&mut first, &mut second, &mut third]);
    let is_whole = |world: &mut World| world.taken().iter().any(|it| it.contains("is_whole: true"));
    assert!(!is_whole(&mut first) && !is_whole(&mut third), "the second node has not answered");
    confirm(&mut second, again);
    rest_all(&mut [&mut first, &mut second, &mut third]);
    assert!(is_whole(&mut first) && is_whole(&mut third));
}

#[test]
fn cluster_node_says_which_core_is_to_confirm_its_counts_again() {
    let log = Rc::default();
    let mut node = World::joined(1, &log);
    node.engine.detach(false, node.now.ms);
    drop(node.taken());
    confirm(&mut node, 5);
    say(&mut node, CountingStep::Asked(0));
    for _ in 0..200 {
        node.wait(100);
    }
    let mut taken = node.taken();
    taken.sort();
    assert_eq!(taken, of_all_cores("Uncounted", ""), "nobody is told of the question");
}
