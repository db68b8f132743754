//! The front door: which endpoint a request reaches, and the endpoints that speak no dialect.

use crate::config::{Config, Endpoint};
use crate::ws::{self, frame};

/// The endpoint of the first route that matches `path`.
pub fn route(config: &Config, path: &str) -> Option<Endpoint> {
    config.routes.iter().find(|route| route.matches(path)).map(|route| route.endpoint)
}

/// The `echo` endpoint: sends each message back as it came.
pub fn echo(out: &mut Vec<u8>, kind: ws::Kind, payload: &[u8]) {
    let opcode = match kind {
        ws::Kind::Text => ws::Opcode::Text,
        ws::Kind::Binary => ws::Opcode::Binary,
    };
    frame::push(out, opcode, payload, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_route_that_matches_wins() {
        let config = Config::demo();
        assert_eq!(route(&config, "/echo"), Some(Endpoint::Echo));
        assert_eq!(route(&config, "/echo/x"), Some(Endpoint::Apps));
        let mut config = config;
        config.routes.pop();
        assert_eq!(route(&config, "/app/k"), None);
    }
}
