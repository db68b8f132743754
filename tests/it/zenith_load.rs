//! The calls of clients are bounded by what the back end reads, and the limit affects only clients
//! with too many calls.

use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake};
use polycast::ws::Opcode;

const CONFIG: &str = "[zenith]\nservices = [{ token = 'SERVICE' }]\n";

/// A machine with a back end and this number of clients.
fn stage(clients: usize) -> (Machine, usize, Vec<usize>) {
    let mut machine = Machine::new(config(CONFIG));
    let backend = machine.open();
    machine.receive(backend, &handshake("/Zenith", "Authorization: Bearer SERVICE\r\n"));
    say(&mut machine, backend, r#"{"Action":"Register","Data":{"Controllers":["News"]}}"#);
    let clients: Vec<usize> = (0..clients).map(|_| machine.open()).collect();
    for &client in &clients {
        machine.receive(client, &handshake("/Zenith", ""));
        machine.wire(client).received.clear();
    }
    machine.wire(backend).received.clear();
    (machine, backend, clients)
}

fn say(machine: &mut Machine, at: usize, json: &str) {
    machine.receive(at, &framed(Opcode::Text, json.as_bytes()));
}

fn calls(count: usize, bytes: usize) -> Vec<u8> {
    let data = "x".repeat(bytes);
    let call = |at| {
        let head = r#""Controller":"News","Topic":"Q","Action":"Publish""#;
        format!(r#"{{{head},"TransactionID":{at},"Data":"{data}"}}"#)
    };
    (0..count).flat_map(|at| framed(Opcode::Text, call(at).as_bytes())).collect()
}

fn texts(machine: &mut Machine, at: usize) -> Vec<String> {
    let text = |received| match received {
        Received::Text(text) => text,
        other => panic!("{other:?}"),
    };
    std::mem::take(&mut machine.wire(at).received).into_iter().map(text).collect()
}

fn refused(texts: &[String]) -> usize {
    texts.iter().filter(|text| text.contains(r#""Data":"Limited""#)).count()
}

#[test]
fn zenith_backend_is_not_closed_by_the_calls_of_clients() {
    for (count, bytes) in [(12, 900_000), (900, 10_000)] {
        let (mut machine, backend, clients) = stage(2);
        let [attacker, healthy] = clients[..] else { panic!("two clients") };
        machine.wire(backend).stalls = true;
        machine.receive_in_turn(attacker, &calls(count, bytes));
        machine.receive_in_turn(healthy, &calls(1, 100));
        machine.settle();
        machine.read_again(backend);
        let asked = texts(&mut machine, backend);
        let answers = texts(&mut machine, attacker);
        assert_eq!(refused(&answers), count + 1 - asked.len(), "each is asked or refused");
        assert_eq!(answers.len(), 2 * refused(&answers), "an error, and the end of the call");
        assert_eq!(machine.counters.backend_calls_refused.get(), refused(&answers) as u64);
        assert!(asked.len() > 1 && refused(&answers) > 0, "{} of {count}", asked.len());
        assert!(asked.iter().any(|call| call.len() < 1000), "the other client is heard");
        assert_eq!(texts(&mut machine, healthy), [""; 0]);
        // Bytes that were sent make room again.
        machine.receive(attacker, &calls(1, bytes));
        assert_eq!(texts(&mut machine, backend).len(), 1);
        machine.end();
    }
}

#[test]
fn zenith_backend_gets_the_calls_of_a_client_beside_many_that_call_too_much() {
    let (mut machine, backend, clients) = stage(21);
    let (healthy, attackers) = clients.split_last().expect("clients");
    machine.wire(backend).stalls = true;
    for &attacker in attackers {
        machine.receive_in_turn(attacker, &calls(400, 10_000));
    }
    machine.receive_in_turn(*healthy, &calls(3, 1000));
    machine.settle();
    machine.read_again(backend);
    let asked = texts(&mut machine, backend);
    assert_eq!(asked.iter().filter(|text| text.len() < 2000).count(), 3);
    let bytes: usize = asked.iter().map(String::len).sum();
    assert!(bytes < 3 << 20, "{bytes} bytes have waited");
    machine.end();
}

/// The bound of the queue is `limits.write_queue_bytes` plus twice `message_bytes`.
#[test]
fn zenith_backend_queue_has_a_bound_with_two_sides() {
    let text = "[limits]\nwrite_queue_bytes = '64KiB'\n[zenith]\nmessage_bytes = '16KiB'\n";
    for (clients, fits) in [(6, true), (7, false)] {
        let mut machine =
            Machine::new(config(&format!("{text}services = [{{ token = 'SERVICE' }}]\n")));
        let backend = machine.open();
        machine.receive(backend, &handshake("/Zenith", "Authorization: Bearer SERVICE\r\n"));
        say(&mut machine, backend, r#"{"Action":"Register","Data":{"Controllers":["News"]}}"#);
        let mut limited = 0;
        let clients: Vec<usize> = (0..clients).map(|_| machine.open()).collect();
        for &client in &clients {
            machine.receive(client, &handshake("/Zenith", ""));
            machine.wire(client).received.clear();
        }
        machine.wire(backend).stalls = true;
        for &client in &clients {
            // Each client calls once.
            machine.receive_in_turn(client, &calls(1, 13_000));
        }
        machine.settle();
        machine.read_again(backend);
        for &client in &clients {
            limited += refused(&texts(&mut machine, client));
        }
        // Six calls of 13 kB leave 7 kB of seven eighths of the 96 KiB, and a client may have twice
        // as much; a seventh call does not fit.
        assert_eq!(limited == 0, fits, "{limited} of {}", clients.len());
    }
}
