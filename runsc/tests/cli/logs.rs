//! What a sandbox says of itself: the debug log, the calls of `--strace`, and the last words of a sentry.

use std::io::Write;
use std::process::Stdio;

use crate::harness::{Done, Place, recorded_pid, run, text, until};
use serde_json::json;

/// Calls that a guest makes from one place.
const OFTEN: u64 = 600;

#[test]
#[ignore = "a guest's program"]
fn guest_that_is_traced() {
    assert!(std::fs::File::open("/no/such/file").is_err());
    std::io::stdout().write_all(&[b'w'; 3000]).unwrap();
    std::io::stdout().flush().unwrap();
    let me = rustix::process::getpid();
    // The first process of a container is deaf to it.
    rustix::process::kill_process(me, rustix::process::Signal::USR1).unwrap();
    std::process::exit(7);
}

#[test]
#[ignore = "a guest's program"]
fn guest_that_calls_often() {
    for _ in 0..OFTEN {
        assert!(std::fs::File::open("/no/such/file").is_err());
    }
}

#[test]
#[ignore = "a guest's program"]
fn guest_that_stays() {
    println!("ready");
    std::thread::sleep(std::time::Duration::from_secs(600));
}

/// A bundle with one of these tests as its program.
fn bundle(place: &Place, test: &str) -> std::path::PathBuf {
    let bundle = place.bundle("b", |c| {
        let test = format!("logs::{test}");
        c["process"]["args"] =
            json!(["/bin/guest", test, "--ignored", "--exact", "--nocapture", "--test-threads=1"]);
    });
    std::fs::copy(std::env::current_exe().unwrap(), bundle.join("rootfs/bin/guest")).unwrap();
    bundle
}

/// Runs it: what it did, and the messages of the debug log.
fn logged(place: &Place, platform: &str, flags: &[&str], test: &str) -> (Done, Vec<String>) {
    let bundle = bundle(place, test);
    let log = place.path(&format!("debug-{platform}.json"));
    let mut command = place.command();
    command.arg(format!("--platform={platform}")).arg("--debug-log").arg(&log).args(flags);
    let done = run(command.args(["run", "--bundle", text(&bundle), "l"]));
    let lines = std::fs::read_to_string(&log).unwrap();
    let message = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["msg"].as_str().unwrap().to_owned()
    };
    (done, lines.lines().map(message).collect())
}

#[test]
fn strace_shows_calls_and_results() {
    for platform in ["systrap", "ptrace"] {
        let place = Place::new();
        let (done, lines) = logged(&place, platform, &["--strace"], "guest_that_is_traced");
        assert_eq!(done.code, 7, "{done:?}");
        // A task's number in three columns, then the call as strace has it: flags as numbers, names in quotes, data by its address.
        let call = |line: &str| {
            let (task, call) = line.strip_prefix('[')?.split_once("] ")?;
            let number = task.trim_start().parse::<u32>();
            (task.len() == 3 && number.is_ok()).then(|| call.to_owned())
        };
        let calls: Vec<String> = lines.iter().filter_map(|line| call(line)).collect();
        for expected in [
            "openat(AT_FDCWD, \"/no/such/file\", 0x80000, 0) = -1 ENOENT (No such file or directory)",
            "kill(1, 10) = 0",
            "exit_group(7) = ?",
        ] {
            assert!(calls.iter().any(|c| c == expected), "{platform}: no {expected} in {calls:#?}");
        }
        let write = |c: &&String| c.starts_with("write(1, 0x") && c.ends_with(", 3000) = 3000");
        assert_eq!(calls.iter().filter(write).count(), 1, "{calls:#?}");
        assert!(!lines.iter().any(|line| line.contains("wwwwwwww")), "a guest's data is in the log");
    }
}

#[test]
fn calls_of_a_process_are_counted() {
    let place = Place::new();
    let (done, lines) = logged(&place, "systrap", &[], "guest_that_calls_often");
    assert_eq!(done.code, 0, "{done:?}");
    let counts: Vec<[u64; 3]> = lines
        .iter()
        .filter_map(|line| {
            let counts = line.strip_prefix("calls of a process ")?;
            let number = |name: &str| {
                let value = counts.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
                value.parse::<u64>().unwrap()
            };
            Some([number("trapped="), number("patched="), number("sites=")])
        })
        .collect();
    let guest = counts.iter().find(|[_, patched, _]| *patched >= OFTEN - 100);
    let [trapped, patched, sites] = guest.unwrap_or_else(|| panic!("{counts:?} of {lines:#?}"));
    // A place must trap a few times before it is worth a patch, and a program makes some hundred calls before it comes to its own.
    assert!((6..OFTEN).contains(trapped) && (1..100).contains(sites), "{trapped} {patched} {sites}");
}

#[test]
fn last_words_of_a_sentry_are_told() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: another process's descriptors cannot be opened without root");
        return;
    }
    let place = Place::new();
    let bundle = bundle(&place, "guest_that_stays");
    let output = place.path("output");
    let file = || std::fs::File::options().create(true).append(true).open(&output).unwrap();
    let mut command = place.command();
    command.args(["run", "--bundle", text(&bundle), "w"]);
    let mut child = command.stdin(Stdio::null()).stdout(file()).stderr(file()).spawn().unwrap();
    until("the guest", || std::fs::read_to_string(&output).unwrap().contains("ready"));
    let sentry = recorded_pid(&place, "w", "sentry");
    // The pipe that it would write to if it panicked: the one that does not block.
    let pipe = std::fs::read_dir(format!("/proc/{sentry}/fd")).unwrap().flatten().find(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let info = std::fs::read_to_string(format!("/proc/{sentry}/fdinfo/{name}")).unwrap_or_default();
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy().starts_with("pipe:") && info.contains("04001\n")
    });
    let mut pipe = std::fs::File::options().write(true).open(pipe.expect("a pipe").path()).unwrap();
    let mut said = b"panicked at a.rs:1:2:\nno \x1b[2J".to_vec();
    said.extend([b'x'; 20_000]);
    pipe.write_all(&said).unwrap();
    drop(pipe);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(sentry).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
    let messages = place.messages();
    let told =
        messages.iter().find(|m| m.contains("It has said: ")).unwrap_or_else(|| panic!("{messages:?}"));
    assert!(told.contains(r"panicked at a.rs:1:2: no \u{1b}[2Jxxx"), "{told}");
    assert!(told.len() < 1200 && told.bytes().all(|b| (b' '..=b'~').contains(&b)), "{told}");
}
