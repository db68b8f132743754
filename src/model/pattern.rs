//! `pattern` of JSON Schema, with a bound on what all patterns of a schema cost for one message.
//!
//! A pattern without look-around and back-references takes time in proportion to the text, and is
//! not counted. Any other one is tried in steps of backtracking, and the texts of one message share
//! a budget of these. The engine does not say how many steps it took, only that it took more than
//! a limit that was set before. So each pattern is there several times, with rising limits, and a
//! text is charged the first that is enough.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};
use std::cell::Cell;

/// Steps for all patterns and all texts of one message: about 0.1 ms.
pub(super) const STEPS: usize = 5000;
/// Steps for one name of a member by a pattern of `patternProperties`; those are not summed up.
pub(super) const NAME_STEPS: usize = 64;
/// What a text may be charged.
const CHARGES: [usize; 7] = [8, 32, 128, 512, 1024, 2048, STEPS];

thread_local! {
    /// What is left for the message that is looked at; `None` if more was wanted.
    static LEFT: Cell<Option<usize>> = const { Cell::new(Some(STEPS)) };
}

/// Calls `check` with a fresh budget, and says whether that was not enough.
pub(super) fn with_budget<T>(check: impl FnOnce() -> T) -> (T, bool) {
    LEFT.set(Some(STEPS));
    let outcome = check();
    (outcome, LEFT.get().is_none())
}

enum Pattern {
    /// Takes time in proportion to the text.
    Linear(Validator),
    /// With a limit of [`CHARGES`] each.
    Backtracking(Vec<(usize, Validator)>),
}

/// The keyword with that value.
pub(super) fn keyword(value: &Value) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'_>> {
    let schema = json!({ "pattern": value });
    let linear = jsonschema::options().with_pattern_options(PatternOptions::regex());
    if let Ok(validator) = linear.build(&schema) {
        return Ok(Box::new(Pattern::Linear(validator)));
    }
    let limited = |limit: usize| {
        let patterns = PatternOptions::fancy_regex().backtrack_limit(limit);
        let validator = jsonschema::options().with_pattern_options(patterns).build(&schema);
        validator.map(|it| (limit, it)).map_err(|error| ValidationError::custom(error.to_string()))
    };
    let all: Result<Vec<_>, _> = CHARGES.into_iter().map(limited).collect();
    Ok(Box::new(Pattern::Backtracking(all?)))
}

impl Pattern {
    fn fits(&self, text: &Value) -> bool {
        let all = match self {
            Pattern::Linear(validator) => return validator.is_valid(text),
            Pattern::Backtracking(all) => all,
        };
        if !text.is_string() {
            return true;
        }
        let Some(left) = LEFT.get() else { return false };
        for (charge, validator) in all.iter().take_while(|(charge, _)| *charge <= left) {
            let is_over = |error: &ValidationError<'_>| {
                matches!(error.kind(), ValidationErrorKind::BacktrackLimitExceeded { .. })
            };
            match validator.validate(text) {
                Err(error) if is_over(&error) => {}
                outcome => {
                    LEFT.set(Some(left - charge));
                    return outcome.is_ok();
                }
            }
        }
        LEFT.set(None);
        false
    }
}

impl<'i> Keyword<'i> for Pattern {
    fn validate(&self, text: &'i Value) -> Result<(), ValidationError<'i>> {
        match self.fits(text) {
            true => Ok(()),
            false => Err(ValidationError::custom("the text does not match")),
        }
    }

    fn is_valid(&self, text: &'i Value) -> bool {
        self.fits(text)
    }
}
