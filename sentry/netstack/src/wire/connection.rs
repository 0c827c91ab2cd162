//! A connection of the engine as a transport of a socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{PacketWire, name};
use crate::buf::{Buf, PIECE};
use crate::engine::chunk::Chunk;
use crate::engine::events::{Observer, Ready};
use crate::engine::{Engine, Handle};
use crate::env::{Events, Waker};
use crate::error::{NetError, Result};
use crate::ports::TIME_WAIT;
use crate::tcp::{Parting, StreamCounts, StreamOptions, TakeHow, Taken, TcpInfo, TcpState, Transport};

/// Passes news on to whoever owns the socket now.
pub(super) struct Bell(Mutex<Option<Arc<dyn Waker>>>);

impl Bell {
    pub(super) fn new(waker: Option<Arc<dyn Waker>>) -> Arc<Bell> {
        Arc::new(Bell(Mutex::new(waker)))
    }
}

impl Observer for Bell {
    fn changed(&self, ready: Ready) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake(events(ready));
        }
    }
}

fn events(ready: Ready) -> Events {
    let mut events = Events::NONE;
    for (bit, event) in [
        (Ready::READ, Events::READABLE),
        (Ready::WRITE, Events::WRITABLE),
        (Ready::READ_CLOSED, Events::READABLE | Events::RDHUP),
        (Ready::CLOSED, Events::HUP),
        (Ready::ERROR, Events::ERR),
        (Ready::URGENT, Events::PRI),
    ] {
        if ready.has(bit) {
            events |= event;
        }
    }
    events
}

pub(super) struct Connection {
    wire: Arc<PacketWire>,
    handle: Handle,
    bell: Arc<Bell>,
    read_shut: AtomicBool,
    closed: AtomicBool,
}

impl Connection {
    /// A connection that was accepted.
    pub(super) fn new(
        wire: Arc<PacketWire>,
        handle: Handle,
        waker: Option<Arc<dyn Waker>>,
    ) -> Arc<Connection> {
        let bell = Bell::new(waker);
        let observer: Arc<dyn Observer> = bell.clone();
        wire.with(|engine| engine.tcp.observe(&mut engine.net, handle, Some(observer)));
        Connection::with_bell(wire, handle, bell)
    }

    pub(super) fn with_bell(wire: Arc<PacketWire>, handle: Handle, bell: Arc<Bell>) -> Arc<Connection> {
        Arc::new(Connection {
            wire,
            handle,
            bell,
            read_shut: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// Looks at the connection, or changes what sends nothing and tells nobody.
    fn look<R>(&self, act: impl FnOnce(&mut Engine) -> R) -> R {
        self.wire.look(act)
    }

    /// Sets who reads the urgent byte, if that is not so already.
    fn inline(engine: &mut Engine, handle: Handle, wanted: bool) {
        if engine.tcp.options(handle).is_some_and(|options| options.oob_inline != wanted) {
            let set = |options: &mut StreamOptions| options.oob_inline = wanted;
            let _ = engine.tcp.set_options(&mut engine.net, handle, set);
        }
    }
}

impl Transport for Connection {
    fn state(&self) -> TcpState {
        let number = self.look(|engine| engine.tcp.state(self.handle)).map_or(7, |state| state.number());
        match number {
            1 => TcpState::Established,
            2 => TcpState::SynSent,
            3 => TcpState::SynReceived,
            4 => TcpState::FinWait1,
            5 => TcpState::FinWait2,
            8 => TcpState::CloseWait,
            9 => TcpState::LastAck,
            11 => TcpState::Closing,
            _ => TcpState::Close,
        }
    }

    fn set_waker(&self, waker: Arc<dyn Waker>) {
        *self.bell.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    fn reserve(&self, want: usize) -> Result<usize> {
        let room = self.look(|engine| engine.tcp.send_room(&engine.net, self.handle)).map_err(name)?;
        Ok(room.min(want).min(PIECE))
    }

    fn commit(&self, _reserved: usize, data: Option<Buf>, urgent: bool) {
        let Some(data) = data else { return };
        // The connection may have ended since the room was asked for; the next call will tell.
        let _ = self
            .wire
            .with(|engine| engine.tcp.send_chunks(&mut engine.net, self.handle, [Chunk::from(data)], urgent));
    }

    fn take(&self, max: usize, how: TakeHow) -> Result<Taken> {
        let shut = self.read_shut.load(Ordering::Relaxed);
        let act = |engine: &mut Engine| {
            Connection::inline(engine, self.handle, how.inline_urgent);
            if shut && engine.tcp.queues(self.handle).0 == 0 {
                return (Ok(Default::default()), false);
            }
            let chunks = if how.peek {
                engine.tcp.peek(self.handle, how.skip, max)
            } else {
                engine.tcp.receive(&mut engine.net, self.handle, max)
            };
            (chunks, engine.tcp.queues(self.handle).3)
        };
        let (chunks, at_mark) = self.wire.with(act);
        let parts: Vec<Buf> = chunks.map_err(name)?.into_iter().map(Buf::from).collect();
        let len = parts.iter().map(Buf::len).sum();
        Ok(Taken { parts, len, at_mark })
    }

    fn give_back(&self, parts: Vec<Buf>) {
        self.look(|engine| {
            for part in parts.into_iter().rev() {
                engine.tcp.unread(self.handle, Chunk::from(part));
            }
        });
    }

    fn take_urgent(&self, peek: bool) -> Result<Option<u8>> {
        let got = self
            .wire
            .look(|engine| (engine.tcp.receive_urgent(self.handle, peek), engine.tcp.ready(self.handle)));
        match got {
            (Ok(byte), _) => Ok(Some(byte)),
            (Err(crate::engine::error::Error::Invalid), ready) if ready.has(Ready::READ_CLOSED) => Ok(None),
            (Err(error), _) => Err(name(error)),
        }
    }

    fn poll(&self, low: usize, inline_urgent: bool) -> Events {
        let (ready, readable, ended) = self.look(|engine| {
            let ready = engine.tcp.ready(self.handle);
            (ready, engine.tcp.queues(self.handle).0, ready.has(Ready::READ_CLOSED))
        });
        let shut = self.read_shut.load(Ordering::Relaxed);
        let mut ready = Ready(ready.0 & !Ready::READ.0);
        if readable >= low.max(1) || ended || shut {
            ready |= Ready::READ;
        }
        if shut {
            ready |= Ready::READ_CLOSED;
        }
        if inline_urgent {
            ready = Ready(ready.0 & !Ready::URGENT.0);
        }
        events(ready)
    }

    fn shutdown(&self, receive: bool, send: bool) {
        if receive {
            self.read_shut.store(true, Ordering::Relaxed);
            self.bell.changed(Ready::READ | Ready::READ_CLOSED);
        }
        if send {
            let _ = self.wire.with(|engine| engine.tcp.shutdown_write(&mut engine.net, self.handle));
        }
    }

    fn close(&self, abort: bool) -> Parting {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Parting::Free;
        }
        let state = self.state();
        let time =
            self.look(|engine| engine.tcp.options(self.handle)).map_or(Some(TIME_WAIT), |o| o.fin_timeout);
        self.wire.with(|engine| {
            if abort {
                engine.tcp.abort(&mut engine.net, self.handle);
            }
            engine.tcp.close(&mut engine.net, self.handle);
        });
        let first = matches!(
            state,
            TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing
        );
        match time {
            _ if !first || abort => Parting::Free,
            _ if state == TcpState::Closing => Parting::Wait(TIME_WAIT),
            Some(time) => Parting::Wait(time),
            None => Parting::Free,
        }
    }

    fn take_error(&self) -> Option<NetError> {
        self.look(|engine| engine.tcp.take_error(self.handle)).map(name)
    }

    fn has_error(&self) -> bool {
        self.look(|engine| engine.tcp.ready(self.handle)).has(Ready::ERROR)
    }

    fn readable(&self, inline_urgent: bool) -> usize {
        self.look(|engine| {
            Connection::inline(engine, self.handle, inline_urgent);
            engine.tcp.queues(self.handle).0
        })
    }

    fn unsent(&self) -> (usize, usize) {
        let (_, queued, unsent, _) = self.look(|engine| engine.tcp.queues(self.handle));
        (queued, unsent)
    }

    fn at_mark(&self) -> bool {
        self.look(|engine| engine.tcp.queues(self.handle)).3
    }

    fn configure(&self, wanted: &StreamOptions) {
        let _ = self.wire.with(|engine| {
            engine.tcp.set_options(&mut engine.net, self.handle, |options| {
                // The interface and who reads the urgent byte are not the options' matter.
                *options =
                    StreamOptions { interface: options.interface, oob_inline: options.oob_inline, ..*wanted };
            })
        });
    }

    fn info(&self) -> Option<TcpInfo> {
        let now = self.wire.now();
        self.look(|engine| engine.tcp.info(self.handle, now))
    }

    fn counts(&self) -> StreamCounts {
        let now = self.wire.now();
        let info = self.look(|engine| engine.tcp.info(self.handle, now)).unwrap_or_default();
        StreamCounts {
            bytes_sent: info.bytes_sent,
            bytes_received: info.bytes_received,
            segments_sent: u64::from(info.segments_out),
            segments_received: u64::from(info.segments_in),
            unacked: u64::from(info.unacked),
        }
    }

    fn saved_syn(&self, room: usize) -> Result<Vec<u8>> {
        self.look(|engine| engine.tcp.saved_syn(self.handle, room)).map_err(name)
    }

    fn timestamp(&self) -> Option<u32> {
        let now = self.wire.now();
        self.look(|engine| engine.tcp.timestamp(self.handle, now))
    }

    fn set_quick(&self, on: bool) {
        self.wire.with(|engine| engine.tcp.set_quick(&mut engine.net, self.handle, on));
    }

    fn is_quick(&self) -> Option<bool> {
        self.look(|engine| engine.tcp.is_quick(self.handle))
    }

    fn is_local(&self) -> bool {
        false
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !*self.closed.get_mut() {
            self.close(true);
        }
    }
}
