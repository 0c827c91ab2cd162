//! The thread that waits for frames, timers of the stack and news of the host's interfaces. It sleeps while there is
//! nothing: an idle sandbox costs no processor time, however many connections it has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netstack::{Alarm, PacketWire, Stack};

use super::Donation;
use super::conversation::Conversations;
use super::front_door::FrontDoor;
use super::host_links::HostLinks;
use super::hostsys::rtnetlink;
use super::hostsys::socket::{Interest, Waker, wait};
use super::name_server::Names;
use super::packet_link::Room;

/// News come in swarms (a new interface is moved, named, given addresses, set up): they are looked at when this long
/// has passed since the first one.
const SETTLE: Duration = Duration::from_millis(5);

/// Wakes the thread when a timer is due earlier than it knows.
struct Bell(Arc<Waker>);

impl Alarm for Bell {
    fn earlier(&self) {
        self.0.wake();
    }
}

struct Runner {
    bell: Arc<Bell>,
    wire: Option<Arc<PacketWire>>,
    links: HostLinks,
    news: OwnedFd,
    names: Option<(Arc<Names>, Conversations)>,
    door: Option<FrontDoor>,
    /// When the host's interfaces are to be looked at again.
    look: Option<Instant>,
    room: Room,
}

/// Gives a stack the interfaces of the namespace that the descriptors are from, and a thread that serves them.
pub fn start(stack: &Arc<Stack>, donation: Donation) -> io::Result<()> {
    let waker = Arc::new(Waker::new()?);
    let bell = Arc::new(Bell(waker.clone()));
    let wire = PacketWire::new(stack, bell.clone());
    serve(stack, donation, bell, Some(wire))
}

/// Shows a stack the interfaces of the namespace that the descriptors are from.
pub fn show(stack: &Arc<Stack>, donation: Donation) -> io::Result<()> {
    serve(stack, donation, Arc::new(Bell(Arc::new(Waker::new()?))), None)
}

fn serve(
    stack: &Arc<Stack>,
    donation: Donation,
    bell: Arc<Bell>,
    wire: Option<Arc<PacketWire>>,
) -> io::Result<()> {
    let Donation { questions, news, names, steered, packets, keeper, settings: _, tables: _ } = donation;
    let names = names.map(|server| (Names::new(server, stack, bell.0.clone()), Conversations::default()));
    let door = steered.map(|steered| FrontDoor::new(steered, stack, bell.0.clone()));
    let mut links = HostLinks::new(questions, packets, keeper, stack.clone(), wire.clone());
    links.update()?;
    let mut runner = Runner { bell, wire, links, news, names, door, look: None, room: Room::default() };
    std::thread::Builder::new().name("net".to_owned()).spawn(move || {
        let error = loop {
            if let Err(error) = runner.round() {
                break error;
            }
        };
        tracing::error!("the network is gone: {error}");
    })?;
    Ok(())
}

impl Runner {
    /// Waits for something and deals with it.
    fn round(&mut self) -> io::Result<()> {
        let timer = self.wire.as_ref().and_then(|wire| Some(wire.until(wire.drive(0, [])?)));
        let look = self.look.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = match (timer, look) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let mut interests = vec![Interest::read(self.bell.0.as_fd()), Interest::read(self.news.as_fd())];
        interests.extend(self.links.links().map(|(_, link)| Interest::read(link.fd().as_fd())));
        let links = interests.len();
        if let Some((names, conversations)) = &self.names {
            interests.push(Interest::read(names.fd()));
            interests.extend(conversations.interests());
        }
        let names = interests.len();
        if let Some(door) = &mut self.door {
            door.follow();
            interests.extend(door.interests());
        }
        wait(&mut interests, timeout)?;
        let mut ready: Vec<bool> = interests.iter().map(|interest| interest.readable).collect();
        let mut ready_names: Vec<(bool, bool)> =
            interests.iter().skip(links).map(|interest| (interest.readable, interest.writable)).collect();
        let ready_door = ready_names.split_off(names - links);
        ready.truncate(links);
        if ready.first() == Some(&true) {
            self.bell.0.clear();
        }
        if ready.get(1) == Some(&true) {
            rtnetlink::take_news(&self.news);
            self.look.get_or_insert_with(|| Instant::now() + SETTLE);
        }
        for ((index, link), ready) in self.links.links().zip(ready.get(2..).unwrap_or_default()) {
            if *ready {
                let mut frames = Vec::new();
                // An error says that the interface is down or gone, of which there are news as well.
                let _ = link.receive(&mut self.room, |frame| frames.push(frame));
                if let Some(wire) = &self.wire {
                    wire.drive(index, frames);
                }
            }
        }
        if let (Some((names, conversations)), Some((own, others))) =
            (&mut self.names, ready_names.split_first())
        {
            if own.0 {
                names.answers();
            }
            names.carry(conversations, others);
        }
        if let Some(door) = &mut self.door {
            door.serve(&ready_door);
        }
        if self.look.is_some_and(|at| at <= Instant::now()) {
            self.look = None;
            self.links.update()?;
        }
        Ok(())
    }
}
