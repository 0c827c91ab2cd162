//! The walls, read from outside: what /proc says of a sandbox's processes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use crate::harness::{Place, reap, recorded_pid, text, until};
use serde_json::json;

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID.
const FILE_CAPABILITIES: u64 = 0x1f;
/// O_CLOEXEC
const CLOEXEC: u32 = 0o2_000_000;
/// In the environment of whoever starts the sandbox.
const SECRET: &str = "a-secret-of-the-caller";
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// The guest of these tests: three threads and a child, so that there are several stub processes.
#[test]
#[ignore = "a guest's program"]
fn guest_with_threads() {
    for _ in 0..2 {
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_secs(600)));
    }
    let own = std::env::current_exe().unwrap();
    let child = std::process::Command::new(own)
        .args(["posture::guest_sleeps", "--ignored", "--exact"])
        .env_clear()
        .spawn();
    println!("ready");
    child.unwrap().wait().unwrap();
}

#[test]
#[ignore = "a guest's program"]
fn guest_sleeps() {
    std::thread::sleep(std::time::Duration::from_secs(600));
}

/// Lines of a status file by their names.
fn status(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[derive(Debug)]
struct Descriptor {
    number: u32,
    target: String,
    directory: bool,
    /// Of open(2).
    flags: u32,
}

struct Process {
    pid: i32,
    status: BTreeMap<String, String>,
}

impl Process {
    fn read(pid: i32) -> Process {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        Process { pid, status: status(&text) }
    }

    fn namespace(&self, name: &str) -> String {
        std::fs::read_link(format!("/proc/{}/ns/{name}", self.pid)).unwrap().display().to_string()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }

    fn descriptors(&self) -> Vec<Descriptor> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap();
        let describe = |path: std::path::PathBuf| {
            let number = path.file_name()?.to_str()?.to_owned();
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", self.pid)).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            Some(Descriptor {
                number: number.parse().ok()?,
                target: std::fs::read_link(&path).ok()?.display().to_string(),
                directory: std::fs::metadata(&path).is_ok_and(|m| m.is_dir()),
                flags: u32::from_str_radix(flags.trim(), 8).ok()?,
            })
        };
        entries.filter_map(|entry| describe(entry.ok()?.path())).collect()
    }

    /// `status` of each thread.
    fn threads(&self) -> Vec<BTreeMap<String, String>> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        tasks
            .filter_map(|task| {
                let tid = task.ok()?.file_name().into_string().ok()?;
                Some(status(&std::fs::read_to_string(format!("/proc/{}/task/{tid}/status", self.pid)).ok()?))
            })
            .collect()
    }

    /// Every process below this one.
    fn below(&self) -> Vec<Process> {
        let mut list = Vec::new();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace() {
                let process = Process::read(pid.parse().unwrap());
                list.extend(process.below());
                list.push(process);
            }
        }
        list
    }

    /// What holds for every process of a sandbox, and in each of its threads.
    fn check_common(&self, capabilities: u64) {
        let who = format!("{} {}", self.pid, self.status["Name"]);
        let threads = self.threads();
        assert!(!threads.is_empty(), "{who}");
        for status in threads.iter().chain([&self.status]) {
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(status[set], format!("{capabilities:016x}"), "{who}: {set}");
            }
            for set in ["CapInh", "CapAmb"] {
                assert_eq!(status[set], format!("{:016x}", 0), "{who}: {set}");
            }
            assert_eq!(status["NoNewPrivs"], "1", "{who}");
            assert_eq!(status["Seccomp"], "2", "{who}");
            assert_eq!(status["Groups"], "", "{who}");
            assert_eq!(status["Uid"], self.status["Uid"], "{who}");
            assert_eq!(status["Gid"], self.status["Gid"], "{who}");
        }
        let mounts = self.file("mountinfo");
        assert!(mounts.lines().any(|l| l.contains(" / / ro,nosuid,nodev,noexec")), "{who}: {mounts}");
        for link in ["cwd", "root"] {
            let target = std::fs::read_link(format!("/proc/{}/{link}", self.pid)).unwrap();
            assert_eq!(target, Path::new("/"), "{who}: {link}");
        }
        for d in self.descriptors() {
            let stdio = d.number < 3;
            assert!(!stdio || d.target == "/dev/null", "{who}: {d:?}");
            assert!(stdio || d.flags & CLOEXEC != 0, "{who}: {d:?} would survive an execve");
        }
    }

    /// Of a stub it does not hold: an unprivileged sentry could not trace it.
    fn check_not_dumpable(&self) {
        // Files in /proc of a process that is not dumpable belong to root.
        let owner = std::fs::metadata(format!("/proc/{}/environ", self.pid)).unwrap().uid();
        assert_eq!(owner, 0, "{} is dumpable", self.pid);
    }

    /// Neither in /proc nor in memory.
    fn check_knows_no_environment(&self) {
        use std::os::unix::fs::FileExt;
        let environ = std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap();
        assert!(environ.iter().all(|byte| *byte == 0), "{}", String::from_utf8_lossy(&environ));
        let memory = std::fs::File::open(format!("/proc/{}/mem", self.pid)).unwrap();
        let mut read = 0;
        for line in self.file("maps").lines().filter(|l| l.contains(" rw-p ")) {
            let range = line.split_whitespace().next().and_then(|r| r.split_once('-')).unwrap();
            let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
            let (start, end) = (number(range.0), number(range.1));
            let mut bytes = vec![0; usize::try_from(end - start).unwrap().min(64 << 20)];
            let length = memory.read_at(&mut bytes, start).unwrap_or(0);
            read += length;
            let found = bytes[..length].windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
            assert!(!found, "{} knows the environment of its caller: {line}", self.status["Name"]);
        }
        assert!(read > 0x1_0000, "{read} bytes of memory could be read");
    }

    fn check_unmapped(&self) {
        for id in ["Uid", "Gid"] {
            let status = &self.status[id];
            assert!(status.split_whitespace().all(|id| id == "65534"), "{id}: {status}");
        }
        for map in ["uid_map", "gid_map"] {
            let text = self.file(map);
            let numbers: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(numbers, ["0", "65534", "1"], "{map}");
        }
    }
}

fn posture(platform: &str) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: another process's /proc cannot be read in full without root");
        return;
    }
    let place = Place::new();
    let shared = place.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let bundle = place.bundle("b", |c| {
        c["process"]["args"] = json!([
            "/bin/guest",
            "posture::guest_with_threads",
            "--ignored",
            "--exact",
            "--nocapture",
            "--test-threads=1"
        ]);
        c["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"]}),
            json!({"destination": "/etc/hosts", "type": "bind", "source": "/etc/hosts", "options": ["bind"]}),
        ]);
    });
    // This program itself, which needs nothing but itself.
    std::fs::copy(std::env::current_exe().unwrap(), bundle.join("rootfs/bin/guest")).unwrap();
    let output = place.path("output");
    let file = || std::fs::File::options().create(true).append(true).open(&output).unwrap();
    let mut create = place.command();
    create.arg(format!("--platform={platform}")).args(["create", "--bundle", text(&bundle), "p"]);
    create.env("A_VARIABLE", SECRET);
    let created = create.stdin(Stdio::null()).stdout(file()).stderr(file()).status().unwrap();
    let said = || std::fs::read_to_string(&output).unwrap();
    assert!(created.success(), "{}", said());
    assert_eq!(place.runsc(&["start", "p"]).code, 0);
    until("the guest", || said().contains("ready"));

    let (sentry, gofer) = (recorded_pid(&place, "p", "sentry"), recorded_pid(&place, "p", "gofer"));
    let host = Process::read(std::process::id().cast_signed());
    let s = Process::read(sentry);
    let g = Process::read(gofer);

    s.check_common(0);
    s.check_not_dumpable();
    s.check_knows_no_environment();
    s.check_unmapped();
    // First and only process of a PID namespace of its own, beside its stubs.
    assert!(s.status["NSpid"].ends_with("\t1"), "{}", s.status["NSpid"]);
    assert_eq!(s.file("mountinfo").lines().count(), 1);
    for name in NAMESPACES {
        assert_ne!(s.namespace(name), host.namespace(name), "{name}");
    }
    for d in s.descriptors() {
        // A directory would be a way to names of the host.
        assert!(!d.directory, "the sentry holds a directory: {d:?}");
    }

    // Guest code runs in these and nowhere else.
    let stubs = s.below();
    let guests: usize = stubs.iter().map(|stub| stub.threads().len()).sum();
    assert!(stubs.len() >= 2 && guests >= 4, "{} stubs with {guests} threads", stubs.len());
    for stub in &stubs {
        stub.check_common(0);
        stub.check_unmapped();
        assert_eq!(stub.file("mountinfo").lines().count(), 1);
        for name in NAMESPACES {
            assert_eq!(stub.namespace(name), s.namespace(name), "{name}");
        }
        assert!(stub.descriptors().iter().all(|d| !d.directory), "a stub holds a directory");
        // The text of the stub, its tables, what the guest has; nothing of the sentry's program.
        let program = env!("CARGO_BIN_EXE_runsc");
        assert!(!stub.file("maps").contains(program), "{}", stub.file("maps"));
    }

    g.check_common(FILE_CAPABILITIES);
    g.check_not_dumpable();
    g.check_knows_no_environment();
    assert!(g.status["NSpid"].ends_with("\t1"), "{}", g.status["NSpid"]);
    assert!(g.below().is_empty(), "the gofer has children");
    for name in NAMESPACES.into_iter().filter(|n| *n != "cgroup") {
        assert_ne!(g.namespace(name), host.namespace(name), "{name}");
        assert_ne!(g.namespace(name), s.namespace(name), "{name}");
    }
    // Its own root and the one file that must have a name; trees are attached nowhere.
    let mounts = g.file("mountinfo");
    assert_eq!(mounts.lines().count(), 2, "{mounts}");
    assert!(mounts.contains("/etc/hosts"), "{mounts}");

    assert_eq!(place.runsc(&["delete", "--force", "p"]).code, 0);
    reap(sentry);
    reap(gofer);
    assert!(!Path::new(&format!("/proc/{sentry}")).exists());
}

#[test]
fn all_processes_are_confined_on_systrap() {
    posture("systrap");
}

#[test]
fn all_processes_are_confined_on_ptrace() {
    posture("ptrace");
}
