//! Cgroups of tests: named after the test's process, gone when the value is dropped, and swept up by the next run
//! if the test was killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PREFIX: &str = "runsc-test-";

pub struct TestGroup {
    name: String,
}

/// The mounted hierarchies, v1's and v2's.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            fields.next()?.starts_with("cgroup").then(|| path.into())
        })
        .collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

fn remove(directory: &Path) {
    for child in children(directory) {
        remove(&child);
    }
    let _ = std::fs::remove_dir(directory);
}

impl TestGroup {
    pub fn new(name: &str) -> TestGroup {
        for hierarchy in hierarchies() {
            for group in children(&hierarchy) {
                let owner =
                    group.file_name().and_then(|n| n.to_str()?.strip_prefix(PREFIX)?.split('-').next());
                if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                    remove(&group);
                }
            }
        }
        TestGroup { name: format!("{PREFIX}{}-{name}", std::process::id()) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What there is below it now.
    pub fn below(&self) -> BTreeSet<String> {
        let groups = hierarchies().into_iter().flat_map(|h| children(&h.join(&self.name)));
        groups.map(|path| path.display().to_string()).collect()
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        for hierarchy in hierarchies() {
            remove(&hierarchy.join(&self.name));
        }
    }
}
