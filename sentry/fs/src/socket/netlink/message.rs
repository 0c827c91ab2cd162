//! Netlink messages: headers and attributes read and written.

use super::PAGE;
use abi::Errno;

pub const REQUEST: u16 = 1;
pub const MULTI: u16 = 2;
pub const ACK: u16 = 4;
pub const ROOT: u16 = 0x100;
pub const MATCH: u16 = 0x200;
pub const EXCL: u16 = 0x200;
pub const REPLACE: u16 = 0x100;
pub const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEAD: usize = 16;

/// A request, as its sender wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// The whole message, for the answer to an error.
    whole: &'a [u8],
}

fn word(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn half(raw: &[u8], at: usize) -> u16 {
    raw.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

impl<'a> Request<'a> {
    /// Stands for the request of news that nobody asked for.
    pub const NEWS: Request<'static> = Request { kind: 0, flags: 0, sequence: 0, whole: &[] };

    /// The first request of some bytes, and what is behind it.
    pub fn split(raw: &'a [u8]) -> Option<(Request<'a>, &'a [u8])> {
        if raw.len() < HEAD {
            return None;
        }
        let len = word(raw, 0) as usize;
        if len < HEAD || len > raw.len() {
            return None;
        }
        let whole = &raw[..len];
        let request = Request { kind: half(raw, 4), flags: half(raw, 6), sequence: word(raw, 8), whole };
        Some((request, raw.get(len.next_multiple_of(4)..).unwrap_or_default()))
    }

    /// What is behind the header.
    pub fn body(&self) -> &'a [u8] {
        &self.whole[HEAD..]
    }

    pub fn is_dump(&self) -> bool {
        self.flags & (ROOT | MATCH) == ROOT | MATCH
    }

    /// The content of an attribute behind a fixed part of `skip` bytes.
    pub fn attribute(&self, skip: usize, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.body().get(skip..)?;
        while rest.len() >= 4 {
            let len = usize::from(half(rest, 0));
            if len < 4 || len > rest.len() {
                return None;
            }
            if half(rest, 2) & 0x3fff == wanted {
                return Some(&rest[4..len]);
            }
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        None
    }

    /// A number at a place of the body.
    pub fn word(&self, at: usize) -> u32 {
        word(self.body(), at)
    }
}

/// A message that is being written.
pub struct Message(Vec<u8>);

impl Message {
    pub fn bytes(mut self, raw: &[u8]) -> Self {
        self.0.extend(raw);
        self
    }
    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        let len = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(len.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut raw = value.as_bytes().to_vec();
        raw.push(0);
        self.attribute(kind, &raw)
    }
    /// Appends an attribute only if there is a value.
    pub fn maybe(self, kind: u16, data: Option<&[u8]>) -> Self {
        match data {
            Some(d) => self.attribute(kind, d),
            None => self,
        }
    }
}

/// The answers to what one call sent.
pub struct Answers {
    port: u32,
    done: Vec<Vec<u8>>,
    page: Vec<u8>,
}

impl Answers {
    pub fn new(port: u32) -> Answers {
        Answers { port, done: Vec::new(), page: Vec::new() }
    }

    fn header(&self, kind: u16, flags: u16, sequence: u32) -> Message {
        let mut out = vec![0; 4];
        out.extend(kind.to_ne_bytes());
        out.extend(flags.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend(self.port.to_ne_bytes());
        Message(out)
    }

    /// Begins a message of an answer.
    pub fn begin(&self, request: &Request<'_>, kind: u16) -> Message {
        self.header(kind, if request.is_dump() { MULTI } else { 0 }, request.sequence)
    }

    /// Ends a message.
    pub fn push(&mut self, m: Message) {
        let mut raw = m.0;
        let len = u32::try_from(raw.len()).unwrap_or(0);
        raw[..4].copy_from_slice(&len.to_ne_bytes());
        raw.resize(raw.len().next_multiple_of(4), 0);
        if self.page.len() + raw.len() > PAGE {
            self.flush();
        }
        self.page.extend(raw);
    }

    fn flush(&mut self) {
        if !self.page.is_empty() {
            self.done.push(std::mem::take(&mut self.page));
        }
    }

    /// The end of a dump, which is a datagram of its own.
    pub fn end_dump(&mut self, request: &Request<'_>) {
        self.flush();
        let m = self.header(DONE, MULTI, request.sequence).bytes(&0i32.to_ne_bytes());
        self.push(m);
        self.flush();
    }

    /// An error, or the acknowledgement.
    pub fn status(&mut self, request: &Request<'_>, error: Option<Errno>) {
        self.flush();
        let code = error.map_or(0, |e| -i32::from(e.raw()));
        let m = self.header(ERROR, if error.is_none() { 0x100 } else { 0 }, request.sequence);
        let quoted = if error.is_none() { &request.whole[..HEAD] } else { request.whole };
        let m = m.bytes(&code.to_ne_bytes()).bytes(quoted);
        self.push(m);
        self.flush();
    }

    /// All datagrams.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        self.flush();
        self.done
    }
}
