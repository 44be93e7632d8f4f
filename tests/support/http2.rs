//! A raw HTTP/2 client: sends any frames, hostile ones too, and shows what comes back.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Error codes that tests name.
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection.
pub(crate) struct Raw(TcpStream);

/// A frame that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a RST_STREAM or a GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

impl Raw {
    /// Connects from 127.0.1.`address` to the server on `port`, with the preface and settings that are empty.
    pub(crate) fn connect(port: u16, address: u8) -> Self {
        let mut raw = Self::silent(port, address);
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).expect("the server reads");
        raw
    }

    /// Connects and says nothing.
    pub(crate) fn silent(port: u16, address: u8) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::new(127, 0, 1, address), 0).into()).expect("binds");
            let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.expect("connects");
            stream.into_std().expect("a socket")
        });
        stream.set_nonblocking(false).expect("it is connected");
        Self::over(stream)
    }

    /// Speaks over a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("it is connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("it is connected");
        stream.set_write_timeout(Some(PATIENCE)).expect("it is connected");
        Self(stream)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// All frames that come within `time`, while which the connection stays open.
    pub(crate) fn frames_for(&mut self, time: Duration) -> Vec<Frame> {
        let until = Instant::now() + time;
        let mut frames = Vec::new();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.0.set_read_timeout(Some(left)).expect("it is connected");
            match self.0.peek(&mut [0]) {
                Ok(0) => panic!("the connection is over"),
                Ok(_) => frames.extend(self.next()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.0.set_read_timeout(Some(PATIENCE)).expect("it is connected");
        frames
    }

    /// The next frame; `None` at the end, or if the connection breaks.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("neither a frame nor the end within {PATIENCE:?}")
            }
            read => read.ok()?,
        }
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four bytes"));
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The first frame of `kind` that is no acknowledgement; `None` if the connection ends before.
    pub(crate) fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            let is_ack = matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK != 0;
            if frame.kind == kind && !is_ack {
                return Some(frame);
            }
        }
    }

    /// Of a server: reads what a client begins with, and answers it.
    pub(crate) fn welcome(&mut self) {
        let mut preface = [0; PREFACE.len()];
        self.0.read_exact(&mut preface).expect("a preface");
        assert_eq!(preface, PREFACE);
        self.send(&frame(SETTINGS, 0, 0, &[])).expect("the client reads");
        self.until(SETTINGS).expect("settings");
        self.send(&frame(SETTINGS, ACK, 0, &[])).expect("the client reads");
    }

    /// Of a server: the answer of gRPC that says that all is well.
    pub(crate) fn accept(&mut self, stream: u32) -> io::Result<()> {
        let mut head = vec![0x88, 0x0f, 0x10];
        string(&mut head, "application/grpc");
        let mut trailers = vec![0];
        string(&mut trailers, "grpc-status");
        string(&mut trailers, "0");
        self.send(&frame(HEADERS, END_HEADERS, stream, &head))?;
        self.send(&frame(DATA, 0, stream, &[0; 5]))?;
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers))
    }

    /// All frames until the server has read all that was sent so far; `None` if the connection ended instead.
    pub(crate) fn settle(&mut self) -> (Vec<Frame>, Option<()>) {
        let _ = self.send(&frame(PING, 0, 0, b"settled?"));
        let mut frames = Vec::new();
        while let Some(frame) = self.next() {
            if frame.kind == PING && frame.flags == ACK && frame.payload == b"settled?" {
                return (frames, Some(()));
            }
            frames.push(frame);
        }
        (frames, None)
    }
}

/// A frame as it is sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a gRPC call to `path`, compressed as little as can be.
pub(crate) fn call(path: &str) -> Vec<u8> {
    // POST, http, the path, content-type (31, which takes two bytes).
    let mut block = vec![0x83, 0x86, 0x04];
    string(&mut block, path);
    block.extend([0x0f, 0x10]);
    string(&mut block, "application/grpc");
    block
}

/// A header that is remembered: [`LAST`] stands for it from now on.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x40];
    string(&mut block, name);
    string(&mut block, value);
    block
}

/// The header that was remembered last.
pub(crate) const LAST: u8 = 0x80 | 62;

fn string(block: &mut Vec<u8>, text: &str) {
    // Lengths from 127 on take further bytes of seven bits each.
    match text.len() {
        short @ ..127 => block.push(u8::try_from(short).expect("short")),
        long => {
            block.push(0x7f);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).expect("seven bits") | 0x80);
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("seven bits"));
        }
    }
    block.extend(text.as_bytes());
}
