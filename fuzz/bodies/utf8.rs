//! Text in pieces is judged as the standard library judges it whole.

use super::pieces;
use polycast::ws::utf8::{Validator, valid};

pub(crate) fn run(data: &[u8]) {
    let Some((&seed, text)) = data.split_first() else { return };
    let want = str::from_utf8(text);
    assert_eq!(valid(text), want.is_ok());
    let mut validator = Validator::new();
    let mut at = 0;
    for piece in pieces(text, seed) {
        at += piece.len();
        // At once: a piece is refused exactly when what has come can be mended by nothing.
        let hopeless = str::from_utf8(&text[..at]).is_err_and(|it| it.error_len().is_some());
        let fine = validator.feed(piece);
        assert_eq!(fine, !hopeless, "at {at}");
        if !fine {
            return;
        }
        assert_eq!(validator.complete(), str::from_utf8(&text[..at]).is_ok(), "at {at}");
    }
}
