//! The rules of a head, one line a case: what is refused and with which status.

use super::{check, get, post};

#[test]
fn s6_3_lengths_that_smuggle() {
    for (lines, want) in [
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "400 TwoLengths"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", "400 TwoLengths"),
        ("Transfer-Encoding: x\r\nContent-Length: 1\r\n", "400 TwoLengths"),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", "400 ContentLength"),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", "400 ContentLength"),
        ("Content-Length: 1, 1\r\n", "400 ContentLength"),
        ("Content-Length: +1\r\n", "400 ContentLength"),
        ("Content-Length: -1\r\n", "400 ContentLength"),
        ("Content-Length: 1 1\r\n", "400 ContentLength"),
        ("Content-Length: 0x1\r\n", "400 ContentLength"),
        ("Content-Length: 1.0\r\n", "400 ContentLength"),
        ("Content-Length:\r\n", "400 ContentLength"),
        ("Content-Length: \u{661}\r\n", "400 ContentLength"),
        ("Content-Length: 18446744073709551615\r\n", "413 BodyTooLarge"),
        ("Content-Length: 18446744073709551616\r\n", "400 ContentLength"),
    ] {
        check(&(post(lines) + "\r\n0\r\n\r\n"), &[want]);
    }
}

#[test]
fn s6_1_transfer_codings() {
    for (lines, want) in [
        ("Transfer-Encoding: chunked, chunked\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked, gzip\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding:\r\n", "400 TransferEncoding"),
        ("Transfer-Encoding: gzip, chunked\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: gzip\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: identity\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: xchunked\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: chunked;q=1\r\n", "501 TransferCoding"),
        ("Transfer-Encoding: \u{b}chunked\r\n", "400 HeaderField"),
    ] {
        check(&(post(lines) + "\r\n0\r\n\r\n"), &[want]);
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    check(old, &["400 TransferEncoding"]);
}

#[test]
fn s5_malformed_fields() {
    for line in [
        "A : b\r\n",
        "A\t: b\r\n",
        ": b\r\n",
        "A\r\n",
        "A b\r\n",
        "A: b\r\n c\r\n",
        "A: b\r\n\tc\r\n",
        " A: b\r\n",
        "A: b\0c\r\n",
        "A: b\u{1}c\r\n",
        "A: b\u{7f}c\r\n",
        "A: b\rc\r\n",
        "A\u{0}: b\r\n",
        "A(: b\r\n",
        "\u{e9}: b\r\n",
    ] {
        check(&get(line), &["400 HeaderField"]);
    }
    check("GET / HTTP/1.1\r\n Host: h\r\n\r\n", &["400 HeaderField"]);
}

#[test]
fn s2_2_bare_line_feeds() {
    check("GET / HTTP/1.1\nHost: h\r\n\r\n", &["400 BareLineFeed"]);
    check("GET / HTTP/1.1\r\nHost: h\n\r\n", &["400 BareLineFeed"]);
    check("GET / HTTP/1.1\r\nHost: h\r\n\n", &["400 BareLineFeed"]);
    check("GET / HTTP/1.1\r\nHost: h\n\n", &["400 BareLineFeed"]);
}

#[test]
fn s3_request_lines() {
    for (line, want) in [
        ("GET /", "400 RequestLine"),
        ("GET / ", "400 RequestLine"),
        ("GET  / HTTP/1.1", "400 RequestLine"),
        ("GET /  HTTP/1.1", "400 RequestLine"),
        ("GET / HTTP/1.1 ", "400 RequestLine"),
        ("GET /\tHTTP/1.1", "400 RequestLine"),
        ("GET /a b HTTP/1.1", "400 RequestLine"),
        ("G@T / HTTP/1.1", "400 RequestLine"),
        (" GET / HTTP/1.1", "400 RequestLine"),
        ("GET /\u{0} HTTP/1.1", "400 RequestLine"),
        ("GET / http/1.1", "400 RequestLine"),
        ("GET / HTTP/11", "400 RequestLine"),
        ("GET / HTTP/1.10", "400 RequestLine"),
        ("GET / HTTP/1.2", "505 Version"),
        ("GET / HTTP/0.9", "505 Version"),
        ("PRI * HTTP/2.0", "505 Version"),
        ("OPTIONS * HTTP/1.1", "400 Target"),
        ("CONNECT h:80 HTTP/1.1", "400 Target"),
        ("GET a/b HTTP/1.1", "400 Target"),
        ("GET /a#b HTTP/1.1", "400 Target"),
        ("GET ftp://h/ HTTP/1.1", "400 Target"),
        ("GET http:/// HTTP/1.1", "400 Target"),
        ("GET http://h?a HTTP/1.1", "400 Target"),
        ("GET http://u@h/ HTTP/1.1", "400 Target"),
        ("GET http://h/a?b HTTP/1.1", "GET /a?b 1.1 []"),
        ("GET HTTPS://h:1/?x://y HTTP/1.1", "GET /?x://y 1.1 []"),
        ("GET http://h HTTP/1.1", "GET / 1.1 []"),
        ("get //a HTTP/1.1", "get //a 1.1 []"),
        ("GET /\u{e9}%zz HTTP/1.1", "GET /\u{e9}%zz 1.1 []"),
    ] {
        check(&format!("{line}\r\nHost: h\r\n\r\n"), &[want]);
    }
}

#[test]
fn s3_2_host() {
    for (lines, want) in [
        ("", "400 Host"),
        ("Host: a\r\nHost: a\r\n", "400 Host"),
        ("Host: a\r\nhOST: b\r\n", "400 Host"),
        ("Host: a, b\r\n", "400 Host"),
        ("Host: a b\r\n", "400 Host"),
        ("Host: u@a\r\n", "400 Host"),
        ("Host: a/b\r\n", "400 Host"),
        ("Host: \u{e9}\r\n", "400 Host"),
        ("Host:\r\n", "GET / 1.1 []"),
        ("Host: [::1]:8080\r\n", "GET / 1.1 []"),
        ("Host: a-b.example:80\r\n", "GET / 1.1 []"),
    ] {
        check(&format!("GET / HTTP/1.1\r\n{lines}\r\n"), &[want]);
    }
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", &["400 Host"]);
}

#[test]
fn s9_3_persistence() {
    for (version, connection, want) in [
        ("1.1", "x", "GET / 1.1 []"),
        ("1.1", "close", "GET / 1.1 [] close"),
        ("1.1", "Keep-Alive, CLOSE", "GET / 1.1 [] close"),
        ("1.1", "x\r\nConnection: close", "GET / 1.1 [] close"),
        ("1.1", "closed", "GET / 1.1 []"),
        ("1.0", "x", "GET / 1.0 [] close"),
        ("1.0", "Keep-Alive", "GET / 1.0 []"),
        ("1.0", "keep-alive, close", "GET / 1.0 [] close"),
    ] {
        let input = format!("GET / HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n");
        check(&input, &[want]);
    }
}
