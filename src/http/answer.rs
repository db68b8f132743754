//! The head of an answer to what we have asked, whole: status line and fields through `httparse`.

use super::Headers;
use crate::limits::HTTP_HEADERS;

/// The head of one answer.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Reads `bytes`, which end with the blank line of a head; `None` if they are no head of an
    /// HTTP/1.1 answer.
    pub fn parse(bytes: &'a [u8]) -> Option<ResponseHead<'a>> {
        let (mut headers, mut status) = (Headers::new(), None);
        let parsed = headers.fill(
            HTTP_HEADERS,
            |()| false,
            |fields| {
                let mut response = httparse::Response::new(fields);
                let whole = Ok(httparse::Status::Complete(bytes.len()));
                if response.parse(bytes) != whole || response.version != Some(1) {
                    return Err(());
                }
                status = response.code;
                Ok(response.headers.len())
            },
        );
        parsed.ok()?;
        Some(ResponseHead { status: status?, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_whole_or_not_at_all() {
        let status = |text: &str| ResponseHead::parse(text.as_bytes()).map(|answer| answer.status);
        assert_eq!(status("HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n"), Some(101));
        assert_eq!(status("HTTP/1.1 404\r\n\r\n"), Some(404));
        for bad in [
            "",
            "HTTP/1.1 101 x\r\nA: b\r\n",
            "HTTP/1.1 101 x\r\nA: b\r\n\r\nmore\r\n\r\n",
            "HTTP/1.1 101 x\r\nA: b\n\nmore\r\n\r\n",
            "HTTP/1.0 101 x\r\n\r\n",
            "HTTP/2 101 x\r\n\r\n",
            "HTTP/1.1 10 x\r\n\r\n",
            "HTTP/1.1 101 x\r\nA b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(status(bad), None, "{bad}");
        }
    }

    #[test]
    fn both_sides_of_the_count_of_fields() {
        let text = |count| format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(count));
        let max = HTTP_HEADERS;
        assert!(ResponseHead::parse(text(max).as_bytes()).is_some());
        assert!(ResponseHead::parse(text(max + 1).as_bytes()).is_none());
    }
}
