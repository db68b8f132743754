//! The keyword `pattern` of JSON Schema, with a limit of the backtracking steps of one message.
//!
//! A pattern without look-around and back-references takes time in proportion to the text and is
//! not counted. Other patterns are matched by backtracking, and all texts of one message share a
//! budget of backtracking steps. The regex engine does not report how many steps it took, only that
//! it exceeded a limit that was set before. Therefore each such pattern is compiled several times
//! with rising limits, and a text is charged the first limit that is sufficient.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Value, json};
use std::cell::Cell;

/// The budget of backtracking steps for all patterns and texts of one message: about 0.1 ms.
pub(super) const STEPS: usize = 5000;
/// The limit of backtracking steps for one property name and one pattern of `patternProperties`.
/// These steps are not added up over a message.
pub(super) const NAME_STEPS: usize = 64;
/// The limits of backtracking steps with which each pattern is compiled, in rising order. A text is
/// charged one of them.
const CHARGES: [usize; 7] = [8, 32, 128, 512, 1024, 2048, STEPS];

thread_local! {
    /// The steps that are left for the current message; `None` after a text needed more than that.
    static LEFT: Cell<Option<usize>> = const { Cell::new(Some(STEPS)) };
}

/// Calls `check` with a full budget of [`STEPS`]. Returns its result, and whether the budget was
/// exceeded.
pub(super) fn with_budget<T>(check: impl FnOnce() -> T) -> (T, bool) {
    LEFT.set(Some(STEPS));
    let outcome = check();
    (outcome, LEFT.get().is_none())
}

enum Pattern {
    /// Matched in time in proportion to the text.
    Linear(Validator),
    /// Matched by backtracking: the same pattern, once for each limit of [`CHARGES`].
    Backtracking(Vec<(usize, Validator)>),
}

/// Compiles the keyword `pattern` with this value.
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
            false => Err(ValidationError::custom("the text does not match the pattern")),
        }
    }

    fn is_valid(&self, text: &'i Value) -> bool {
        self.fits(text)
    }
}
