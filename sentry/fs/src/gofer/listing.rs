//! The entries of a directory as they were at one moment, sorted by name.

use abi::stat::FileType;
use gofer_protocol::{Entry, Node, Stat};

use super::GoferFs;
use abi::Result;

/// Directories with more entries are listed without attributes: most of those are wanted by nobody.
const MAX_WITH_STAT: usize = 8192;

#[derive(Debug)]
struct Item {
    ino: u64,
    name: (u32, u16),
    kind: FileType,
    /// Place in `stats`, or `u32::MAX`.
    stat: u32,
}

/// A whole directory.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    items: Vec<Item>,
    stats: Vec<Stat>,
    /// That of the file system when it was read.
    generation: u64,
}

impl Listing {
    /// Reads a directory in as few calls as it takes; `None` if it takes more than `max_calls`.
    pub fn read(
        fs: &GoferFs,
        route: (Node, &[Box<[u8]>]),
        with_stat: bool,
        max_calls: u32,
    ) -> Result<Option<Listing>> {
        let mut listing = Listing { generation: fs.generation(), ..Listing::default() };
        let mut cookie = 0;
        for call in 0..=max_calls {
            if call == max_calls {
                return Ok(None);
            }
            let with_stat = with_stat && listing.items.len() < MAX_WITH_STAT;
            let connection = fs.connection();
            let mut batch = Vec::new();
            let done = connection.readdir(route, cookie, with_stat, |entry, name, stat| {
                let start = u32::try_from(listing.names.len()).unwrap_or(u32::MAX);
                let kind = FileType::from_mode(entry.kind << 12).unwrap_or(FileType::Regular);
                listing.names.extend_from_slice(name);
                batch.push((entry.ino, (start, u16::try_from(name.len()).unwrap_or(0)), kind, stat));
            })?;
            for (ino, name, kind, stat) in batch {
                let (ino, kind, index) = match stat {
                    Some(stat) => {
                        let index = u32::try_from(listing.stats.len()).unwrap_or(u32::MAX);
                        listing.stats.push(stat);
                        (fs.number(&stat), FileType::from_mode(fs.dressed(stat).mode).unwrap_or(kind), index)
                    }
                    None if kind == FileType::Regular => {
                        (ino, fs.devices.kind(ino).unwrap_or(kind), u32::MAX)
                    }
                    None => (ino, kind, u32::MAX),
                };
                listing.items.push(Item { ino, name, kind, stat: index });
            }
            cookie = done.next;
            if done.end {
                break;
            }
        }
        let Listing { names, items, .. } = &mut listing;
        let text = |item: &Item| slice(names, item.name);
        items.sort_unstable_by(|a, b| text(a).cmp(text(b)));
        items.dedup_by(|a, b| text(a) == text(b));
        items.shrink_to_fit();
        Ok(Some(listing))
    }

    /// Number, type and name of the entry at `index`.
    pub fn entry(&self, index: usize) -> Option<(u64, FileType, &[u8])> {
        let item = self.items.get(index)?;
        Some((item.ino, item.kind, slice(&self.names, item.name)))
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// `None`: no such entry. `Some(None)`: there is, but its attributes are not known, or not any more.
    pub fn find(&self, fs: &GoferFs, name: &[u8]) -> Option<Option<Entry>> {
        let index = self.items.binary_search_by(|item| slice(&self.names, item.name).cmp(name)).ok()?;
        let stat = self.items.get(index).and_then(|item| self.stats.get(usize::try_from(item.stat).ok()?));
        let stat = stat.filter(|_| self.generation == fs.generation());
        Some(stat.map(|stat| Entry { handle: 0, stat: *stat }))
    }
}

fn slice(names: &[u8], (start, len): (u32, u16)) -> &[u8] {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    start.checked_add(usize::from(len)).and_then(|end| names.get(start..end)).unwrap_or_default()
}
