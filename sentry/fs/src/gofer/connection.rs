//! The sentry's ends of the gofer's channels.
//!
//! Each channel carries one call at a time. A thread takes a free one for its call; when all are busy the next that
//! becomes free first asks for another, as long as the gofer gives any.

use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, PoisonError};

use abi::{Errno, Result};
use gofer_protocol::codec::{Body, MAX_MESSAGE, Malformed};
use gofer_protocol::{ANY_CPU, Op, Reader, ReplyHeader, Writer};
use platform::hostsys::{fd, process};

#[derive(Debug)]
struct Channel {
    socket: OwnedFd,
    writer: Writer,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Channel {
    fn new(socket: OwnedFd) -> Box<Channel> {
        Box::new(Channel { socket, writer: Writer::new(), buffer: vec![0; MAX_MESSAGE + 1], sequence: 0 })
    }

    /// One request and its reply. A broken channel or a reply that makes no sense is EIO: the gofer is gone.
    fn call<B: Body, T>(
        &mut self,
        op: Op,
        body: &B,
        tail: impl FnOnce(&mut Writer),
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<(T, Option<OwnedFd>)> {
        self.sequence = self.sequence.wrapping_add(1);
        let cpu = process::current_cpu().unwrap_or(ANY_CPU);
        self.writer.request(op, self.sequence, cpu, body);
        tail(&mut self.writer);
        fd::send_with_fds(&self.socket, self.writer.message(), &[]).map_err(|_| Errno::EIO)?;
        let (len, mut descriptors) =
            fd::recv_with_fds(&self.socket, &mut self.buffer).map_err(|_| Errno::EIO)?;
        let mut reader = Reader::new(self.buffer.get(..len).unwrap_or_default());
        let header: ReplyHeader = reader.get().map_err(|_| Errno::EIO)?;
        if header.sequence != self.sequence {
            return Err(Errno::EIO);
        }
        if header.errno != 0 {
            return Err(errno(header.errno));
        }
        let value = read(&mut reader).map_err(|Malformed| Errno::EIO)?;
        Ok((value, descriptors.pop()))
    }
}

/// A Linux error number that the gofer's host gave for a file: the same in the sandbox.
pub fn errno(number: u32) -> Errno {
    i32::try_from(number).ok().and_then(Errno::from_raw).unwrap_or(Errno::EIO)
}

#[derive(Debug)]
struct Pool {
    free: Vec<Box<Channel>>,
    waiting: usize,
    /// Whether the gofer may still give another channel.
    can_grow: bool,
}

/// All channels to one gofer.
#[derive(Debug)]
pub struct Connection {
    pool: Mutex<Pool>,
    freed: Condvar,
}

impl Connection {
    /// Over the socket that was handed to the sentry at its start.
    pub fn new(socket: OwnedFd) -> Connection {
        let pool = Pool { free: vec![Channel::new(socket)], waiting: 0, can_grow: true };
        Connection { pool: Mutex::new(pool), freed: Condvar::new() }
    }

    /// Makes a call: `tail` writes what follows the fixed body, `read` takes the reply apart.
    pub fn call<B: Body, T>(
        &self,
        op: Op,
        body: &B,
        tail: impl FnOnce(&mut Writer),
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<(T, Option<OwnedFd>)> {
        let mut channel = self.take();
        let result = channel.call(op, body, tail, read);
        self.give_back(channel);
        result
    }

    fn take(&self) -> Box<Channel> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = pool.free.pop() {
            return channel;
        }
        pool.waiting += 1;
        let mut channel = loop {
            pool = self.freed.wait(pool).unwrap_or_else(PoisonError::into_inner);
            if let Some(channel) = pool.free.pop() {
                break channel;
            }
        };
        pool.waiting -= 1;
        if !pool.can_grow {
            return channel;
        }
        drop(pool);
        match channel.call(Op::Channel, &[0u8; 0], |_| {}, |_| Ok(())) {
            Ok(((), Some(socket))) => self.give_back(Channel::new(socket)),
            _ => self.pool.lock().unwrap_or_else(PoisonError::into_inner).can_grow = false,
        }
        channel
    }

    fn give_back(&self, channel: Box<Channel>) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.free.push(channel);
        let wake = pool.waiting > 0;
        drop(pool);
        if wake {
            self.freed.notify_one();
        }
    }
}
