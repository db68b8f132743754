//! Writes responses into a byte vector, without further allocations.

/// What a response states about the connection (RFC 9112 section 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Another request may follow: the default of HTTP/1.1, so there is no field.
    #[default]
    KeepAlive,
    /// Another request may follow, stated for an HTTP/1.0 client.
    KeepHttp10,
    /// This is the last response.
    Close,
}

/// One response with its whole body.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    status: u16,
    content_type: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    connection: Connection,
    head_only: bool,
}

impl<'a> Response<'a> {
    /// A response with this body; without body and `Content-Type` if both are empty.
    pub fn new(status: u16, content_type: &'a str, body: &'a [u8]) -> Response<'a> {
        let connection = Connection::KeepAlive;
        Response { status, content_type, headers: &[], body, connection, head_only: false }
    }

    /// A response with a JSON body.
    pub fn json(status: u16, body: &'a [u8]) -> Response<'a> {
        Response::new(status, "application/json", body)
    }

    /// A response with a body of plain text.
    pub fn text(status: u16, body: &'a str) -> Response<'a> {
        Response::new(status, "text/plain; charset=utf-8", body.as_bytes())
    }

    /// Further header fields.
    pub fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Response<'a> {
        Response { headers, ..self }
    }

    /// Sets what is stated about the connection.
    pub fn connection(self, connection: Connection) -> Response<'a> {
        Response { connection, ..self }
    }

    /// Sets whether this answers `HEAD`: with the length of the body, but without the body.
    pub fn head_only(self, head_only: bool) -> Response<'a> {
        Response { head_only, ..self }
    }

    /// Appends the response to `out`.
    pub fn push(&self, out: &mut Vec<u8>) {
        // RFC 9110 section 8.6: no length with 1xx and 204; section 15.4.5: no body with 304.
        let bodiless = self.status < 200 || self.status == 204 || self.status == 304;
        out.reserve(HEAD_ROOM + if bodiless { 0 } else { self.body.len() });
        push_status(out, self.status);
        if !self.content_type.is_empty() && !bodiless {
            push_field(out, "Content-Type", self.content_type);
        }
        if !bodiless {
            out.extend_from_slice(b"Content-Length: ");
            push_number(out, self.body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in self.headers {
            push_field(out, name, value);
        }
        match self.connection {
            Connection::KeepAlive => {}
            Connection::KeepHttp10 => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Connection::Close => out.extend_from_slice(b"Connection: close\r\n"),
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !self.head_only {
            out.extend_from_slice(self.body);
        }
    }
}

/// The answer to [`super::RequestEvent::Continue`].
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends a status line.
pub fn push_status(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    push_number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a header field. A control character in the value, which could end the field and begin
/// another, becomes a space.
pub fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    let start = out.len();
    out.extend_from_slice(value.as_bytes());
    for byte in &mut out[start..] {
        *byte = if byte.is_ascii_control() { b' ' } else { *byte };
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The reason phrases of RFC 9110 section 15 and RFC 6585; empty for other statuses.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Bytes of a response head without further fields, rounded up.
const HEAD_ROOM: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: Response<'_>, want: &str) {
        let mut out = b"before ".to_vec();
        response.push(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before {want}"));
    }

    #[test]
    fn response_is_written_whole() {
        check(
            Response::json(200, b"{}"),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        );
        check(
            Response::json(200, b"{}").connection(Connection::KeepHttp10),
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
             Connection: keep-alive\r\n\r\n{}",
        );
        check(
            Response::text(405, "no\n").headers(&[("Allow", "GET")]).connection(Connection::Close),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 3\r\nAllow: GET\r\nConnection: close\r\n\r\nno\n",
        );
        check(Response::new(404, "", b""), "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        check(Response::new(299, "", b""), "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn response_to_head_has_the_length_and_not_the_body() {
        check(
            Response::new(200, "a/b", b"12345678901").head_only(true),
            "HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 11\r\n\r\n",
        );
    }

    #[test]
    fn s8_6_no_length_where_no_body_can_be() {
        check(Response::json(204, b"{}"), "HTTP/1.1 204 No Content\r\n\r\n");
        check(Response::json(304, b"{}"), "HTTP/1.1 304 Not Modified\r\n\r\n");
    }

    #[test]
    fn response_field_value_cannot_begin_another_field() {
        check(
            Response::new(200, "", b"").headers(&[("A", "b\r\nSet-Cookie: c\0")]),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b  Set-Cookie: c \r\n\r\n",
        );
    }

    #[test]
    fn response_numbers_at_both_ends() {
        for number in [0, 9, 10, 99, 100, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
