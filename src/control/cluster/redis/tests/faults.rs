//! A clock that was ahead.

use super::*;

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
                if n == 200 {
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
