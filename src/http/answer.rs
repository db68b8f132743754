//! The head of an upstream's response: status line and fields, parsed by `httparse`.

use super::Headers;
use crate::limits::HTTP_HEADERS;

/// The head of one response.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers<'a>,
}

impl<'a> ResponseHead<'a> {
    /// Parses `bytes`, which end with the blank line of a head. `None` if they are not the head of
    /// an HTTP/1.1 response.
    pub fn parse(bytes: &'a [u8]) -> Option<ResponseHead<'a>> {
        let (mut headers, mut status) = (Headers::new(), None);
        let parsed = headers.fill(
            HTTP_HEADERS,
            |error| *error == Some(httparse::Error::TooManyHeaders),
            |fields| {
                let mut response = httparse::Response::new(fields);
                let parsed = response.parse(bytes).map_err(Some)?;
                if parsed != httparse::Status::Complete(bytes.len()) || response.version != Some(1)
                {
                    return Err(None);
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
    fn response_head_is_parsed_whole_or_not_at_all() {
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
    fn response_head_bounds_the_number_of_fields() {
        let text = |count| format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(count));
        let max = HTTP_HEADERS;
        assert!(ResponseHead::parse(text(max).as_bytes()).is_some());
        assert!(ResponseHead::parse(text(max + 1).as_bytes()).is_none());
    }
}
