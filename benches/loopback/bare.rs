//! The baseline servers: each does one thing only and knows its input.

use super::ring::{ACCEPT, Done, RECEIVE, Ring, SEND, tag};
use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue::Entry};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

const FILES: u32 = 4096;
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: u32 = 4096;

/// Accepts connections, arms receives, and answers each receive with one send.
fn serve(
    listener: &TcpListener,
    mut answer: impl FnMut(&mut Ring, Done, u16) -> Option<Entry>,
) -> io::Result<()> {
    let mut ring = Ring::new(BUFFERS, BUFFER_BYTES)?;
    ring.io.submitter().register_files_sparse(FILES)?;
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
    ring.push(&accept.build().user_data(tag(ACCEPT, 0, 0)))?;
    let mut reaped = Vec::new();
    loop {
        ring.turn(true, &mut reaped)?;
        for done in reaped.drain(..) {
            match done.op {
                ACCEPT if done.result >= 0 => ring.receive(done.result as u32)?,
                RECEIVE => {
                    if let Some(buffer) = done.filled() {
                        match answer(&mut ring, done, buffer) {
                            Some(send) => {
                                ring.push(&send.user_data(tag(SEND, buffer, done.index)))?
                            }
                            None => ring.buffers.give(buffer),
                        }
                    }
                    if !done.more() && (done.result > 0 || done.result == -libc::ENOBUFS) {
                        ring.receive(done.index)?;
                    }
                }
                SEND => ring.buffers.give(done.buffer),
                _ => {}
            }
        }
    }
}

/// Echoes frames that arrive whole. A frame is unmasked in place and sent from the same buffer,
/// with a header that is four octets shorter.
pub fn echo(listener: &TcpListener) -> io::Result<()> {
    serve(listener, |ring, done, buffer| {
        let frame = ring.buffers.bytes(buffer, done.result as usize);
        let head = match frame[1] & 0x7f {
            126 => 4,
            _ => 2,
        };
        let key = [frame[head], frame[head + 1], frame[head + 2], frame[head + 3]];
        polycast::simd::mask(&mut frame[head + 4..], key, 0);
        frame[1] &= 0x7f;
        frame.copy_within(..head, 4);
        let reply = &frame[4..];
        let send = opcode::Send::new(Fixed(done.index), reply.as_ptr(), reply.len() as u32);
        Some(send.flags(libc::MSG_NOSIGNAL).build())
    })
}

/// Answers every `request` bytes with `reply` bytes; all requests that one receive completes are
/// answered with one send.
pub fn canned(listener: &TcpListener, request: usize, reply: usize) -> io::Result<()> {
    const MAX_IOVECS: usize = 1024;
    let replies: &'static [u8] = Box::leak(vec![b'x'; reply * MAX_IOVECS].into());
    let mut rest = vec![0; FILES as usize];
    serve(listener, move |_, done, _| {
        let rest = &mut rest[done.index as usize];
        *rest += done.result as usize;
        let whole = *rest / request;
        *rest %= request;
        let len = (whole.min(MAX_IOVECS) * reply) as u32;
        let send = opcode::Send::new(Fixed(done.index), replies.as_ptr(), len);
        (len > 0).then(|| send.flags(libc::MSG_NOSIGNAL).build())
    })
}

/// Accepts the connections: the first one publishes one byte for each event, the others are
/// subscribers.
fn audience(listener: &TcpListener, count: usize) -> io::Result<(TcpStream, Vec<TcpStream>)> {
    let accept = || {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    let publisher = accept()?;
    let subscribers = (0..count).map(|_| accept()).collect::<Result<_, _>>()?;
    Ok((publisher, subscribers))
}

/// Sends each connection one frame for each event, all of a batch with one `sendmsg`.
pub fn send_messages(listener: &TcpListener, count: usize, frame: usize) -> io::Result<()> {
    let (mut publisher, subscribers) = audience(listener, count)?;
    let frames: Vec<Vec<u8>> = (0..64).map(|_| vec![b'x'; frame]).collect();
    let mut vectors: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec { iov_base: frame.as_ptr() as *mut _, iov_len: frame.len() })
        .collect();
    let mut events = [0; 64];
    loop {
        let count = publisher.read(&mut events)?;
        if count == 0 {
            return Ok(());
        }
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = vectors.as_mut_ptr();
        message.msg_iovlen = count as _;
        for stream in &subscribers {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            // SAFETY: the message's vectors point into `frames`, which live on.
            let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, flags) };
            if sent != (count * frame) as isize {
                return Err(io::Error::last_os_error());
            }
        }
    }
}

/// Sends each connection one frame for each event, with sends of a ring that are submitted
/// together.
pub fn ring_sends(listener: &TcpListener, count: usize, frame: usize) -> io::Result<()> {
    let (mut publisher, subscribers) = audience(listener, count)?;
    let mut ring = Ring::new(16, 64)?;
    let files: Vec<i32> = subscribers.iter().map(AsRawFd::as_raw_fd).collect();
    ring.io.submitter().register_files(&files)?;
    let frame = vec![b'x'; frame];
    let mut event = [0];
    loop {
        if publisher.read(&mut event)? == 0 {
            return Ok(());
        }
        for index in 0..count as u32 {
            let send = opcode::Send::new(Fixed(index), frame.as_ptr(), frame.len() as u32);
            let send = send.flags(libc::MSG_NOSIGNAL).build();
            ring.push(&send.user_data(tag(SEND, 0, index)))?;
        }
        ring.io.submit_and_wait(count)?;
        for done in ring.io.completion() {
            if done.result() != frame.len() as i32 {
                return Err(io::Error::other("a short send"));
            }
        }
    }
}
