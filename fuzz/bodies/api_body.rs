//! Any body of a signed publish, to each vendor of channels: the answer is JSON, and the subscriber
//! gets what was published, in a form that its client can read.

use super::vendors::{VENDORS, Vendor, is_json};
use crate::machine::UNIX_S;
use crate::peer::{Received, signed};

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    for vendor in &VENDORS {
        publish(vendor, shape, rest);
    }
}

fn publish(vendor: &Vendor, shape: u8, rest: &[u8]) {
    let mut path = vendor.event;
    let body = match (shape % 8, str::from_utf8(rest)) {
        (0, Ok(given)) => format!(r#"{{"name":"e","channels":["a"],"data":{given}}}"#).into_bytes(),
        (1, Ok(given)) => format!(r#"{{"name":{given},"channels":["a"],"data":1}}"#).into_bytes(),
        (2, Ok(given)) => format!(r#"{{"name":"e","channels":{given},"data":""}}"#).into_bytes(),
        (4, Ok(given)) => {
            path = vendor.batch;
            format!(r#"[{{"name":"e","channel":"a","data":{given}}}]"#).into_bytes()
        }
        (5, Ok(given)) => {
            path = vendor.batch;
            format!(r#"{{"batch":[{{"name":"e","channel":"a","data":{given}}}]}}"#).into_bytes()
        }
        (6, _) => {
            path = vendor.batch;
            rest.to_vec()
        }
        _ => rest.to_vec(),
    };
    let mut machine = vendor.machine();
    let subscriber = vendor.subscriber(&mut machine, "a");
    let publisher = machine.open();
    let before = machine.wire(subscriber).received.len();
    machine.receive(publisher, &signed("POST", path, &body, UNIX_S));
    let [Received::Answer { status, body: answer, .. }] = &machine.wire(publisher).received[..]
    else {
        panic!("{:?}", machine.wire(publisher).received);
    };
    // What is signed always has a digest, unless there is nothing to digest.
    let refused = if body.is_empty() { 401 } else { 400 };
    assert!([200, 400, 413, refused].contains(status), "{status} {answer}");
    assert!(is_json(answer), "{answer}");
    let status = *status;
    let received = &machine.wire(subscriber).received[before..];
    assert!(received.is_empty() || status == 200, "{received:?}");
    assert!(received.len() <= 1 || path == vendor.batch, "{received:?}");
    vendor.check(received);
    machine.end();
}
