//! Options of the header of IPv4 (RFC 791; ip(7), `IP_OPTIONS`): checked where a program gives them and where they come in,
//! filled by senders and receivers with addresses and times.

use std::net::Ipv4Addr;
use std::ops::Range;

/// Bytes of options a header has room for.
pub const MOST: usize = 40;

const END: u8 = 0;
const NOTHING: u8 = 1;
const RECORD: u8 = 7;
const TIME: u8 = 68;
const LOOSE: u8 = 131;
const STRICT: u8 = 137;
const LABEL: u8 = 134;
const ALERT: u8 = 148;
/// This bit says that an option is in all pieces of a packet.
const IN_ALL: u8 = 0x80;

/// Whose options are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Giver {
    /// A program's; whether it has `CAP_NET_RAW`.
    Program(bool),
    /// A packet's that came in.
    Packet,
}

/// What the options of a header are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A multiple of 4, at most [`MOST`].
    bytes: Vec<u8>,
    record: Option<Range<usize>>,
    time: Option<Range<usize>>,
    source_route: Option<Range<usize>>,
}

/// What a packet leaves with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub bytes: Vec<u8>,
    /// Where it goes first, if a source route says so.
    pub hop: Option<Ipv4Addr>,
}

/// Who writes something into options, and what: its address, and milliseconds since midnight UT.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub address: Ipv4Addr,
    pub time: u32,
}

impl Stamp {
    /// By nanoseconds since 1970.
    pub fn new(address: Ipv4Addr, now: u64) -> Stamp {
        let time = u32::try_from(now / 1_000_000 % 86_400_000).unwrap_or(0);
        Stamp { address, time }
    }
}

impl Options {
    /// Reads options: the place of what is wrong, counted from their first byte.
    pub fn read(given: &[u8], by: Giver) -> Result<Options, usize> {
        let mut all = Options { bytes: given.get(..MOST).unwrap_or(given).to_vec(), ..Options::default() };
        all.bytes.resize(all.bytes.len().next_multiple_of(4), END);
        let mut at = 0;
        while let Some(&kind) = all.bytes.get(at) {
            match kind {
                END => {
                    all.bytes[at..].fill(END);
                    break;
                }
                NOTHING => {
                    at += 1;
                    continue;
                }
                _ => {}
            }
            let length = all.bytes.get(at + 1).map_or(0, |length| usize::from(*length));
            if length < 2 || at + length > all.bytes.len() {
                return Err(at);
            }
            let option = at..at + length;
            let place = match kind {
                LOOSE | STRICT => all.check_source_route(&option, by)?,
                RECORD => all.check_record(&option)?,
                TIME => all.check_time(&option, by)?,
                ALERT if length < 4 => return Err(at + 1),
                ALERT => None,
                // Nobody here gives packets labels (CIPSO).
                LABEL if by != Giver::Packet => return Err(at),
                _ if by == Giver::Program(false) => return Err(at),
                _ => None,
            };
            if let Some(place) = place {
                // Once each.
                if place.replace(option).is_some() {
                    return Err(at);
                }
            }
            at += length;
        }
        Ok(all)
    }

    fn pointer(&self, option: &Range<usize>) -> usize {
        self.bytes.get(option.start + 2).map_or(0, |pointer| usize::from(*pointer))
    }

    fn check_source_route(
        &mut self,
        option: &Range<usize>,
        by: Giver,
    ) -> Result<Option<&mut Option<Range<usize>>>, usize> {
        let (at, length) = (option.start, option.len());
        if length < 3 {
            return Err(at + 1);
        }
        let pointer = self.pointer(option);
        if pointer < 4 {
            return Err(at + 2);
        }
        if by != Giver::Packet && (pointer != 4 || length < 7 || (length - 3) % 4 != 0) {
            return Err(at + 1);
        }
        Ok(Some(&mut self.source_route))
    }

    fn check_record(&mut self, option: &Range<usize>) -> Result<Option<&mut Option<Range<usize>>>, usize> {
        let (at, length) = (option.start, option.len());
        if length < 3 {
            return Err(at + 1);
        }
        let pointer = self.pointer(option);
        if pointer < 4 || (pointer <= length && pointer + 3 > length) {
            return Err(at + 2);
        }
        Ok(Some(&mut self.record))
    }

    fn check_time(
        &mut self,
        option: &Range<usize>,
        by: Giver,
    ) -> Result<Option<&mut Option<Range<usize>>>, usize> {
        let (at, length) = (option.start, option.len());
        if length < 4 {
            return Err(at + 1);
        }
        let (pointer, flags) = (self.pointer(option), self.bytes[at + 3]);
        let room = match flags & 15 {
            1 | 3 => 7,
            _ => 3,
        };
        if pointer < 5 || (pointer <= length && pointer + room > length) {
            return Err(at + 2);
        }
        let unknown = !matches!(flags & 15, 0 | 1 | 3) && by == Giver::Program(false);
        let full = pointer > length && flags & 15 != 3 && flags >> 4 == 15;
        if full || (unknown && pointer <= length) {
            return Err(at + 3);
        }
        Ok(Some(&mut self.time))
    }

    /// As getsockopt(2) tells them: as they were given, places that are free without what was in them.
    pub fn told(&self) -> &[u8] {
        &self.bytes
    }

    /// Where a packet with them goes first, if they say so.
    pub fn hop(&self) -> Option<Ipv4Addr> {
        let at = self.source_route.as_ref().filter(|route| route.len() >= 7)?.start + 3;
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.bytes.get(at..at + 4)?).ok()?))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A router on the way is chosen by whoever sent it.
    pub fn is_source_routed(&self) -> bool {
        self.source_route.is_some()
    }

    /// The options of a packet that leaves for `to`.
    pub fn sent(&self, stamp: Stamp, to: Ipv4Addr) -> Sent {
        let mut out = self.clone();
        if let Some(route) = &self.source_route
            && route.len() >= 7
        {
            // The first address is where it goes; the others move up and the last is where it ends.
            let addresses = route.start + 3..route.end;
            out.bytes.copy_within(addresses.start + 4..addresses.end, addresses.start);
            out.bytes[addresses.end - 4..addresses.end].copy_from_slice(&to.octets());
        }
        out.write(stamp, false);
        Sent { bytes: out.bytes, hop: self.hop() }
    }

    /// What becomes of them where the packet arrives.
    pub fn arrived(mut self, stamp: Stamp) -> Options {
        self.write(stamp, true);
        self
    }

    /// Writes address and time where they are asked for and there is room.
    fn write(&mut self, stamp: Stamp, arrives: bool) {
        if let Some(option) = self.record.clone() {
            self.put(&option, &stamp.address.octets());
        }
        let Some(option) = self.time.clone() else { return };
        let flags = self.bytes[option.start + 3];
        let time = stamp.time.to_be_bytes();
        let full = self.pointer(&option) > option.len();
        match flags & 15 {
            // Counted by those who receive it, and by hosts that forward.
            _ if full && arrives && flags & 15 != 3 => {
                self.bytes[option.start + 3] = (flags & 15) | ((flags >> 4) + 1) << 4;
            }
            0 => self.put(&option, &time),
            1 => self.put(&option, &[stamp.address.octets(), time].concat()),
            3 => {
                // Only whom the sender names.
                let at = option.start + self.pointer(&option).saturating_sub(1);
                if self.bytes.get(at..at + 4) == Some(&stamp.address.octets()) {
                    self.put(&option, &[stamp.address.octets(), time].concat());
                }
            }
            _ => {}
        }
    }

    /// Puts bytes where an option's pointer is, if there is room.
    fn put(&mut self, option: &Range<usize>, bytes: &[u8]) {
        let pointer = self.pointer(option);
        let at = option.start + pointer.saturating_sub(1);
        if at + bytes.len() <= option.end {
            self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
            self.bytes[option.start + 2] = u8::try_from(pointer + bytes.len()).unwrap_or(u8::MAX);
        }
    }

    /// What an answer is to have (`IP_RETOPTS`): what is recorded goes on being recorded.
    pub fn echoed(&self) -> Vec<u8> {
        let kept = [&self.record, &self.time].into_iter().flatten();
        let mut out: Vec<u8> = kept.flat_map(|option| self.bytes[option.clone()].iter().copied()).collect();
        out.resize(out.len().next_multiple_of(4), END);
        out
    }
}

/// The options of the pieces of a packet behind the first one: what is not for all is padding there.
pub fn of_later_pieces(options: &[u8]) -> Vec<u8> {
    let mut out = options.to_vec();
    let mut at = 0;
    while let Some(&kind) = out.get(at) {
        let length = match kind {
            END => break,
            NOTHING => 1,
            _ => out.get(at + 1).map_or(1, |length| usize::from(*length).max(2)),
        };
        let end = (at + length).min(out.len());
        if kind & IN_ALL == 0 {
            out[at..end].fill(NOTHING);
        }
        at = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Stamp = Stamp { address: Ipv4Addr::new(10, 0, 0, 1), time: 0x0102_0304 };
    const THERE: Stamp = Stamp { address: Ipv4Addr::new(10, 0, 0, 2), time: 0x0102_0305 };

    fn read(bytes: &[u8]) -> Options {
        Options::read(bytes, Giver::Program(false)).unwrap()
    }

    #[test]
    fn routes_are_recorded_while_there_is_room() {
        let given = read(&[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
        let sent = given.sent(HERE, THERE.address);
        assert_eq!(sent.bytes, [7, 11, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0]);
        let came = Options::read(&sent.bytes, Giver::Packet).unwrap().arrived(THERE);
        assert_eq!(came.told(), [7, 11, 12, 10, 0, 0, 1, 10, 0, 0, 2, 0]);
        assert_eq!(came.clone().arrived(HERE), came, "there is no room for a third one");
        assert_eq!(came.echoed(), came.told());
    }

    #[test]
    fn times_are_written_and_losses_counted() {
        let sent = read(&[68, 8, 5, 0, 0, 0, 0, 0]).sent(HERE, THERE.address);
        assert_eq!(sent.bytes, [68, 8, 9, 0, 1, 2, 3, 4]);
        let came = Options::read(&sent.bytes, Giver::Packet).unwrap().arrived(THERE);
        assert_eq!(came.told(), [68, 8, 9, 0x10, 1, 2, 3, 4]);
        let both = read(&[68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0]).sent(HERE, THERE.address);
        assert_eq!(both.bytes, [68, 12, 13, 1, 10, 0, 0, 1, 1, 2, 3, 4]);
        let named = [68, 12, 5, 3, 10, 0, 0, 2, 0, 0, 0, 0];
        assert_eq!(read(&named).sent(HERE, THERE.address).bytes, named);
        let came = Options::read(&named, Giver::Packet).unwrap().arrived(THERE);
        assert_eq!(came.told(), [68, 12, 13, 3, 10, 0, 0, 2, 1, 2, 3, 5]);
    }

    #[test]
    fn a_source_route_says_where_to_go_first() {
        let given = read(&[1, 131, 11, 4, 10, 0, 0, 7, 10, 0, 0, 8]);
        let sent = given.sent(HERE, THERE.address);
        assert_eq!(sent.hop, Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!(sent.bytes, [1, 131, 11, 4, 10, 0, 0, 8, 10, 0, 0, 2]);
        assert!(given.is_source_routed());
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        for (bytes, place) in [
            (&[7u8][..], 0),
            (&[7, 1, 0, 0], 0),
            (&[7, 9, 4, 0], 0),
            (&[1, 7, 3, 3], 3),
            (&[7, 7, 5, 0, 0, 0, 0], 2),
            (&[68, 3, 5, 0], 1),
            (&[68, 8, 4, 0, 0, 0, 0, 0], 2),
            (&[68, 8, 5, 1, 0, 0, 0, 0], 2),
            (&[68, 8, 9, 0xf0, 0, 0, 0, 0], 3),
            (&[68, 8, 5, 2, 0, 0, 0, 0], 3),
            (&[131, 6, 4, 1, 2, 3], 1),
            (&[7, 3, 4, 7, 3, 4, 0, 0], 3),
            (&[148, 3, 0, 0], 1),
            (&[200, 4, 0, 0], 0),
        ] {
            assert_eq!(Options::read(bytes, Giver::Program(false)), Err(place), "{bytes:?}");
        }
        assert!(Options::read(&[200, 4, 0, 0], Giver::Program(true)).is_ok());
        assert!(Options::read(&[200, 4, 0, 0], Giver::Packet).is_ok());
        assert_eq!(read(&[1, 0, 9, 9, 9]).told(), [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn later_pieces_have_what_is_for_all() {
        assert_eq!(of_later_pieces(&[7, 3, 4, 148, 4, 0, 0, 0]), [1, 1, 1, 148, 4, 0, 0, 0]);
    }
}
