//! The work limit of a message on a route with a model.

use crate::net::*;
use polycast::config::{Config, FileFormat};

fn config_with(limits: &str, schema: &str, more: &str) -> Config {
    // A literal `$` is written twice in a configuration.
    let schema = schema.replace('$', "$$");
    let text = format!(
        "threads = 1\npin = false\n{limits}\nlisteners = [{{ address = '127.0.0.1:0' }}]\n\
         [[catalogs]]\nname = 'c'\ntype = 'inline'\n\
         subjects = [{{ name = 's', schema = '''{schema}''' }}]\n\
         [[routes]]\nwhen = [{{ path = '/echo' }}]\nendpoint = 'echo'\n[routes.model]\n{more}\n\
         [[routes]]\nwhen = [{{ path = '/free' }}]\nendpoint = 'echo'\n\
         [[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n"
    );
    Config::parse(&text, FileFormat::Toml, "test").unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn model_route_takes_messages_up_to_its_own_bound() {
    let any = "received.text = { model = 'json' }\nreceived.binary = { model = 'json' }";
    let by_default = config_with("", "{}", any).limits.model_message_bytes;
    let small = config_with("limits.model_message_bytes = '64KiB'", "{}", any);
    for (config, bound) in [(config_with("", "{}", any), 1 << 20), (small, 64 * 1024)] {
        let Some(server) = start(config) else { return };
        let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        let open = |path| Client::open(server.addresses()[0], path);
        let mut client = open("/echo");
        client.send_text(&text(bound));
        assert_eq!(client.text(), text(bound));
        client.send_text(&text(bound + 1));
        assert_eq!(client.close().0, 1009);
        // A route without a model has the server's limit of message size.
        let mut free = open("/free");
        free.send_text(&text(bound + 1));
        assert_eq!(free.text(), text(bound + 1));
    }
    assert_eq!(by_default, 1 << 20);
}

#[test]
fn model_pattern_with_too_many_steps_closes_with_any_on_invalid() {
    let schema = r#"{"items": {"pattern": "^(a+(?=a|$))+c$"}}"#;
    let model = "model = 'json', catalog = 'c', subject = 's'";
    for (on_invalid, validate) in
        [("close", "strict"), ("drop", "strict"), ("reply", "strict"), ("drop", "lenient")]
    {
        let more = format!(
            "received.text = {{ {model}, validate = '{validate}' }}\non_invalid = '{on_invalid}'"
        );
        let Some(server) = start(config_with("", schema, &more)) else { return };
        let mut client = Client::open(server.addresses()[0], "/echo");
        if on_invalid == "drop" {
            // A message that breaks the rule and is cheap to check does not close the connection.
            client.send_text(r#"["x"]"#);
        }
        client.send_text(&format!("[\"{}\"]", "a".repeat(49)));
        if validate == "lenient" {
            assert_eq!(client.text(), r#"["x"]"#);
        }
        let reason = "a pattern of the schema takes too many steps".to_owned();
        assert_eq!(client.close(), (1008, reason), "{on_invalid}");
    }
}
