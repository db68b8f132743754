//! Reads the metrics text with a separate parser that checks the format and the naming conventions.

use super::*;
use crate::stats::Streams;
use std::collections::{BTreeMap, BTreeSet};

/// Every sample by its series, if the text is valid.
///
/// # Errors
/// What is wrong with the text.
fn read(text: &str) -> Result<BTreeMap<String, f64>, String> {
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_owned());
    }
    let (mut samples, mut seen) = (BTreeMap::new(), BTreeSet::new());
    let (mut helped, mut typed) = (String::new(), (String::new(), String::new()));
    for line in text.lines() {
        let wrong = |why: &str| Err(format!("{why}: {line}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("no help")?;
            if help.is_empty() || help.trim() != help {
                return wrong("help");
            }
            if !seen.insert(name.to_owned()) {
                return wrong("a family in two places");
            }
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("no type")?;
            if name != helped || !is_name(name) || name.contains("__") {
                return wrong("name");
            }
            if !["counter", "gauge", "histogram"].contains(&kind)
                || name.ends_with("_total") != (kind == "counter")
            {
                return wrong("counters, and only they, end in _total");
            }
            typed = (name.to_owned(), kind.to_owned());
        } else {
            let (name, labels, value) = sample(line).ok_or(format!("no sample: {line}"))?;
            let of_histogram = ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", typed.0));
            let fits = match typed.1.as_str() {
                "histogram" => of_histogram.contains(&name),
                _ => name == typed.0,
            };
            if !fits {
                return wrong("a sample before its type");
            }
            let names: BTreeSet<_> = labels.iter().map(|(name, _)| name).collect();
            if names.len() != labels.len() || !labels.iter().all(|(name, _)| is_name(name)) {
                return wrong("labels");
            }
            if samples.insert(format!("{name}{labels:?}"), value).is_some() {
                return wrong("a series twice");
            }
        }
    }
    Ok(samples)
}

type Sample = (String, Vec<(String, String)>, f64);

fn sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    while let Some(inside) = rest.strip_prefix(['{', ',']) {
        let (label, text) = inside.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = text.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    _ => return None,
                }),
                (_, c) => value.push(c),
            }
        };
        labels.push((label.to_owned(), value));
        rest = &text[end..];
    }
    let rest = if labels.is_empty() { rest } else { rest.strip_prefix('}')? };
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    Some((name.to_owned(), labels, value))
}

fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(known) && name.starts_with(|c: char| c.is_ascii_lowercase())
}

fn cores(count: usize) -> Vec<Arc<Counters>> {
    (0..count).map(|_| Arc::default()).collect()
}

#[test]
fn metrics_test_reader_finds_errors() {
    let family = "# HELP a_total x\n# TYPE a_total counter\n";
    for text in [
        "a_total 1\n".to_owned(),
        format!("{family}b_total 1\n"),
        format!("{family}a_total 1"),
        format!("{family}a_total x\n"),
        format!("{family}a_total 1\na_total 2\n"),
        format!("{family}a_total{{a=\"1\",a=\"2\"}} 1\n"),
        format!("{family}a_total{{a=\"1}} 1\n"),
        format!("{family}a_total{{a=\"\\x\"}} 1\n"),
        format!("{family}a_total 1\n{family}"),
        "# HELP a x\n# TYPE a counter\na 1\n".to_owned(),
        "# HELP a_total x\n# TYPE a_total gauge\na_total 1\n".to_owned(),
    ] {
        assert!(read(&text).is_err(), "{text}");
    }
    assert_eq!(read(&format!("{family}a_total 1\n")).unwrap().len(), 1);
}

#[test]
fn turn_histograms_are_cumulative_and_summed_over_all_cores() {
    let cores = cores(2);
    for (core, ns) in [(0, 20_000), (1, 20_000), (1, 60_000_000), (1, 99_000_000_000)] {
        cores[core].turn_ns.observe(ns);
    }
    cores[0].turn_work.observe(1);
    cores[1].turn_longest_ns.set(1_500_000_000);
    let exposition = text(&cores, &Counters::default(), &[], &Config::demo());
    let samples = read(&exposition).unwrap_or_else(|wrong| panic!("{wrong}\n{exposition}"));
    let bucket = |le: &str| samples[&format!("polycast_turn_seconds_bucket{:?}", [("le", le)])];
    let expected = [("0.00001", 0.0), ("0.000025", 2.0), ("0.05", 2.0), ("0.1", 3.0)];
    for (le, count) in expected {
        assert_eq!(bucket(le), count, "{le}\n{exposition}");
    }
    assert_eq!((bucket("10"), bucket("+Inf")), (3.0, 4.0));
    assert_eq!(samples["polycast_turn_seconds_count[]"], 4.0);
    let sum = samples["polycast_turn_seconds_sum[]"];
    assert!((sum - 99.060_04).abs() < 1e-6, "{sum}");
    assert_eq!(samples["polycast_turn_work_seconds_count[]"], 1.0);
    assert_eq!(samples[r#"polycast_turn_longest_seconds[("core", "1")]"#], 1.5);
}

#[test]
fn metrics_have_every_counter_once_and_summed() {
    let cores = cores(2);
    for counters in &cores {
        counters.received_bytes.add(40);
        counters.turns.add(7);
    }
    // One core may count the opening of a subscription and another core its end.
    let counts = AppCounts { connections: 3, dropped_hooks: 9 };
    let none = AppCounts::default();
    cores[0].subscriptions.add(5);
    cores[1].subscriptions.sub(2);
    let exposition =
        text(&cores, &Counters::default(), &[("1", counts), ("shop.eu", none)], &Config::demo());
    let samples = read(&exposition).unwrap_or_else(|wrong| panic!("{wrong}\n{exposition}"));
    for (series, value) in [
        ("polycast_received_bytes_total[]".to_owned(), 80.0),
        ("polycast_subscriptions[]".to_owned(), 3.0),
        ("polycast_connections[]".to_owned(), 0.0),
        (r#"polycast_turns_total[("core", "1")]"#.to_owned(), 7.0),
        (r#"polycast_core_connections[("core", "0")]"#.to_owned(), 0.0),
        (r#"polycast_app_connections[("app", "1")]"#.to_owned(), 3.0),
        (r#"polycast_app_connections[("app", "shop.eu")]"#.to_owned(), 0.0),
        (r#"polycast_app_hooks_dropped_total[("app", "1")]"#.to_owned(), 9.0),
        (format!(r#"polycast_build_info[("version", "{}")]"#, env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}\n{exposition}");
    }
    for (name, _) in cores[0].list() {
        assert!(exposition.contains(&format!("# HELP polycast_{name}")), "{name}");
    }
    assert!(
        exposition.contains("# HELP polycast_accepted_total Connections accepted.\n"),
        "{exposition}"
    );
    assert!(GAUGES.iter().chain(&BY_CORE).all(|it| cores[0].list().iter().any(|x| x.0 == *it)));
}

#[test]
fn metrics_labels_are_escaped() {
    let id = "a\"} 1\npolycast_connections 9\\";
    let counts = AppCounts { connections: 1, dropped_hooks: 0 };
    let exposition = text(&cores(1), &Counters::default(), &[(id, counts)], &Config::demo());
    let samples = read(&exposition).unwrap_or_else(|wrong| panic!("{wrong}\n{exposition}"));
    assert_eq!(samples.get(&format!("polycast_app_connections[(\"app\", {id:?})]")), Some(&1.0));
}

/// A configuration with two listeners of one Zilla binding, one listener with a name, and one
/// without.
fn with_streams() -> Config {
    use crate::config::Listener;
    let listener = |address: &str, name: &str, binding: &str| Listener {
        address: address.parse().expect(address),
        name: name.to_owned(),
        binding: binding.to_owned(),
        ..Listener::default()
    };
    let mut config = Config::demo();
    (config.metrics.zilla, config.metrics.namespace) = (true, "example".to_owned());
    config.listeners = vec![
        listener("127.0.0.1:1", "tcp.1", "ws_server"),
        listener("127.0.0.1:2", "tcp.2", "ws_server"),
        listener("127.0.0.1:3", "main", ""),
        listener("[::1]:4", "", ""),
    ];
    config
}

#[test]
fn metrics_of_streams_have_zillas_names() {
    let cores = cores(2);
    for (core, counters) in cores.iter().enumerate() {
        for listener in 0..2 {
            let streams = counters.streams(listener);
            streams.opened.add(4);
            streams.ended.add(3);
            streams.closes_received.add(2);
            streams.closes_sent.add(1 + core as u64);
            streams.received_bytes.add(100);
            streams.sent_bytes.add(1000);
        }
    }
    cores[1].streams(3).opened.add(5);
    let exposition = text(&cores, &Counters::default(), &[], &with_streams());
    let samples = read(&exposition).unwrap_or_else(|wrong| panic!("{wrong}\n{exposition}"));
    let value = |name: &str, binding: &str| {
        let series = format!(r#"{name}[("namespace", "example"), ("binding", "{binding}")]"#);
        samples.get(&series).copied()
    };
    for (name, both) in [
        ("stream_active_received", 4.0),
        ("stream_active_sent", 4.0),
        ("stream_opens_received_total", 16.0),
        ("stream_opens_sent_total", 16.0),
        ("stream_data_received_total", 400.0),
        ("stream_data_sent_total", 4000.0),
        ("stream_errors_received_total", 4.0),
        ("stream_errors_sent_total", 6.0),
        ("stream_closes_received_total", 8.0),
        ("stream_closes_sent_total", 6.0),
    ] {
        assert_eq!(value(name, "ws_server"), Some(both), "{name}\n{exposition}");
        assert_eq!(value(name, "main"), Some(0.0), "{name}");
    }
    assert_eq!(value("stream_opens_received_total", "[::1]:4"), Some(5.0));
    let without = text(&cores, &Counters::default(), &[], &Config::demo());
    assert!(!without.contains("\nstream_"), "only where it is wanted");
}

#[test]
fn metrics_count_further_listeners_with_the_last() {
    let counters = Counters::default();
    counters.streams(u16::MAX).opened.add(1);
    let last = Streams::LISTENERS as u16 - 1;
    assert_eq!(
        (counters.streams(last).opened.get(), counters.streams(last - 1).opened.get()),
        (1, 0)
    );
}
