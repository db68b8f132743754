//! The integration tests, in one binary so that they link once.

mod rfc6455;
