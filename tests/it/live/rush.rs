//! Many simultaneous clients, and cores that have no room.

use crate::net::*;
use std::net::SocketAddr;

/// The number of simultaneous clients; each uses one file of this process.
const CLIENTS: usize = 6000;

/// Connects clients that send a request at the same time, from several threads. All of them are
/// answered.
fn rush(address: SocketAddr, clients: usize) -> Vec<Client> {
    const THREADS: usize = 4;
    let share = move || -> Vec<Client> {
        let connect = |_| {
            let mut client = Client::connect(address);
            client.send(handshake("/echo", "").as_bytes());
            client
        };
        let mut clients: Vec<Client> = (0..clients / THREADS).map(connect).collect();
        for client in &mut clients {
            assert_eq!(client.response().status, 101);
        }
        clients
    };
    let threads: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(share)).collect();
    threads.into_iter().flat_map(|it| it.join().expect("a thread of clients")).collect()
}

#[test]
fn rush_of_clients_is_served_and_none_is_refused() {
    let mut config = config();
    config.threads = 2;
    config.limits.handshakes = 256;
    config.limits.connections = 2 * CLIENTS + 4096;
    let Some(server) = start(config) else { return };
    let mut clients = rush(server.addresses()[0], CLIENTS);
    assert_eq!(server.count("refused_handshake"), 0);
    assert_eq!(server.count("upgrades"), CLIENTS as u64);
    for client in clients.iter_mut().step_by(500) {
        client.sync();
    }
}

#[test]
fn rush_connections_of_a_full_core_are_accepted_by_another() {
    let mut config = config();
    config.threads = 2;
    config.limits.connections = 64;
    let Some(server) = start(config) else { return };
    // Each core has 32 connections; the kernel distributes clients at random and not evenly.
    for _ in 0..4 {
        let clients = rush(server.addresses()[0], 56);
        assert_eq!(server.count("connections"), 56);
        drop(clients);
        wait_count(&server, "connections", 0);
    }
    let helped = server.count("accepted_for_others");
    // In each round it is about as likely as not that the numbers differ by more than eight.
    eprintln!("{helped} connections were accepted for the other core");
}
