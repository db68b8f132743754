//! A clock that was ahead, and a slow way to the server.

use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// The server's clock was an hour ahead for a moment, when there were older entries or none.
#[test]
fn cluster_redis_entries_expire_after_the_clock_was_ahead() {
    let cluster = Cluster { keep_s: 1, ..Cluster::default() };
    with_server("clock", cluster, async |setup| {
        for is_first in [false, true] {
            if is_first {
                setup.ask(&["DEL", "{p}:marks"]).await;
            }
            let time = page::time_ms(setup.ask(&["TIME"]).await).expect("a time");
            let mut begun = Instant::now();
            let short = |n: u32| Append { ttl_s: Some(1), ..entry(&format!("p.i.1.{n}")) };
            for n in 0..250 {
                if n == 150 || is_first && n == 0 {
                    let total = number(&setup.ask(&["HGET", "{p}:meta", "c"]).await);
                    let last = number(&setup.ask(&["HGET", "{p}:meta", "q"]).await);
                    let (Some(total), Some(last)) = (total, last) else { panic!("no log") };
                    let mark = format!("{} {} {total}", time / 1000 + 3600, last + 1);
                    setup.ask(&["RPUSH", "{p}:marks", &mark]).await;
                }
                // This one must be removed before less than 110 are left.
                if n == 140 {
                    begun = Instant::now();
                }
                assert!(setup.append(short(n)).await.is_ok());
            }
            while number(&setup.ask(&["XLEN", "{p}:log"]).await) >= Some(110) {
                assert!(begun.elapsed() < PATIENCE, "the stream is not trimmed");
                sleep(Duration::from_millis(200)).await;
                assert!(setup.append(short(250)).await.is_ok());
            }
            assert!(begun.elapsed() > Duration::from_millis(900), "they are kept for a second");
        }
    });
}

/// A way to the server that is as slow as a bad network: 8 MiB in a second.
fn slow_way_to(port: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let way = listener.local_addr().expect("a port").port();
    std::thread::spawn(move || {
        for node in listener.incoming() {
            let Ok(node) = node else { return };
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            for (from, to) in [(&node, &server), (&server, &node)] {
                let both = (from.try_clone(), to.try_clone());
                let (Ok(mut from), Ok(mut to)) = both else { return };
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = from.read(&mut bytes) {
                        if to.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                        std::thread::sleep(Duration::from_micros(count as u64 / 8));
                    }
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    way
}

/// 64 of them do not come within the time of a request.
#[test]
fn cluster_redis_large_entries_are_delivered_over_a_slow_way() {
    with_server("slow", Cluster::default(), async |setup| {
        let large = |append: Append| Append { body: vec![b'x'; 1 << 20], ..append };
        for n in 1..=32 {
            let append = match n % 2 {
                0 => entry("p.i.1.a"),
                _ => Append { ttl_s: Some(3600), ..entry("p.i.1.cache-a") },
            };
            assert_eq!(setup.append(large(append)).await, Ok(n));
        }
        let url = setup.engine.shared.cluster.urls().remove(0);
        let engine = vec![format!("redis://127.0.0.1:{}", slow_way_to(url.port))];
        let cluster = Cluster { engine, name: "p".to_owned(), ..Cluster::default() };
        setup.engine = RedisEngine::start(&cluster, &Notifier::new(|| {})).expect("it starts");
        let (mut last, begun) = (0, Instant::now());
        while last < 32 {
            match setup.next().await {
                EngineEvent::Up(_) => setup.engine.follow(last),
                EngineEvent::Entry { sequence, .. } => {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                }
                _ => {}
            }
            assert!(begun.elapsed() < 3 * PATIENCE, "{last} have come");
        }
    });
}
