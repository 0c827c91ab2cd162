//! Receiving on unix sockets.

use super::address::UnixAddr;
use super::queue::Packet;
use super::{Kind, UnixSocket};
use crate::socket::Received;
use abi::poll::PollEvents;
use abi::socket::{MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_TRUNC};
use abi::{Errno, Result};
use kernel::io::Sink;
use kernel::vfs::Caller;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl UnixSocket {
    pub(super) fn do_receive(&self, _cx: &Caller<'_>, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        if flags & MSG_OOB != 0 {
            return if self.kind == Kind::Stream {
                self.receive_urgent(dst, flags)
            } else {
                Err(Errno::EOPNOTSUPP)
            };
        }
        if flags & MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        // What was received to its end: let go of outside of the locks.
        let mut done = Vec::new();
        let result = match self.kind {
            Kind::Stream => self.receive_stream(dst, flags, &mut done),
            _ => self.receive_packet(dst, flags, &mut done),
        };
        if !done.is_empty() && self.kind != Kind::Stream {
            // Senders to a full queue wait here, not at their own sockets.
            self.wake(PollEvents::WRITABLE | PollEvents::WRBAND);
        }
        drop(done);
        result
    }

    /// What an empty queue means.
    fn nothing(&self) -> Result<Received> {
        let mut s = self.state.lock();
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        if s.shut_receive {
            return Ok(Received::default());
        }
        Err(Errno::EAGAIN)
    }

    fn source(packet: &Packet) -> Option<Vec<u8>> {
        packet.from.as_ref().map(|a: &Arc<UnixAddr>| UnixAddr::encode(Some(a)))
    }

    fn receive_packet(&self, dst: &mut dyn Sink, flags: u32, done: &mut Vec<Packet>) -> Result<Received> {
        if self.kind == Kind::Seqpacket && !self.state.lock().connected {
            return Err(Errno::ENOTCONN);
        }
        let peek = flags & MSG_PEEK != 0;
        let mut skip = if peek { self.options.peek_offset().unwrap_or(0) } else { 0 };
        let mut queue = self.queue.lock();
        // What `SO_PEEK_OFF` passes over may be whole messages.
        let found = queue.packets.iter().position(|p| {
            let len = p.data.len();
            let here = skip < len || skip == 0;
            skip -= if here { 0 } else { len };
            here
        });
        let Some(packet) = found.and_then(|i| queue.packets.get_mut(i)) else {
            drop(queue);
            return self.nothing();
        };
        let data = &packet.data[skip..];
        let len = data.len();
        let copied = if len == 0 {
            0
        } else {
            dst.put(data).or_else(|e| if dst.remaining() == 0 { Ok(0) } else { Err(e) })?
        };
        if copied < len && dst.remaining() > 0 {
            return Err(Errno::EFAULT);
        }
        let mut got = Received {
            len: if flags & MSG_TRUNC != 0 { len } else { copied },
            from: Self::source(packet),
            sender: Some(packet.sender.clone()),
            flags: if copied < len { MSG_TRUNC } else { 0 },
            ..Received::default()
        };
        self.options.peeked(if peek { copied } else { len }, peek);
        if peek {
            got.rights = packet.rights.as_ref().map(super::rights::Rights::peek).unwrap_or_default();
            return Ok(got);
        }
        if let Some(mut packet) = queue.packets.pop_front() {
            self.queued.store(queue.packets.len(), Ordering::Release);
            drop(queue);
            got.rights = packet.rights.take().map(super::rights::Rights::take).unwrap_or_default();
            done.push(packet);
        }
        Ok(got)
    }

    /// The urgent byte; EINVAL if there is none or it is part of the stream.
    fn receive_urgent(&self, dst: &mut dyn Sink, flags: u32) -> Result<Received> {
        let mut queue = self.queue.lock();
        let at = queue.packets.iter().position(|p| p.oob).ok_or(Errno::EINVAL)?;
        if self.options.oob_inline() {
            return Err(Errno::EINVAL);
        }
        let len = dst.put(queue.packets[at].rest())?;
        let gone = if flags & MSG_PEEK == 0 { queue.packets.remove(at) } else { None };
        self.queued.store(queue.packets.len(), Ordering::Release);
        drop(queue);
        drop(gone);
        Ok(Received { len, flags: MSG_OOB, ..Received::default() })
    }

    fn receive_stream(&self, dst: &mut dyn Sink, flags: u32, done: &mut Vec<Packet>) -> Result<Received> {
        let peek = flags & MSG_PEEK != 0;
        {
            let s = self.state.lock();
            if !s.connected {
                return Err(Errno::EINVAL);
            }
        }
        let check_creds = self.options.pass_cred();
        let inline = self.options.oob_inline();
        let mut got = Received::default();
        let mut rights = None;
        let mut skip = if peek { self.options.peek_offset().unwrap_or(0) } else { 0 };
        let mut queue = self.queue.lock();
        if queue.bytes() <= skip && !queue.packets.iter().any(|p| p.oob) {
            drop(queue);
            return self.nothing();
        }
        let mut fault = None;
        let mut finished = 0;
        for packet in &mut queue.packets {
            if packet.oob {
                if got.len > 0 {
                    break;
                }
                if inline {
                    packet.oob = peek;
                } else {
                    // Reading past the mark drops the urgent byte.
                    finished += 1;
                    continue;
                }
            }
            match &got.sender {
                None => {
                    got.sender = Some(packet.sender.clone());
                    got.from = packet.from.as_ref().map(|a| UnixAddr::encode(Some(a)));
                }
                Some(s) => {
                    if check_creds && *s != packet.sender {
                        break;
                    }
                }
            }
            if dst.remaining() == 0 && got.len > 0 {
                break;
            }
            if skip > 0 && skip >= packet.rest().len() {
                skip -= packet.rest().len();
                continue;
            }
            let data = &packet.rest()[skip..];
            skip = 0;
            let rest = data.len();
            let want = rest.min(dst.remaining());
            match dst.put(data) {
                Ok(n) if n < want => {
                    // A piece that cannot be copied whole stays, as on Linux.
                    fault = Some(Errno::EFAULT);
                    break;
                }
                Ok(n) => {
                    got.len += n;
                    if !peek {
                        packet.off += n;
                    }
                    let has_rights = packet.rights.is_some();
                    if has_rights {
                        if peek {
                            got.rights =
                                packet.rights.as_ref().map(super::rights::Rights::peek).unwrap_or_default();
                        } else {
                            rights = packet.rights.take();
                        }
                    }
                    if n == rest {
                        finished += 1;
                    }
                    // Data after passed files belongs to the next call.
                    if n < rest || has_rights {
                        got.may_continue = false;
                        break;
                    }
                    got.may_continue = true;
                }
                Err(e) => {
                    fault = Some(e);
                    break;
                }
            }
        }
        if got.len == 0 && fault.is_none() && finished == queue.packets.len() {
            // Nothing but the urgent byte was there.
            if !peek {
                done.extend(queue.packets.drain(..));
                self.queued.store(0, Ordering::Release);
            }
            drop(queue);
            return self.nothing();
        }
        if !peek {
            done.extend(queue.packets.drain(..finished));
            self.queued.store(queue.packets.len(), Ordering::Release);
        }
        drop(queue);
        self.options.peeked(got.len, peek);
        if let Some(r) = rights {
            got.rights = r.take();
        }
        match fault {
            Some(e) if got.len == 0 => Err(e),
            _ => Ok(got),
        }
    }
}
