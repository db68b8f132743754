//! Text in pieces is judged as the standard library judges it whole, and as early as can be.

use super::pieces;
use polycast::ws::utf8::{Validator, valid};

/// The maximum octets of text that is cut in every way.
const CUT_EVERYWHERE: usize = 64;

pub(crate) fn run(data: &[u8]) {
    let Some((&seed, text)) = data.split_first() else { return };
    assert_eq!(valid(text), str::from_utf8(text).is_ok());
    some_split(text, seed);
    every_split(&text[..text.len().min(CUT_EVERYWHERE)]);
}

/// Whether no octets after `start` can make valid text of it.
fn hopeless(start: &[u8]) -> bool {
    str::from_utf8(start).is_err_and(|it| it.error_len().is_some())
}

fn some_split(text: &[u8], seed: u8) {
    let mut validator = Validator::new();
    let mut at = 0;
    for piece in pieces(text, seed) {
        at += piece.len();
        // At once: a piece is refused exactly when no further octets can make the text valid.
        let fine = validator.feed(piece);
        assert_eq!(fine, !hopeless(&text[..at]), "at {at}");
        if !fine {
            return;
        }
        assert_eq!(validator.complete(), str::from_utf8(&text[..at]).is_ok(), "at {at}");
    }
}

/// Octet by octet the text leads through one state after each; any piece must lead from the state
/// at its start to the one at its end. Then every split, of any number of pieces, gives the same.
fn every_split(text: &[u8]) {
    let mut states = vec![Validator::new()];
    for (at, octet) in text.iter().enumerate() {
        let mut next = states[at];
        let fine = next.feed(&[*octet]);
        assert_eq!(fine, !hopeless(&text[..=at]), "octet {at}");
        if !fine {
            break;
        }
        assert_eq!(next.complete(), str::from_utf8(&text[..=at]).is_ok(), "octet {at}");
        states.push(next);
    }
    for (from, state) in states.iter().enumerate() {
        for to in from..=text.len() {
            let mut there = *state;
            let fine = there.feed(&text[from..to]);
            assert_eq!(fine, to < states.len(), "{from}..{to}");
            assert!(!fine || there == states[to], "{from}..{to}");
        }
    }
}
