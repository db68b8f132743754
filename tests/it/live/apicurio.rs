//! Schemas of an Apicurio registry, by versions 2 and 3 of its API.

use super::schemas::{Answer, Player, config_of, echo, try_frame};
use crate::net::*;

/// Lets the registry answer as an Apicurio of this API version for the artifact `tick` of the group
/// `g 1`, as its published API description says. The `globalId` is 9 and the `contentId` is 4.
fn knows_apicurio(player: &Player, api: &str) {
    let base = format!("/apis/registry/{api}");
    let artifact = format!("{base}/groups/g%201/artifacts/tick");
    let (on, by) = (r#""createdOn":"2019-05-17T12:00:00Z""#, r#""modifiedBy":"u""#);
    let dates = format!(r#"{on},{by},"modifiedOn":"2019-05-17T12:00:00Z""#);
    let v2 = format!(
        r#"{{"groupId":"g 1","id":"tick","name":"Tick","description":"d","type":"AVRO",
        "version":"2","createdBy":"u",{dates},"globalId":9,"contentId":4,"state":"ENABLED",
        "labels":[],"properties":{{}},"references":[]}}"#
    );
    let v3 = format!(
        r#"{{"groupId":"g 1","artifactId":"tick","version":"2","name":"Tick","description":"d",
        "owner":"u",{dates},"artifactType":"AVRO","globalId":9,"contentId":4,
        "state":"ENABLED","labels":{{}}}}"#
    );
    let side = r#"{"type":"enum","name":"Side","namespace":"m","symbols":["BUY","SELL"]}"#;
    let side_path = format!("{base}/groups/h/artifacts/side/versions/5");
    match api {
        "v2" => {
            player.knows(&format!("{artifact}/meta"), &v2);
            player.knows(&format!("{artifact}/versions/2/meta"), &v2);
            player.knows(&format!("{side_path}?dereference=false"), side);
        }
        _ => {
            player.knows(&format!("{artifact}/versions/branch=latest"), &v3);
            player.knows(&format!("{artifact}/versions/2"), &v3);
            player.knows(&format!("{side_path}/content?references=PRESERVE"), side);
        }
    }
    player.knows(&format!("{side_path}/references"), "[]");
    let tick = r#"{"type":"array","items":"m.Side"}"#;
    let references = r#"[{"groupId":"h","artifactId":"side","version":"5","name":"m.Side"}]"#;
    let of_global = match api {
        "v2" => "globalIds/9?dereference=false",
        _ => "globalIds/9?references=PRESERVE&returnArtifactType=true",
    };
    for by in [of_global, "contentIds/4"] {
        player.knows(&format!("{base}/ids/{by}"), tick);
    }
    for by in ["globalIds/9", "contentIds/4"] {
        player.knows(&format!("{base}/ids/{by}/references"), references);
    }
}

#[test]
fn schemas_apicurio_by_each_id_and_encoding() {
    let default = &[0, 0, 0, 0, 0, 0, 0, 0, 9][..];
    let legacy = &[0, 0, 0, 0, 4][..];
    let content = "use_id = 'contentId'\nid_encoding = 'legacy'";
    for (api, version, more, prefix) in [
        ("v2", "2", "", default),
        ("v2", "latest", content, legacy),
        ("v3", "latest", "api = 'v3'", default),
        ("v3", "2", &*format!("{content}\napi = 'v3'"), legacy),
    ] {
        let player = Player::start(None);
        knows_apicurio(&player, api);
        let more = format!("group_id = 'g 1'\n{more}");
        let model = "model = 'avro', catalog = 'reg', view = 'json'";
        let models = format!(
            "received.binary = {{ {model}, strategy = 'encoded', on_miss = 'pass' }}\n\
             sent.binary = {{ {model}, subject = 'tick', version = '{version}', \
             prefix = 'apicurio' }}"
        );
        let Some(server) = start(config_of(&player, "apicurio", &more, &models)) else { return };
        wait_count(&server, "schemas_retrieved", 1);
        let message = [prefix, &[2, 2, 0]].concat();
        let mut client = echo(&server);
        // The first message passes unchecked; on the way back it has two prefixes, so it is no
        // valid datum.
        client.send_frame(BINARY, &message);
        wait_count(&server, "schemas_retrieved", 2);
        assert_eq!(server.count("schemas_missed"), 1);
        drop(client);
        assert_eq!(try_frame(&server, BINARY, &message).unwrap(), message);
        let refused = try_frame(&server, BINARY, &[prefix, &[2, 4, 0]].concat()).unwrap_err();
        assert_eq!(refused.0, 1007);
        assert_eq!(server.count("schemas_missed"), 1);
        let paths = player.paths();
        assert!(paths.iter().all(|it| it.contains(&format!("/{api}/"))), "{paths:?}");
    }
}

#[test]
fn apicurio_failures_in_each_version_of_its_api() {
    let v2 = r#"{"message":"No artifact","error_code":404,"detail":"d","name":"N"}"#;
    let v3 = r#"{"title":"No artifact","status":404,"detail":"d","name":"N"}"#;
    for (api, theirs, other) in [("v2", v2, v3), ("v3", v3, v2)] {
        let large = format!("{}1", " ".repeat(512 * 1024));
        for (status, body, is_gone) in [
            (404, theirs, true),
            (404, other, false),
            (404, "<html>404</html>", false),
            (404, "", false),
            (500, theirs, false),
            (200, "<html>", false),
            (200, &large, false),
        ] {
            let player = Player::start(None);
            player.turns(Some(Answer::Is(status, body.to_owned())));
            let models = "received.binary = { model = 'json', catalog = 'reg', \
                          strategy = 'encoded', on_miss = 'reject' }\non_invalid = 'reply'";
            let more = format!("api = '{api}'");
            let config = config_of(&player, "apicurio", &more, models);
            let Some(server) = start(config) else { return };
            let mut client = echo(&server);
            let mut code = || {
                client.send_frame(BINARY, &[0, 0, 0, 0, 0, 0, 0, 0, 9, b'1']);
                String::from_utf8(client.frame().payload).unwrap()
            };
            assert!(code().contains("1013"));
            wait("an outcome", || {
                server.count("schemas_unretrievable") + server.count("schemas_bad") > 0
            });
            // Only a 404 of the registry itself means that there is no such schema; other errors
            // may be temporary.
            let want = if is_gone { "1008" } else { "1013" };
            let answer = code();
            assert!(answer.contains(want), "{api} {status} {body:.20}: {answer}");
        }
    }
}
