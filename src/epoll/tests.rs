//! The driver on real sockets.

use super::Epoll;
use crate::driver::{Completion, Driver, Op, Sent, Settings, WakeHandle};
use crate::limits::FRAMES_PER_SEND;
use crate::mem::{Frozen, Handle, Segment, Slot};
use crate::stats::Counters;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BUFFER: usize = 512;

struct Bench {
    driver: Epoll,
    listener: Arc<Socket>,
    /// Completions that nothing has asked for yet.
    seen: Vec<Completion>,
}

fn slot(index: u32) -> Slot {
    Slot { index, generation: 7 }
}

impl Bench {
    fn new() -> Bench {
        let settings = Settings {
            files: 64,
            buffers: 16,
            buffer_bytes: BUFFER as u32,
            accepts: 8,
            restricted: false,
        };
        let driver = Epoll::new(settings, Arc::new(Counters::default())).expect("a driver");
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        listener.bind(&any.into()).expect("bound");
        listener.listen(64).expect("listening");
        Bench { driver, listener: Arc::new(listener), seen: Vec::new() }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address").as_socket().expect("of IP")
    }

    fn turn(&mut self, wait_ms: u64) -> Vec<Completion> {
        let mut done = Vec::new();
        self.driver.turn(Duration::from_millis(wait_ms), &mut done).expect("a turn");
        done
    }

    /// The next completion of `op` for `index`. The driver's buffers are not touched before the
    /// next turn.
    fn wait(&mut self, op: Op, index: u32) -> Completion {
        let is = |done: &Completion| done.op == op && done.index == index;
        for _ in 0..500 {
            if let Some(at) = self.seen.iter().position(is) {
                return self.seen.remove(at);
            }
            let done = self.turn(20);
            self.seen.extend(done);
        }
        panic!("no completion of {op:?}")
    }

    /// Accepts a connection as the descriptor `index`.
    fn accept(&mut self, index: u32) -> TcpStream {
        let listener = self.listener.clone();
        self.driver.accept(0, &listener, index);
        let client = TcpStream::connect(self.address()).expect("connected");
        let done = self.wait(Op::Accept, 0);
        assert_eq!((done.outcome(), done.more()), (Ok(0), false));
        assert_eq!(self.driver.accepted(&done), client.local_addr().expect("an address"));
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        client
    }

    fn bytes(&mut self, done: &Completion) -> Vec<u8> {
        let mut all = Vec::new();
        self.driver.take_received(done, |piece| {
            assert!(piece.len() <= BUFFER);
            all.extend_from_slice(piece);
        });
        all
    }

    fn send(&mut self, index: u32, batch: Vec<Segment>) -> Sent {
        self.driver.send(slot(index), batch);
        let done = self.wait(Op::Send, index);
        self.driver.sent(&done)
    }
}

#[test]
fn epoll_receive_goes_on_until_the_end_of_file() {
    let mut bench = Bench::new();
    let mut client = bench.accept(3);
    bench.driver.receive(slot(3));
    assert!(bench.turn(1).is_empty());
    for text in ["one", "two"] {
        client.write_all(text.as_bytes()).expect("sent");
        let done = bench.wait(Op::Receive, 3);
        assert!(done.more() && done.generation == slot(3).short_generation());
        assert_eq!(bench.bytes(&done), text.as_bytes());
    }
    drop(client);
    let done = bench.wait(Op::Receive, 3);
    assert_eq!((done.outcome(), done.more()), (Ok(0), false));
    assert!(bench.turn(30).is_empty(), "the end of file is reported once");
    assert!(bench.turn(30).is_empty());
}

#[test]
fn epoll_receive_that_is_cancelled_leaves_the_bytes_to_the_next() {
    let mut bench = Bench::new();
    let mut client = bench.accept(1);
    bench.driver.receive(slot(1));
    bench.driver.cancel_receive(slot(1));
    let done = bench.wait(Op::Receive, 1);
    assert_eq!((done.outcome(), done.more()), (Err(libc::ECANCELED), false));
    client.write_all(b"kept").expect("sent");
    let begun = Instant::now();
    assert!(bench.turn(50).is_empty() && bench.turn(50).is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(50), "readiness that nothing waits for");
    bench.driver.receive(slot(1));
    let done = bench.wait(Op::Receive, 1);
    assert_eq!(bench.bytes(&done), b"kept");
}

#[test]
fn epoll_receive_without_a_free_buffer_ends_and_is_first_when_started_again() {
    let mut bench = Bench::new();
    let mut clients: Vec<TcpStream> = (0..17).map(|index| bench.accept(index)).collect();
    (0..17).for_each(|index| bench.driver.receive(slot(index)));
    for client in &mut clients {
        client.write_all(&[b'x'; BUFFER]).expect("sent");
    }
    std::thread::sleep(Duration::from_millis(100));
    let done = bench.turn(1000);
    let full = |done: &&Completion| done.outcome() == Ok(BUFFER) && done.more();
    assert_eq!(done.iter().filter(full).count(), 16, "all buffers are used: {done:?}");
    let starved: Vec<&Completion> =
        done.iter().filter(|done| done.outcome() == Err(libc::ENOBUFS)).collect();
    let [starved] = starved[..] else { panic!("{done:?}") };
    assert!(!starved.more());
    let index = starved.index;
    for client in &mut clients {
        client.write_all(b"y").expect("sent");
    }
    std::thread::sleep(Duration::from_millis(100));
    bench.driver.receive(slot(index));
    let done = bench.turn(1000);
    assert_eq!((done[0].index, done[0].outcome()), (index, Ok(BUFFER + 1)));
    assert_eq!(bench.bytes(&done[0]), [&[b'x'; BUFFER][..], b"y"].concat());
}

#[test]
fn epoll_receive_of_a_starved_connection_is_not_reported_before_it_is_started_again() {
    let mut bench = Bench::new();
    let mut clients: Vec<TcpStream> = (0..17).map(|index| bench.accept(index)).collect();
    (0..17).for_each(|index| bench.driver.receive(slot(index)));
    clients.iter_mut().for_each(|it| it.write_all(&[b'x'; BUFFER]).expect("sent"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(bench.turn(1000).len(), 17);
    assert!(bench.turn(10).is_empty());
    let begun = Instant::now();
    assert!(bench.turn(50).is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(50), "a busy loop");
}

#[test]
fn epoll_send_passes_every_segment_in_order() {
    let mut bench = Bench::new();
    let mut client = bench.accept(2);
    let own = |n: usize| Segment::Own(format!("<{n}>").into_bytes());
    for count in [1, 2, FRAMES_PER_SEND] {
        let shared = Segment::Shared(Handle::new(Frozen::new(b"shared")));
        let mut batch: Vec<Segment> = (1..count).map(own).collect();
        batch.push(shared);
        let expected: Vec<u8> = batch.iter().flat_map(|segment| segment.to_vec()).collect();
        let sent = bench.send(2, batch);
        assert!(matches!(&sent, Sent::Whole(n, list) if *n == expected.len() && list.is_empty()));
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).expect("received");
        assert_eq!(received, expected);
    }
}

/// Sends more than the kernel takes; the peer reads only afterwards.
#[test]
fn epoll_send_that_is_short_goes_on_when_the_peer_reads() {
    let mut bench = Bench::new();
    let mut client = bench.accept(2);
    let text: Vec<u8> = (0..16_000_000_u32).map(|n| n as u8).collect();
    let batch = text.chunks(1_000_000).map(|chunk| Segment::Own(chunk.to_vec())).collect();
    let Sent::Short(mut sent) = bench.send(2, batch) else { panic!("it fits the kernel") };
    assert!(sent < text.len());
    bench.driver.send_rest(slot(2));
    assert!(bench.turn(20).is_empty(), "the peer does not read");
    let expected = text.clone();
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; expected.len()];
        client.read_exact(&mut received).expect("received");
        assert!(received == expected);
        client
    });
    loop {
        let done = bench.wait(Op::Send, 2);
        match bench.driver.sent(&done) {
            Sent::Short(n) => sent += n,
            Sent::Whole(n, _) => {
                assert_eq!(sent + n, text.len());
                break;
            }
            Sent::Failed(errno) => panic!("{errno}"),
        }
        bench.driver.send_rest(slot(2));
    }
    let mut client = reader.join().expect("no panic");
    let begun = Instant::now();
    assert!(bench.turn(50).is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(50), "a writable socket wakes nobody");
    bench.driver.shutdown(slot(2));
    assert_eq!(bench.wait(Op::Shutdown, 2).outcome(), Ok(0));
    assert_eq!(client.read(&mut [0]).expect("the end of file"), 0);
}

#[test]
fn epoll_send_that_waits_can_be_cancelled() {
    let mut bench = Bench::new();
    let _client = bench.accept(2);
    let Sent::Short(_) = bench.send(2, vec![Segment::Own(vec![0; 16_000_000])]) else {
        panic!("it fits the kernel")
    };
    bench.driver.send_rest(slot(2));
    bench.driver.cancel_send(slot(2));
    let done = bench.wait(Op::Send, 2);
    assert!(matches!(bench.driver.sent(&done), Sent::Failed(libc::ECANCELED)));
    bench.driver.close(slot(2));
    assert_eq!(bench.wait(Op::Close, 2).outcome(), Ok(0));
}

#[test]
fn epoll_send_to_a_peer_that_has_reset_fails() {
    let mut bench = Bench::new();
    let client = bench.accept(2);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("set");
    bench.driver.receive(slot(2));
    drop(client);
    let done = bench.wait(Op::Receive, 2);
    assert_eq!((done.outcome(), done.more()), (Err(libc::ECONNRESET), false));
    let sent = bench.send(2, vec![Segment::Own(b"x".to_vec())]);
    assert!(matches!(sent, Sent::Failed(libc::EPIPE)), "{sent:?}");
}

#[test]
fn epoll_connect_works_and_is_refused_without_a_listener() {
    let mut bench = Bench::new();
    let address = bench.address();
    for (index, outcome) in [(4, Ok(0)), (5, Err(libc::ECONNREFUSED))] {
        if outcome.is_err() {
            bench.listener = Bench::new().listener;
        }
        bench.driver.socket(slot(index), address);
        assert_eq!(bench.wait(Op::Socket, index).outcome(), Ok(0));
        bench.driver.connect(slot(index), address);
        assert_eq!(bench.wait(Op::Connect, index).outcome(), outcome);
    }
    let (mut server, _) = {
        let listener = Bench::new().listener;
        let address = listener.local_addr().expect("an address").as_socket().expect("of IP");
        bench.driver.socket(slot(6), address);
        bench.wait(Op::Socket, 6);
        bench.driver.connect(slot(6), address);
        assert_eq!(bench.wait(Op::Connect, 6).outcome(), Ok(0));
        let (server, peer) = listener.accept().expect("accepted");
        (TcpStream::from(server), peer)
    };
    bench.driver.receive(slot(6));
    server.write_all(b"hello").expect("sent");
    let done = bench.wait(Op::Receive, 6);
    assert_eq!(bench.bytes(&done), b"hello");
}

#[test]
fn epoll_accepts_as_many_connections_as_accepts_wait() {
    let mut bench = Bench::new();
    let listener = bench.listener.clone();
    for place in 0..2 {
        bench.driver.accept(place, &listener, place);
    }
    let clients: Vec<TcpStream> =
        (0..3).map(|_| TcpStream::connect(bench.address()).expect("connected")).collect();
    let (first, second) = (bench.wait(Op::Accept, 0), bench.wait(Op::Accept, 1));
    assert_eq!((first.outcome(), second.outcome()), (Ok(0), Ok(0)));
    assert!(bench.turn(10).is_empty());
    let begun = Instant::now();
    assert!(bench.turn(50).is_empty(), "no accept waits");
    assert!(begun.elapsed() >= Duration::from_millis(50), "a busy loop");
    bench.driver.accept(2, &listener, 2);
    assert_eq!(bench.wait(Op::Accept, 2).outcome(), Ok(0));
    bench.driver.accept(3, &listener, 3);
    bench.driver.cancel_accepts(8);
    assert_eq!(bench.wait(Op::Accept, 3).outcome(), Err(libc::ECANCELED));
    assert_eq!(Arc::strong_count(&listener), 2, "the driver keeps no listening socket open");
    drop(clients);
}

#[test]
fn epoll_wake_ends_the_wait() {
    let mut bench = Bench::new();
    let WakeHandle::Event(event) = bench.driver.wake_handle() else { panic!("another handle") };
    for _ in 0..3 {
        let event = event.clone();
        let waker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            WakeHandle::notify(&event)
        });
        let begun = Instant::now();
        let done = bench.turn(20_000);
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(matches!(done[..], [Completion { op: Op::Wake, .. }]), "{done:?}");
        waker.join().expect("no panic").expect("notified");
        assert!(bench.turn(10).is_empty(), "each wake-up is reported once");
    }
    let mut other = Bench::new();
    let handle = other.driver.wake_handle();
    bench.driver.wake(&handle);
    assert!(other.turn(10).is_empty(), "it is woken when the turn begins");
    bench.turn(0);
    assert_eq!(other.turn(20_000).len(), 1);
}
