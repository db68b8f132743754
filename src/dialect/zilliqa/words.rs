//! The texts of errors.

use crate::codec::json::push_string;
use crate::config::ZilliqaErrors;

pub(super) const QUERY: &str = "invalid query field";
pub(super) const ADDRESSES: &str = "invalid addresses field";
/// The error for a malformed contract address.
pub(super) const EVENT_HEX: &str = "Invalid hex address";
/// The error for a malformed account address.
pub(super) const PAYMENT_HEX: &str = "invalid hex address";
pub(super) const ADDRESS: &str = "invalid address";
pub(super) const NO_CONTRACT: &str = "no contract found in list";
/// The error for an `after` that is not the number of a block.
pub(super) const AFTER: &str = "invalid after field";
pub(super) const TYPE: &str = "invalid type field";
/// Why a client is closed that would miss epochs.
pub(super) const MISSING: &str = "later blocks are not kept any more";

/// An error message. It must not have a member `query`, because clients would treat it as a
/// success.
pub(super) fn error(format: ZilliqaErrors, text: &str) -> Vec<u8> {
    match format {
        ZilliqaErrors::Text => text.as_bytes().to_vec(),
        ZilliqaErrors::Object => {
            let mut out = br#"{"type":"Error","error":"#.to_vec();
            push_string(&mut out, text);
            out.push(b'}');
            out
        }
    }
}
