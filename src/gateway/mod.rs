//! The front door: which endpoint a request reaches, and the endpoints that speak no dialect.

use crate::config::{Config, Route};
use crate::ws::Kind;
use crate::ws::output::Output;

/// The first route that matches `path`.
pub fn route<'c>(config: &'c Config, path: &str) -> Option<&'c Route> {
    config.routes.iter().find(|route| route.matches(path))
}

/// The `echo` endpoint: sends each message back as it came.
pub fn echo(out: &mut Output<'_>, kind: Kind, payload: &[u8]) {
    out.message(kind, payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Endpoint;

    #[test]
    fn the_first_route_that_matches_wins() {
        let mut config = Config::demo();
        let endpoint = |config: &Config, path| route(config, path).map(|route| route.endpoint);
        assert_eq!(endpoint(&config, "/echo"), Some(Endpoint::Echo));
        assert_eq!(endpoint(&config, "/echo/x"), Some(Endpoint::Apps));
        config.routes.pop();
        assert_eq!(endpoint(&config, "/app/k"), None);
    }
}
