//! What there is on the host that a sandbox could have left: processes, mounts, cgroups, files; and what the test holds open itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroups::TestGroup;
use crate::harness::Place;

#[derive(Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Lines of mountinfo.
    mounts: BTreeSet<String>,
    /// Directories below the test's own group, in all hierarchies.
    cgroups: BTreeSet<String>,
    /// Of the test itself, which must not keep what it opens for a sandbox. Those of sandboxes end with their processes.
    own_descriptors: usize,
    /// Of the state directory and the directory for temporary files.
    files: BTreeSet<String>,
}

/// Takes the status of everything that has ended and was left to this process; the number of those that run on.
pub fn reap_and_count() -> usize {
    use rustix::process::{WaitOptions, wait};
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    descendants().len()
}

/// Every process below this one. Those that a sandbox's end leaves without a parent come to this one, which is a
/// subreaper.
fn descendants() -> Vec<String> {
    let mut list = Vec::new();
    let mut known = BTreeSet::from([std::process::id()]);
    let stats: Vec<(u32, u32, String)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent, format!("{name}) {}", rest.get(..4)?)))
        })
        .collect();
    loop {
        let size = known.len();
        for (pid, parent, text) in &stats {
            if known.contains(parent) && known.insert(*pid) {
                list.push(text.clone());
            }
        }
        if known.len() == size {
            return list;
        }
    }
}

fn files(directory: &Path, list: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        list.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), list);
        }
    }
}

impl Inventory {
    pub fn take(place: &Place, group: &TestGroup) -> Inventory {
        let mut list = BTreeSet::new();
        // Bundles, logs and the output file are the test's own; the state is not.
        files(&place.root(), &mut list);
        for entry in std::fs::read_dir(place.directory.path()).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !["log.json", "output", "state"].contains(&name.as_str()) {
                list.insert(name);
            }
        }
        // What another program mounts meanwhile is no concern of this one.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = place.directory.path().display().to_string();
        let mounts =
            mounts.lines().filter(|l| l.contains(&own) || l.contains("runsc")).map(str::to_owned).collect();
        let own_descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        Inventory { mounts, cgroups: group.below(), own_descriptors, files: list }
    }

    pub fn assert_same(&self, place: &Place, group: &TestGroup) {
        self.assert_same_after(place, group, "at the end");
    }

    pub fn assert_same_after(&self, place: &Place, group: &TestGroup, label: &str) {
        // Processes that have been killed need a moment to be gone.
        let end = Instant::now() + Duration::from_secs(10);
        while reap_and_count() > 0 {
            assert!(Instant::now() < end, "{label}: processes are left: {:?}", descendants());
            std::thread::sleep(Duration::from_millis(5));
        }
        let now = Inventory::take(place, group);
        assert!(*self == now, "{label}:\nbefore {self:#?}\nafter {now:#?}");
    }
}
