//! The pool compared with a simple model of its documentation, and its rules one by one.

use super::*;

const RETRY_MS: u64 = 100;

fn server(host: &str) -> UpstreamServer {
    UpstreamServer { secure: false, host: host.to_owned(), port: 80 }
}

fn options(balance: Balance, fail_after: u32) -> PoolOptions {
    PoolOptions { balance, fail_after, retry_ms: RETRY_MS, refresh_ms: 1000 }
}

fn pool(count: u8, options: PoolOptions) -> Pool {
    let servers = (0..count).map(|number| server(&format!("10.0.0.{number}")));
    Pool::new(servers, options, &Names::default())
}

/// Chooses for a client that has tried none.
fn pick(pool: &Pool, now_ms: u64) -> Chosen {
    pool.pick(now_ms, &mut Tried::default()).expect("one")
}

fn numbers(pool: &Pool, times: usize, now_ms: u64) -> Vec<usize> {
    (0..times).map(|_| pick(pool, now_ms).number()).collect()
}

#[test]
fn pool_round_robin_takes_addresses_in_order() {
    let pool = pool(3, options(Balance::RoundRobin, 1));
    assert_eq!(numbers(&pool, 6, 1), [0, 1, 2, 0, 1, 2]);
    pick(&pool, 1).failed(1);
    let mut found = numbers(&pool, 4, 1);
    found.sort_unstable();
    assert_eq!(found, [1, 1, 2, 2], "the two working addresses share the picks equally");
}

#[test]
fn pool_keeps_the_first_address_while_it_works() {
    let pool = pool(3, options(Balance::First, 2));
    assert_eq!(numbers(&pool, 2, 1), [0, 0]);
    assert!(!pick(&pool, 1).failed(1), "one failure is below fail_after = 2");
    assert_eq!(numbers(&pool, 1, 1), [0]);
    assert!(pick(&pool, 1).failed(1));
    assert_eq!(numbers(&pool, 2, RETRY_MS), [1, 1]);
    // The retry interval of address 0 has ended: one client tries it, the others do not.
    let first = pick(&pool, 1 + RETRY_MS);
    assert_eq!(first.number(), 0);
    assert_eq!(numbers(&pool, 2, 1 + RETRY_MS), [1, 1]);
    first.worked();
    assert_eq!(numbers(&pool, 2, 1 + RETRY_MS), [0, 0]);
}

#[test]
fn pool_success_clears_failures() {
    let pool = pool(1, options(Balance::First, 2));
    let chosen = pick(&pool, 1);
    for _ in 0..10 {
        assert!(!chosen.failed(1));
        chosen.worked();
    }
    assert!(
        !chosen.failed(1) && chosen.failed(1) && !chosen.failed(1),
        "only the failure that sets the address aside returns true"
    );
}

#[test]
fn pool_counts_connections_until_they_are_dropped() {
    let pool = pool(3, options(Balance::LeastConnections, 1));
    let mut chosen: Vec<Chosen> = (0..6).map(|_| pick(&pool, 1)).collect();
    assert!(pool.open().all(|(_, open)| open == 2));
    chosen.retain(|it| it.number() != 1);
    chosen.push(pick(&pool, 1));
    chosen.push(pick(&pool, 1));
    assert!(
        pool.open().all(|(_, open)| open == 2),
        "both new connections went to the server that had none"
    );
    // Servers with equally many connections are picked in turn.
    let mut found = numbers(&pool, 3, 1);
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
    drop(chosen);
    assert!(pool.open().all(|(_, open)| open == 0));
}

#[test]
fn pool_client_tries_each_address_once_and_those_set_aside_first() {
    let pool = pool(3, options(Balance::First, 1));
    let mut tried = Tried::default();
    let mut next = |now_ms| pool.pick(now_ms, &mut tried).map(|it| it.number());
    assert_eq!([next(1), next(1), next(1), next(1)], [Some(0), Some(1), Some(2), None]);
    pick(&pool, 1).failed(1);
    let mut tried = Tried::default();
    let mut next = |now_ms| pool.pick(now_ms, &mut tried).map(|it| it.number());
    assert_eq!([next(1), next(1), next(1)], [Some(1), Some(2), None]);
    for (number, now_ms) in [(1, 5), (2, 3)] {
        let chosen = pick(&pool, 1);
        assert_eq!(chosen.number(), number);
        chosen.failed(now_ms);
    }
    let mut tried = Tried::default();
    let mut next = |now_ms| pool.pick(now_ms, &mut tried).map(|it| it.number());
    assert_eq!(
        [next(6), next(6)],
        [Some(0), None],
        "of the addresses set aside, the one with the earliest failure"
    );
    pick(&pool, 6).failed(6);
    assert_eq!(pick(&pool, 6).number(), 2, "the next earliest failure");
}

#[test]
fn pool_of_many_addresses_or_none() {
    let none = pool(0, options(Balance::RoundRobin, 1));
    assert!(none.pick(1, &mut Tried::default()).is_none());
    let servers =
        (0..=UPSTREAMS).map(|port| UpstreamServer { port: port as u16, ..server("10.0.0.1") });
    let pool = Pool::new(servers, options(Balance::First, 1), &Names::default());
    let mut tried = Tried::default();
    let found = (0..).map_while(|_| pool.pick(1, &mut tried).map(|it| it.number()));
    assert_eq!(found.collect::<Vec<_>>(), (0..UPSTREAMS).collect::<Vec<_>>());
    tried.add(UPSTREAMS);
    assert!(tried.has(UPSTREAMS - 1) && !tried.has(UPSTREAMS));
}

#[test]
fn pool_state_outlives_the_configuration() {
    let names = Names::default();
    let hosts = |hosts: &[&str]| hosts.iter().map(|host| server(host)).collect::<Vec<_>>();
    let two = options(Balance::First, 1);
    let old = Pool::new(hosts(&["10.0.0.1", "10.0.0.2", "10.0.0.1"]), two, &names);
    let kept = pick(&old, 1);
    kept.failed(1);
    let new = Pool::after(&old, hosts(&["10.0.0.3", "10.0.0.1", "10.0.0.1"]), two, &names);
    assert!(new.is_kin(&old) && !new.is_kin(&pool(9, two).without(&["10.0.0.1", "10.0.0.3"])));
    let open = |pool: &Pool| pool.open().map(|(_, open)| open).collect::<Vec<_>>();
    assert_eq!(
        open(&new),
        [0, 1, 0],
        "the connection is counted once, although its host is listed twice"
    );
    let mut tried = Tried::default();
    let found = (0..).map_while(|_| new.pick(1, &mut tried).map(|it| it.number()));
    assert_eq!(found.collect::<Vec<_>>(), [0, 2], "10.0.0.1 is still set aside after the reload");
    drop(kept);
    assert_eq!(open(&new), [0; 3]);
}

impl Pool {
    fn without(mut self, hosts: &[&str]) -> Pool {
        self.members.retain(|it| !hosts.contains(&&*it.server.host));
        self
    }
}

#[test]
fn pool_name_has_its_addresses_once_it_is_resolved() {
    let names = Names::default();
    let servers = [server("a.example"), server("::1")];
    let pool = Pool::new(servers, options(Balance::First, 1), &names);
    let name = pool.names().next().expect("a name");
    assert_eq!((pool.names().count(), name.refresh.is_wanted()), (1, false));
    assert_eq!(pick(&pool, 1).next_address(), None);
    assert!(name.refresh.is_wanted());
    name.refresh.begin();
    let found = ["10.0.0.1:80", "10.0.0.2:80"].map(|it| it.parse().expect(it));
    name.put(&found);
    let mut chosen = pick(&pool, 1);
    assert_eq!(chosen.next_address(), Some(found[0]));
    assert_eq!(chosen.next_address(), Some(found[1]));
    chosen.worked();
    assert!(!name.refresh.is_wanted());
    let mut chosen = pick(&pool, 1);
    assert_eq!(chosen.next_address(), Some(found[1]), "the address that worked last comes first");
    assert_eq!(chosen.next_address(), Some(found[0]));
    assert_eq!(chosen.next_address(), None);
    chosen.failed(1);
    assert!(
        name.refresh.is_wanted(),
        "after a failure of every address the name is resolved again"
    );
    let mut literal = pick(&pool, 1);
    assert_eq!(literal.next_address(), Some("[::1]:80".parse().expect("an address")));
    assert_eq!(literal.next_address(), None);
}

/// A model of the pool's documentation, neither fast nor shared between threads.
struct Naive {
    options: PoolOptions,
    turn: usize,
    /// Connections, failures in a row, and until when each is set aside, in milliseconds.
    servers: Vec<(u32, u32, Option<u64>)>,
}

impl Naive {
    fn pick(&mut self, now_ms: u64, tried: &mut Vec<usize>) -> Option<usize> {
        let turn = self.turn;
        self.turn += 1;
        let mut fit = Vec::new();
        for (number, server) in self.servers.iter().enumerate() {
            if !tried.contains(&number) && server.2.is_none_or(|until| until <= now_ms) {
                fit.push(number);
            }
        }
        let fewest = fit.iter().map(|number| self.servers[*number].0).min();
        if self.options.balance == Balance::LeastConnections {
            fit.retain(|number| Some(self.servers[*number].0) == fewest);
        }
        let mut aside: Vec<_> = (0..self.servers.len()).collect();
        aside.sort_by_key(|number| self.servers[*number].2);
        let found = match (fit.len(), self.options.balance) {
            (0, _) => aside.first().copied().filter(|_| tried.is_empty())?,
            (_, Balance::First) => fit[0],
            (len, _) => fit[turn % len],
        };
        tried.push(found);
        let server = &mut self.servers[found];
        server.0 += 1;
        if server.2.is_some_and(|until| until <= now_ms) {
            server.2 = Some(now_ms + self.options.retry_ms);
        }
        Some(found)
    }
}

#[test]
fn pool_equals_a_naive_model() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let balance = [Balance::RoundRobin, Balance::LeastConnections, Balance::First];
        let options = options(balance[random.usize(..3)], random.u32(1..4));
        let count = random.u8(1..6);
        let pool = pool(count, options);
        let servers = vec![(0, 0, None); count.into()];
        let mut naive = Naive { options, turn: 0, servers };
        let (mut now_ms, mut open) = (1, Vec::new());
        for _ in 0..200 {
            now_ms += random.u64(..RETRY_MS / 4);
            match random.u32(..4) {
                0 if !open.is_empty() => {
                    let chosen: Chosen = open.swap_remove(random.usize(..open.len()));
                    naive.servers[chosen.number()].0 -= 1;
                }
                _ => {
                    let (mut tried, mut its) = (Tried::default(), Vec::new());
                    loop {
                        let number = naive.pick(now_ms, &mut its);
                        let chosen = pool.pick(now_ms, &mut tried);
                        let found = chosen.as_ref().map(Chosen::number);
                        assert_eq!(found, number, "seed {seed}");
                        let (Some(chosen), Some(number)) = (chosen, number) else { break };
                        let server = &mut naive.servers[number];
                        open.push(chosen);
                        let chosen = &open[open.len() - 1];
                        if random.bool() {
                            chosen.worked();
                            (server.1, server.2) = (0, None);
                            break;
                        }
                        server.1 += 1;
                        let aside = server.1 >= options.fail_after;
                        assert_eq!(chosen.failed(now_ms), aside && server.2.is_none());
                        if aside {
                            server.2 = Some(now_ms + RETRY_MS);
                        }
                    }
                }
            }
            let open = pool.open().map(|(_, open)| open);
            assert!(open.eq(naive.servers.iter().map(|it| it.0)), "seed {seed}");
        }
    }
}

#[test]
fn pool_one_thread_retries_an_address_that_was_set_aside() {
    let pool = pool(2, options(Balance::First, 1));
    pick(&pool, 1).failed(1);
    let took = |_| {
        std::thread::scope(|scope| {
            let one = || pick(&pool, 1 + RETRY_MS).number();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            let taken = threads.into_iter().map(|it| it.join().expect("no panic"));
            taken.filter(|number| *number == 0).count()
        })
    };
    assert_eq!((0..5).map(took).collect::<Vec<_>>(), [1, 0, 0, 0, 0]);
}
