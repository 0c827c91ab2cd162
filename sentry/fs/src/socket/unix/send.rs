//! Sending on unix sockets.

use super::address::{Parsed, UnixAddr};
use super::queue::Packet;
use super::rights::{InFlight, Rights};
use super::{Kind, UnixSocket};
use crate::socket::{SendArgs, Sender, filter};
use abi::poll::PollEvents;
use abi::socket::{MSG_NOSIGNAL, MSG_OOB};
use abi::{Errno, Result};
use kernel::creds::CapSet;
use kernel::vfs::Caller;
use std::sync::Arc;

/// The largest piece of a stream that is copied and queued at once.
const PIECE: usize = 32768;

impl UnixSocket {
    pub(super) fn do_send(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        if args.flags & MSG_OOB != 0 && (self.kind != Kind::Stream || args.data.remaining() == 0) {
            return Err(Errno::EOPNOTSUPP);
        }
        match self.kind {
            Kind::Stream => self.send_stream(cx, args),
            Kind::Seqpacket => {
                // An address is ignored, but there must be a peer.
                if !self.state.lock().connected {
                    return Err(Errno::ENOTCONN);
                }
                self.send_packet(cx, args, None)
            }
            Kind::Dgram => {
                let to = match args.to {
                    None => None,
                    Some(raw) => match UnixAddr::parse(raw)? {
                        Parsed::Addr(a) => Some(self.find(cx, &a)?),
                        Parsed::Auto => return Err(Errno::EINVAL),
                    },
                };
                self.send_packet(cx, args, to)
            }
        }
    }

    fn launch(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<Option<Rights>> {
        if args.rights.is_empty() {
            return Ok(None);
        }
        let flight = InFlight::of(&*self.kernel()?);
        flight.thin();
        // Linux counts per user against RLIMIT_NOFILE; one sandbox is one user to us.
        const LIMIT: usize = 1 << 16;
        let free = cx.creds.has_cap(CapSet::SYS_RESOURCE) || cx.creds.has_cap(CapSet::SYS_ADMIN);
        if flight.count() > LIMIT && !free {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(Some(flight.launch(std::mem::take(&mut args.rights))))
    }

    fn broken(&self, cx: &Caller<'_>, args: &SendArgs<'_>) -> Errno {
        if args.flags & MSG_NOSIGNAL == 0 {
            crate::sigpipe(cx);
        }
        Errno::EPIPE
    }

    fn send_stream(&self, cx: &Caller<'_>, args: &mut SendArgs<'_>) -> Result<usize> {
        let (peer, own_addr) = {
            let s = self.state.lock();
            if args.to.is_some() {
                return Err(if s.connected { Errno::EISCONN } else { Errno::EOPNOTSUPP });
            }
            let peer = s.peer.clone().ok_or(Errno::ENOTCONN);
            let broken = s.shut_send;
            let addr = s.addr.clone();
            drop(s);
            let peer = peer?;
            if broken {
                return Err(self.broken(cx, args));
            }
            (peer, addr)
        };
        let sender = args.sender.clone().unwrap_or_else(|| Sender::of(cx));
        let limit = self.options.send_buffer();
        let mut sent = 0;
        while args.data.remaining() > 0 {
            let gone = {
                let p = peer.state.lock();
                p.dead || p.shut_receive
            };
            if gone {
                if sent > 0 {
                    break;
                }
                return Err(self.broken(cx, args));
            }
            if self.account.used() >= limit {
                if sent > 0 {
                    break;
                }
                return Err(Errno::EAGAIN);
            }
            let mut n = args.data.remaining().min(PIECE).min(limit / 2);
            let urgent = args.flags & MSG_OOB != 0;
            // The last byte is the urgent one and goes by itself.
            if urgent && n == args.data.remaining() && n > 1 {
                n -= 1;
            }
            let oob = urgent && args.data.remaining() == 1;
            let mut data = vec![0; n];
            match args.data.take(&mut data) {
                Ok(k) if k == n => {}
                other => {
                    if sent > 0 {
                        break;
                    }
                    return Err(other.err().unwrap_or(Errno::EFAULT));
                }
            }
            let rights = self.launch(cx, args)?;
            let mut packet = Packet::new(data, sender.clone(), rights, own_addr.clone(), &self.account);
            packet.oob = oob;
            if peer.deliver(packet).is_err() {
                if sent > 0 {
                    break;
                }
                return Err(self.broken(cx, args));
            }
            peer.wake(if oob { PollEvents::READABLE | PollEvents::PRI } else { PollEvents::READABLE });
            sent += n;
        }
        Ok(sent)
    }

    fn send_packet(
        &self,
        cx: &Caller<'_>,
        args: &mut SendArgs<'_>,
        to: Option<Arc<UnixSocket>>,
    ) -> Result<usize> {
        let explicit = to.is_some();
        let (shut, addr, peer) = {
            let s = self.state.lock();
            (s.shut_send, s.addr.clone(), s.peer.clone())
        };
        if shut {
            return Err(self.broken(cx, args));
        }
        let Some(dest) = to.or(peer) else {
            return Err(if self.kind == Kind::Seqpacket { self.broken(cx, args) } else { Errno::ENOTCONN });
        };
        if addr.is_none() && self.options.pass_cred() && self.kind == Kind::Dgram {
            self.autobind()?;
        }
        let limit = self.options.send_buffer();
        let len = args.data.remaining();
        if len > limit.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        let (dead, shut) = {
            let d = dest.state.lock();
            (d.dead, d.shut_receive)
        };
        if dead {
            if self.kind == Kind::Seqpacket {
                return Err(self.broken(cx, args));
            }
            let old = {
                let mut s = self.state.lock();
                let ours = s.peer.as_ref().is_some_and(|p| Arc::ptr_eq(p, &dest));
                if ours && !explicit {
                    s.connected = false;
                    s.peer.take()
                } else {
                    None
                }
            };
            drop(old);
            return Err(Errno::ECONNREFUSED);
        }
        if self.kind == Kind::Dgram && !dest.accepts_from(self) {
            return Err(Errno::EPERM);
        }
        if shut {
            return Err(self.broken(cx, args));
        }
        if self.account.used() >= limit {
            return Err(Errno::EAGAIN);
        }
        // Two that are connected to each other may fill their buffers.
        if dest.queue_full() && !dest.is_connected_to(self) {
            args.wait_on = Some(Arc::clone(&dest.wait));
            return Err(Errno::EAGAIN);
        }
        let mut data = vec![0; len];
        if args.data.take(&mut data)? < len {
            return Err(Errno::EFAULT);
        }
        if let Some(filter) = dest.options.filter() {
            // The sender does not hear of it.
            let seen = filter::Packet { data: &data, ..filter::Packet::default() };
            let Some(kept) = seen.kept_by(&filter) else { return Ok(len) };
            data.truncate(kept);
        }
        let addr = self.state.lock().addr.clone();
        let sender = args.sender.clone().unwrap_or_else(|| Sender::of(cx));
        let rights = self.launch(cx, args)?;
        let packet = Packet::new(data, sender, rights, addr, &self.account);
        if dest.deliver(packet).is_err() {
            return Err(Errno::ECONNREFUSED);
        }
        dest.wake(PollEvents::READABLE);
        Ok(len)
    }
}
