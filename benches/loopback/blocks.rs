//! The burst load of the Zilliqa dialect: no message for seconds, then one message to every client.

use super::child::{Child, Kind};
use super::load::{Load, ask, connect, ends_with};
use super::rows::{HANDSHAKE_END, leak, rates};
use super::table::Outcome;
use super::{Plan, rig};
use polycast::config::{Config, FileFormat};
use polycast::uring::sys;
use std::fmt::Write;
use std::io;

const TOKEN: &str = "0123456789abcdef";
/// The number of different address lists, and the addresses in each.
const SETS: usize = 100;
const ADDRESSES: usize = 10;
const TRANSACTIONS: usize = 2500;
const LOGS: usize = 5000;
const CONTRACTS: usize = 500;

/// A configuration with the Zilliqa dialect and body limits for a block.
pub fn config() -> Result<Config, polycast::config::Error> {
    let text = format!(
        "[limits]\nhttp_body_bytes = '16MiB'\n\
         [zilliqa]\npublish_token = '{TOKEN}'\nping_after_s = 86000\nidle_timeout_s = 86400\n\
         [[routes]]\nendpoint = 'zilliqa'\n"
    );
    Config::parse(&text, FileFormat::Toml, "bench")
}

fn address(n: usize) -> String {
    format!("{n:040x}")
}

/// An HTTP request that posts one block, in which every contract has the same number of events.
fn post(number: u64) -> Vec<u8> {
    let mut transactions = String::new();
    let per = LOGS / TRANSACTIONS;
    for n in 0..TRANSACTIONS {
        let logs: Vec<String> = (0..per)
            .map(|at| {
                let contract = address((n * per + at) % CONTRACTS);
                let value = address(n);
                format!(
                    r#"{{"_eventname":"Transfer","address":"0x{contract}","params":[{{"vname":"to","type":"ByStr20","value":"0x{value}"}}]}}"#
                )
            })
            .collect();
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(
            transactions,
            r#"{comma}{{"ID":"{n:064x}","version":"65537","nonce":"1","toAddr":"{}","senderPubKey":"0x0314738163B9BB67AD11AA464FE69A1147DF263E8970D7DCFD8F993DDD39E81BD9","amount":"0","signature":"0x{}","gasPrice":"2000000000","gasLimit":"5000","receipt":{{"cumulative_gas":"1000","epoch_num":"1","success":true,"event_logs":[{}]}}}}"#,
            address(n % CONTRACTS),
            "E2".repeat(64),
            logs.join(",")
        );
    }
    let body = format!(
        r#"{{"TxBlock":{{"header":{{"BlockNum":"{}"}}}},"TxHashes":[],"Transactions":[{transactions}]}}"#,
        // All block numbers have the same length.
        10_000_000 + number
    );
    let len = body.len();
    format!(
        "POST /epochs HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The query of a client with the address list `set`.
fn query(set: usize) -> Vec<u8> {
    let at = |n: usize| format!("\"0x{}\"", address((set * 7 + n * 13) % CONTRACTS));
    let list: Vec<String> = (0..ADDRESSES).map(at).collect();
    rig::masked(format!(r#"{{"query":"EventLog","addresses":[{}]}}"#, list.join(",")).as_bytes())
}

/// Measures the time and CPU time of one block, compared with one `sendmsg` of the same number of
/// bytes to each client.
pub fn block(plan: &Plan) -> io::Result<Outcome> {
    let server = Child::start(Kind::Zilliqa, plan.server)?;
    let limit = sys::raise_file_limit()? as usize;
    // The load needs a file descriptor for each client of both servers.
    let count = plan.idle.min(limit.saturating_sub(200) / 2);
    let upgrade = rig::upgrade("/");
    let mut streams = Vec::new();
    for n in 0..count {
        let mut stream = connect(server.address)?;
        ask(&mut stream, &upgrade, ends_with(HANDSHAKE_END))?;
        let query = query(n % SETS);
        // The response has the length of the query without its mask.
        let echo = query.len() - 4;
        ask(&mut stream, &query, |got| got.len() >= echo)?;
        streams.push(stream);
    }
    // The publisher connects last, because an idle connection is closed before long.
    streams.insert(0, connect(server.address)?);
    let mut ours = Load::new(streams)?;
    let mut number = 0;
    let mut next = || {
        number += 1;
        leak(post(number))
    };
    // The first block shows how many bytes the clients receive.
    let answer = ours.until_quiet(next())?;
    let bare = Child::start(Kind::SendMessages(count, answer as usize / count), plan.server)?;
    let streams = (0..=count).map(|_| connect(bare.address)).collect::<io::Result<_>>()?;
    let mut base = Load::new(streams)?;
    let frame = (answer as usize / count) as u64;
    let mut outcome = Outcome::default();
    let mut samples = Vec::new();
    for _ in 0..plan.rounds {
        let a = ours.once(&server, next(), answer, count as u64)?;
        let b = base.once(&bare, b".", frame * count as u64, count as u64)?;
        outcome.ours.push(a.us());
        outcome.base.push(b.us());
        samples.extend([a, b]);
    }
    let whole = |which: usize| {
        let every = || samples.iter().skip(which).step_by(2);
        let ms = |sum: f64| 1e3 * sum / plan.rounds as f64;
        let wall = ms(every().map(|it| it.wall.as_secs_f64()).sum());
        format!("{wall:.1} ms, {:.1} ms of CPU", ms(every().map(|it| it.cpu.as_secs_f64()).sum()))
    };
    let unheard = Child::start(Kind::Zilliqa, plan.server)?;
    let mut alone = Load::new(vec![connect(unheard.address)?])?;
    let request = next();
    let reply = alone.until_quiet(request)?;
    let parsed = alone.once(&unheard, next(), reply, 1)?;
    outcome.notes.push(format!(
        "a document of {} KiB that nobody hears costs {:.1} ms of CPU",
        request.len() / 1024,
        parsed.us() / 1e3
    ));
    outcome.notes.push(rates(&samples));
    outcome.notes.push(format!(
        "{count} clients, {frame} bytes each; a block takes polycast {}, the baseline {}",
        whole(0),
        whole(1)
    ));
    Ok(outcome)
}
