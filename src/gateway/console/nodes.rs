//! The nodes of the cluster, for the page and for other programs.

use crate::codec::json::push_string;
use crate::runtime::ClusterStatus;

/// The JSON with all nodes of the cluster that are not dead, as this process knows them.
pub(super) fn nodes(cluster: &ClusterStatus, now_ms: u64) -> Vec<u8> {
    let mut out = br#"{"nodes":["#.to_vec();
    for (at, node) in cluster.nodes().iter().enumerate() {
        let separator = if at > 0 { "," } else { "" };
        let age_ms = now_ms.saturating_sub(node.read_ms);
        let (id, state) = (node.id, node.state);
        let text = format!(r#"{separator}{{"id":"{id:016x}","state":"{state}","release":"#);
        out.extend_from_slice(text.as_bytes());
        push_string(&mut out, &node.release);
        let text = format!(
            r#","connections":{},"age_ms":{age_ms},"is_own":{},"has_same_settings":{}}}"#,
            node.connections, node.is_own, node.has_same_settings
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::NodeStatus;

    #[test]
    fn console_nodes_are_json() {
        let cluster = ClusterStatus::default();
        let text = |cluster: &ClusterStatus| String::from_utf8(nodes(cluster, 5000)).unwrap();
        assert_eq!(text(&cluster), r#"{"nodes":[]}"#);
        let own = NodeStatus {
            id: 0xab,
            is_own: true,
            state: "up",
            release: "1.0".into(),
            has_same_settings: true,
            connections: 7,
            read_ms: 4200,
        };
        let other = NodeStatus {
            id: u64::MAX,
            is_own: false,
            state: "leaving",
            release: "\"<".into(),
            has_same_settings: false,
            ..own.clone()
        };
        cluster.set_nodes(vec![own, other]);
        let own = r#"{"id":"00000000000000ab","state":"up","release":"1.0","connections":7,"#;
        let own = format!(r#"{own}"age_ms":800,"is_own":true,"has_same_settings":true}}"#);
        let text = text(&cluster);
        assert!(text.starts_with(&format!(r#"{{"nodes":[{own},{{"id":"ffffffffffffffff","#)));
        let other = r#""release":"\"<","connections":7,"age_ms":800,"is_own":false,"#;
        assert!(text.ends_with(&format!(r#"{other}"has_same_settings":false}}]}}"#)), "{text}");
    }
}
