//! As much of D-Bus as it takes to ask systemd for a unit: connecting to a bus, calling methods, waiting for a signal.
//! (D-Bus specification: "Authentication protocol", "Message format", "Marshaling".) Everything that comes from the bus is
//! checked for its size before it is used.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(25);
/// Longest message that is taken from the bus; what systemd answers is far below.
const MAX_MESSAGE: usize = 1 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A value of a kind that properties of units have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Bool(bool),
    U64(u64),
    U32s(Vec<u32>),
}

/// Marshals the arguments of a call.
#[derive(Debug, Default)]
pub struct Body {
    bytes: Vec<u8>,
    signature: String,
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_u32(bytes: &mut Vec<u8>, n: u32) {
    align(bytes, 4);
    bytes.extend(n.to_le_bytes());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_u32(bytes, u32::try_from(text.len()).unwrap_or(u32::MAX));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn put_signature(bytes: &mut Vec<u8>, signature: &str) {
    bytes.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    bytes.extend(signature.as_bytes());
    bytes.push(0);
}

/// An array whose elements are aligned to `to`: the length does not count the padding before the first one.
fn put_array(bytes: &mut Vec<u8>, to: usize, elements: impl FnOnce(&mut Vec<u8>)) {
    put_u32(bytes, 0);
    let length_at = bytes.len() - 4;
    align(bytes, to);
    let start = bytes.len();
    elements(bytes);
    let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
    bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_variant(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Text(text) => {
            put_signature(bytes, "s");
            put_text(bytes, text);
        }
        Value::Bool(b) => {
            put_signature(bytes, "b");
            put_u32(bytes, u32::from(*b));
        }
        Value::U64(n) => {
            put_signature(bytes, "t");
            align(bytes, 8);
            bytes.extend(n.to_le_bytes());
        }
        Value::U32s(list) => {
            put_signature(bytes, "au");
            put_array(bytes, 4, |bytes| list.iter().for_each(|n| put_u32(bytes, *n)));
        }
    }
}

impl Body {
    pub fn text(mut self, text: &str) -> Body {
        self.signature.push('s');
        put_text(&mut self.bytes, text);
        self
    }

    pub fn bool(mut self, b: bool) -> Body {
        self.signature.push('b');
        put_u32(&mut self.bytes, u32::from(b));
        self
    }

    /// `a(sv)`
    pub fn properties(mut self, list: &[(&str, Value)]) -> Body {
        self.signature.push_str("a(sv)");
        put_array(&mut self.bytes, 8, |bytes| {
            for (name, value) in list {
                align(bytes, 8);
                put_text(bytes, name);
                put_variant(bytes, value);
            }
        });
        self
    }

    /// `a(sa(sv))`, empty: StartTransientUnit's further units.
    pub fn no_units(mut self) -> Body {
        self.signature.push_str("a(sa(sv))");
        put_array(&mut self.bytes, 8, |_| {});
        self
    }
}

/// Reads what the bus sent.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.context("a message of the bus is too short")?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn align(&mut self, to: usize) -> Result<()> {
        self.take(self.at.next_multiple_of(to) - self.at).map(drop)
    }

    fn u32(&mut self) -> Result<u32> {
        self.align(4)?;
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn text(&mut self) -> Result<String> {
        let n = usize::try_from(self.u32()?)?;
        let text = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<String> {
        let n = usize::from(self.take(1)?[0]);
        let text = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

/// A message from the bus: its kind, the fields that matter here, and the leading texts of its body.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    reply_to: u32,
    texts: Vec<String>,
}

fn parse(head: &[u8; 16], rest: &[u8], fields: usize) -> Result<Message> {
    let mut message = Message { kind: head[1], ..Message::default() };
    let mut signature = String::new();
    // Alignment counts from the message's beginning, which is 16 bytes before.
    let mut c = Cursor { bytes: rest, at: 0 };
    while c.at < fields {
        c.align(8)?;
        let code = c.take(1)?[0];
        match c.signature()?.as_str() {
            "s" | "o" => {
                let text = c.text()?;
                match code {
                    MEMBER => message.member = text,
                    ERROR_NAME => message.error = text,
                    _ => {}
                }
            }
            "u" => {
                let n = c.u32()?;
                if code == REPLY_SERIAL {
                    message.reply_to = n;
                }
            }
            "g" => {
                let text = c.signature()?;
                if code == SIGNATURE {
                    signature = text;
                }
            }
            other => bail!("the bus sent a header field of type {other:?}"),
        }
    }
    c.at = fields.next_multiple_of(8);
    let mut body = Cursor { bytes: rest.get(c.at..).unwrap_or_default(), at: 0 };
    for kind in signature.chars() {
        match kind {
            's' | 'o' => message.texts.push(body.text()?),
            'u' => drop(body.u32()?),
            _ => break,
        }
    }
    Ok(message)
}

/// A connection to a bus.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Signals that came before they were waited for: member and texts.
    signals: Vec<(String, Vec<String>)>,
}

/// Where a call goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}

/// The bus itself.
const BUS: Target<'_> = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

impl Bus {
    pub fn connect(socket: &Path) -> Result<Bus> {
        let stream = UnixStream::connect(socket).with_context(|| format!("D-Bus {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut bus = Bus { stream, serial: 0, signals: Vec::new() };
        bus.authenticate().with_context(|| format!("D-Bus {}: cannot sign in", socket.display()))?;
        bus.call(BUS, "Hello", Body::default())?;
        Ok(bus)
    }

    /// EXTERNAL: the kernel tells the peer who this is. No number is named when the peer asks for one: in a user namespace this process
    /// knows itself by another one than the peer does.
    fn authenticate(&mut self) -> Result<()> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\n")?;
        let line = self.line()?;
        ensure!(line.starts_with(b"DATA"), "refused: {}", String::from_utf8_lossy(&line).trim());
        self.stream.write_all(b"DATA\r\n")?;
        let line = self.line()?;
        ensure!(line.starts_with(b"OK "), "refused: {}", String::from_utf8_lossy(&line).trim());
        self.stream.write_all(b"BEGIN\r\n")?;
        Ok(())
    }

    /// A line of the peer's before messages begin.
    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            ensure!(line.len() < 512, "the answer is too long");
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(line)
    }

    /// Has signals of an interface sent here.
    pub fn subscribe(&mut self, interface: &str, member: &str) -> Result<()> {
        let rule = format!("type='signal',interface='{interface}',member='{member}'");
        self.call(BUS, "AddMatch", Body::default().text(&rule)).map(drop)
    }

    /// Calls a method; the leading texts of the answer.
    pub fn call(&mut self, target: Target<'_>, member: &str, body: Body) -> Result<Vec<String>> {
        self.serial += 1;
        let serial = self.serial;
        let mut message = vec![b'l', METHOD_CALL, 0, 1];
        put_u32(&mut message, u32::try_from(body.bytes.len())?);
        put_u32(&mut message, serial);
        put_array(&mut message, 8, |bytes| {
            let fields =
                [(PATH, "o", target.path), (INTERFACE, "s", target.interface), (MEMBER, "s", member)];
            for (code, kind, text) in fields.into_iter().chain([(DESTINATION, "s", target.destination)]) {
                align(bytes, 8);
                bytes.push(code);
                put_signature(bytes, kind);
                put_text(bytes, text);
            }
            if !body.signature.is_empty() {
                align(bytes, 8);
                bytes.push(SIGNATURE);
                put_signature(bytes, "g");
                put_signature(bytes, &body.signature);
            }
        });
        align(&mut message, 8);
        message.extend(&body.bytes);
        self.stream.write_all(&message).context("cannot write to the bus")?;
        loop {
            let answer = self.receive()?;
            match answer.kind {
                METHOD_RETURN if answer.reply_to == serial => return Ok(answer.texts),
                ERROR if answer.reply_to == serial => {
                    let text = answer.texts.first().cloned().unwrap_or_default();
                    return Err(Refused { name: answer.error, text }.into());
                }
                SIGNAL => self.signals.push((answer.member, answer.texts)),
                _ => {}
            }
        }
    }

    /// Waits for a signal whose texts satisfy `wanted`; those texts.
    pub fn signal(&mut self, member: &str, wanted: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(i) = self.signals.iter().position(|(m, texts)| m == member && wanted(texts)) {
                return Ok(self.signals.remove(i).1);
            }
            ensure!(Instant::now() < end, "no signal {member} came from the bus");
            let message = self.receive()?;
            if message.kind == SIGNAL {
                self.signals.push((message.member, message.texts));
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let mut head = [0u8; 16];
        self.stream.read_exact(&mut head).context("no answer from the bus")?;
        ensure!(head[0] == b'l' && head[3] == 1, "a message of the bus has an unknown form");
        let number = |at: usize| -> Result<usize> {
            Ok(usize::try_from(u32::from_le_bytes(head[at..at + 4].try_into()?))?)
        };
        let (body, fields) = (number(4)?, number(12)?);
        ensure!(body <= MAX_MESSAGE && fields <= MAX_MESSAGE, "a message of the bus is too long");
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest).context("the bus is gone")?;
        parse(&head, &rest, fields)
    }
}

/// The other side's error.
#[derive(Debug, thiserror::Error)]
#[error("{text} ({name})")]
pub struct Refused {
    pub name: String,
    pub text: String,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One message of a peer, with the answers' own form of header.
    pub fn encode(kind: u8, reply_to: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut message = vec![b'l', kind, 0, 1];
        put_u32(&mut message, u32::try_from(body.len()).unwrap());
        put_u32(&mut message, 77);
        put_array(&mut message, 8, |bytes| {
            bytes.push(REPLY_SERIAL);
            put_signature(bytes, "u");
            put_u32(bytes, reply_to);
            let code = if kind == ERROR { ERROR_NAME } else { MEMBER };
            align(bytes, 8);
            bytes.push(code);
            put_signature(bytes, "s");
            put_text(bytes, member);
            align(bytes, 8);
            bytes.push(SIGNATURE);
            put_signature(bytes, "g");
            put_signature(bytes, signature);
        });
        align(&mut message, 8);
        message.extend(body);
        message
    }

    pub fn texts(list: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        list.iter().for_each(|t| put_text(&mut bytes, t));
        bytes
    }

    /// A bus: does `answer` for each call it gets (member, serial, body) until the caller goes.
    pub fn serve(stream: UnixStream, mut answer: impl FnMut(&str, u32, &[u8]) -> Vec<Vec<u8>>) {
        let mut stream = stream;
        for (wanted, answer) in
            [("\0AUTH EXTERNAL\r\n", "DATA\r\n"), ("DATA\r\n", "OK 0123456789abcdef\r\n"), ("BEGIN\r\n", "")]
        {
            let mut line = vec![0; wanted.len()];
            stream.read_exact(&mut line).unwrap();
            assert_eq!(line, wanted.as_bytes());
            stream.write_all(answer.as_bytes()).unwrap();
        }
        let mut head = [0u8; 16];
        while stream.read_exact(&mut head).is_ok() {
            let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let fields = usize::try_from(number(12)).unwrap();
            let body = usize::try_from(number(4)).unwrap();
            let mut rest = vec![0; fields.next_multiple_of(8) + body];
            stream.read_exact(&mut rest).unwrap();
            let message = parse(&head, &rest, fields).unwrap();
            for bytes in answer(&message.member, number(8), &rest[fields.next_multiple_of(8)..]) {
                stream.write_all(&bytes).unwrap();
            }
        }
    }

    pub fn done(serial: u32) -> Vec<u8> {
        encode(METHOD_RETURN, serial, "", "", &[])
    }

    #[test]
    fn values_as_the_specification_lays_them_out() {
        let body = Body::default().text("ab").bool(true).properties(&[("n", Value::U64(7))]);
        assert_eq!(body.signature, "sba(sv)");
        let wanted: &[u8] = &[
            2, 0, 0, 0, b'a', b'b', 0, 0, // s, padded to 4
            1, 0, 0, 0, // b
            24, 0, 0, 0, // the array's length, which does not count padding before its first element
            1, 0, 0, 0, b'n', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, // (s, v of type t, padded to 8
            7, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(body.bytes, wanted);
        let list = Body::default().properties(&[("p", Value::U32s(vec![5, 6]))]);
        assert_eq!(&list.bytes[8..14], [1, 0, 0, 0, b'p', 0]);
        assert_eq!(&list.bytes[14..18], [2, b'a', b'u', 0]);
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() {
        let whole = encode(METHOD_RETURN, 1, "M", "s", &texts(&["abc"]));
        let head: [u8; 16] = whole[..16].try_into().unwrap();
        let fields = usize::try_from(u32::from_le_bytes(head[12..].try_into().unwrap())).unwrap();
        assert_eq!(parse(&head, &whole[16..], fields).unwrap().texts, ["abc"]);
        for end in 16..whole.len() - 1 {
            assert!(parse(&head, &whole[16..end], fields).is_err(), "{end}");
        }
    }

    #[test]
    fn errors_and_signals() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let bus = std::thread::spawn(move || {
            serve(theirs, |member, serial, _| match member {
                "Bad" => vec![encode(ERROR, serial, "org.x.Error", "s", &texts(&["no such unit"]))],
                "Late" => vec![
                    encode(SIGNAL, 0, "News", "s", &texts(&["early"])),
                    encode(METHOD_RETURN, serial, "", "s", &texts(&["answer"])),
                    encode(SIGNAL, 0, "News", "s", &texts(&["late"])),
                ],
                _ => vec![done(serial)],
            });
        });
        let mut client = Bus { stream: ours, serial: 0, signals: Vec::new() };
        client.authenticate().unwrap();
        let error = client.call(BUS, "Bad", Body::default()).unwrap_err();
        assert_eq!(error.downcast_ref::<Refused>().unwrap().name, "org.x.Error");
        assert_eq!(client.call(BUS, "Late", Body::default()).unwrap(), ["answer"]);
        assert_eq!(client.signal("News", |t| t[0] == "late").unwrap(), ["late"]);
        assert_eq!(client.signal("News", |_| true).unwrap(), ["early"]);
        drop(client);
        bus.join().unwrap();
    }
}
