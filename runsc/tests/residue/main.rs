//! What sandboxes leave behind on the host when they end, however they end: nothing. A program of its own, since it
//! counts every process that is left to it, and other tests' processes would be among them.

#[path = "../cli/cgroups.rs"]
mod cgroups;
#[path = "../cli/harness.rs"]
#[expect(dead_code, reason = "the command line's tests need more of it")]
mod harness;
mod inventory;
mod random;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cgroups::TestGroup;
use harness::{Place, text};
use inventory::Inventory;
use random::Random;
use serde_json::json;

/// One test at a time: each counts what is there before and after.
static ALONE: Mutex<()> = Mutex::new(());

/// This program itself is what the containers run; static, it needs nothing but itself.
#[test]
#[ignore = "a guest's program"]
fn guest_ends() {}

#[test]
#[ignore = "a guest's program"]
fn guest_sleeps() {
    std::thread::sleep(Duration::from_secs(600));
}

/// A guest program with children that sleep as well.
#[test]
#[ignore = "a guest's program"]
fn guest_forks() {
    let own = std::env::current_exe().unwrap();
    let sleeper =
        |own: &Path| Command::new(own).args(["guest_sleeps", "--ignored", "--exact"]).spawn().unwrap();
    let mut children: Vec<Child> = (0..2).map(|_| sleeper(&own)).collect();
    children[0].wait().unwrap();
}

fn bundle(place: &Place, group: &TestGroup, name: &str, guest: &str) -> PathBuf {
    let bundle = place.bundle(name, |config| {
        config["process"]["args"] = json!(["/bin/prog", guest, "--ignored", "--exact", "--test-threads=1"]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", group.name()));
        config["linux"]["resources"]["pids"] = json!({"limit": 100});
        config["mounts"].as_array_mut().unwrap().extend([
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}),
            json!({"destination": "/shared", "type": "bind", "source": place.directory.path(), "options": ["rbind"]}),
        ]);
    });
    std::fs::remove_file(bundle.join("rootfs/bin/prog")).unwrap();
    std::fs::hard_link(own_copy(place), bundle.join("rootfs/bin/prog")).unwrap();
    bundle
}

/// A copy of this program, made once for a place.
fn own_copy(place: &Place) -> PathBuf {
    let copy = place.path("program");
    if !copy.exists() {
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    }
    copy
}

/// Ends a command that hangs, so that the test says so and ends.
fn finish(child: &mut Child, what: &str) -> i32 {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what} hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn spawn(place: &Place, args: &[&str]) -> Child {
    let mut command = place.command();
    let output = std::fs::File::options().create(true).append(true).open(place.path("output")).unwrap();
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}

fn ran(place: &Place, args: &[&str]) -> i32 {
    finish(&mut spawn(place, args), &args.join(" "))
}

#[test]
fn two_hundred_in_a_row() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let place = Place::new();
    let group = TestGroup::new("row");
    let rounds: u32 = 200;
    let bundles: Vec<PathBuf> =
        (0..20).map(|n| bundle(&place, &group, &format!("b{n}"), "guest_ends")).collect();
    let before = Inventory::take(&place, &group);
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for bundle in &bundles {
            let (place, next) = (&place, &next);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= rounds {
                        return;
                    }
                    let id = format!("c{number}");
                    let bundle = text(bundle);
                    // Both ways to a container.
                    if number % 2 == 0 {
                        assert_eq!(ran(place, &["run", "--bundle", bundle, &id]), 0, "run {id}");
                    } else {
                        assert_eq!(ran(place, &["create", "--bundle", bundle, &id]), 0, "create {id}");
                        assert_eq!(ran(place, &["start", &id]), 0, "start {id}");
                        assert_eq!(ran(place, &["delete", "--force", &id]), 0, "delete {id}");
                    }
                }
            });
        }
    });
    before.assert_same(&place, &group);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Create,
    Start,
    Steady,
    Exec,
    ExecDetached,
    Kill,
    Delete,
    Run,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Command,
    Sentry,
    Gofer,
}

const PHASES: [Phase; 8] = [
    Phase::Create,
    Phase::Create,
    Phase::Start,
    Phase::Steady,
    Phase::Exec,
    Phase::ExecDetached,
    Phase::Kill,
    Phase::Delete,
];

/// Process `who` of a container: on record, or while it is being created a child of the command.
fn find(place: &Place, id: &str, who: Victim, command: Option<u32>) -> Option<i32> {
    let (field, name) = match who {
        Victim::Command => return command.and_then(|pid| i32::try_from(pid).ok()),
        Victim::Sentry => ("sentry", "runsc-sentry"),
        Victim::Gofer => ("gofer", "runsc-gofer"),
    };
    let record = std::fs::read(place.root().join(id).join("state.json")).ok();
    let record: Option<serde_json::Value> = record.and_then(|json| serde_json::from_slice(&json).ok());
    let recorded = record.and_then(|r| r[field]["pid"].as_i64()).and_then(|pid| i32::try_from(pid).ok());
    recorded.or_else(|| {
        let command = command?;
        let children = std::fs::read_to_string(format!("/proc/{command}/task/{command}/children")).ok()?;
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
    })
}

fn kill(pid: i32) {
    if let Ok(handle) = hostsys::process::pidfd_open(pid) {
        let _ = hostsys::process::pidfd_send_signal(std::os::fd::AsFd::as_fd(&handle), 9);
    }
}

#[test]
fn killed_at_random_moments() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let place = Place::new();
    let group = TestGroup::new("kill");
    let mut random = Random::from_environment();
    println!("seed {} (set RUNSC_TEST_SEED)", random.seed());
    let bundle = bundle(&place, &group, "b", "guest_forks");
    let bundle = text(&bundle).to_owned();
    let before = Inventory::take(&place, &group);
    let prog = ["/bin/prog", "guest_ends", "--ignored", "--exact"];
    // How long each command takes undisturbed, so that the moments are spread over all of it. Waiting has no end.
    let mut took = [Duration::from_millis(20); 8];
    for round in 0..150 {
        let id = format!("k{round}");
        let phase = if round % 10 == 9 { Phase::Run } else { PHASES[random.below(PHASES.len())] };
        let victim = [Victim::Command, Victim::Sentry, Victim::Gofer][random.below(3)];
        let platform = ["--platform=systrap", "--platform=ptrace"][random.below(2)];
        let args = |phase: Phase| -> Vec<&str> {
            match phase {
                Phase::Create => vec![platform, "create", "--bundle", &bundle, &id],
                Phase::Run => vec![platform, "run", "--bundle", &bundle, &id],
                Phase::Start => vec!["start", &id],
                Phase::Steady => vec!["wait", &id],
                Phase::Exec => [&["exec", &id][..], &prog].concat(),
                Phase::ExecDetached => [&["exec", "--detach", &id][..], &prog].concat(),
                Phase::Kill => vec!["kill", &id, "TERM"],
                Phase::Delete => vec!["delete", "--force", &id],
            }
        };
        let timed = |phase: Phase, took: &mut [Duration; 8]| {
            let began = Instant::now();
            assert_eq!(ran(&place, &args(phase)), 0, "round {round}: {phase:?}");
            took[phase as usize] = began.elapsed();
        };
        if round == 0 {
            for phase in
                [Phase::Create, Phase::Start, Phase::Exec, Phase::ExecDetached, Phase::Kill, Phase::Delete]
            {
                timed(phase, &mut took);
            }
            took[Phase::Run as usize] = took[Phase::Create as usize] * 3;
        }
        if !matches!(phase, Phase::Create | Phase::Run) {
            timed(Phase::Create, &mut took);
            if phase != Phase::Start {
                timed(Phase::Start, &mut took);
            }
        }
        let moment = took[phase as usize].mul_f64(random.fraction() * 1.2);
        let mut command = spawn(&place, &args(phase));
        std::thread::sleep(moment);
        let killed = find(&place, &id, victim, Some(command.id()));
        if let Some(pid) = killed {
            kill(pid);
        }
        let label = format!("round {round}: {victim:?} during {phase:?} after {moment:?}");
        if victim != Victim::Command && matches!(phase, Phase::Steady | Phase::Run) && killed.is_none() {
            let _ = command.kill();
        }
        // A sandbox without its gofer may go on.
        if victim == Victim::Gofer && matches!(phase, Phase::Steady | Phase::Run) {
            let _ = command.kill();
        }
        finish(&mut command, &label);
        if phase == Phase::Run && victim == Victim::Command {
            // Nobody is left who would wait for it.
            if let Some(sentry) = find(&place, &id, Victim::Sentry, None) {
                harness::until(&label, || !harness::alive(sentry));
            }
        }
        assert_eq!(ran(&place, &["delete", "--force", &id]), 0, "{label}: {}", output(&place));
        before.assert_same_after(&place, &group, &label);
    }
}

fn output(place: &Place) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(place.path("output")) {
        let _ = file.read_to_string(&mut text);
    }
    text.lines().rev().take(5).collect::<Vec<_>>().join("\n")
}

/// `do` dies with its command, and the next one removes what that has left.
#[test]
fn do_dies_with_its_command() {
    let _alone = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    let place = Place::new();
    let group = TestGroup::new("do");
    let copy = own_copy(&place);
    // `do` shows no other directory of /tmp than the one it is started in.
    let cwd = text(place.directory.path());
    let before = Inventory::take(&place, &group);
    let mut random = Random::from_environment();
    for round in 0..6 {
        // The last ones at any moment of the start, too.
        let mut command =
            spawn(&place, &["do", "--cwd", cwd, text(&copy), "guest_sleeps", "--ignored", "--exact"]);
        let id = format!("do-{}", command.id());
        if round < 2 {
            harness::until("the sentry", || find(&place, &id, Victim::Sentry, None).is_some());
        }
        std::thread::sleep(Duration::from_millis(u64::try_from(random.below(150)).unwrap()));
        command.kill().unwrap();
        command.wait().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while inventory::reap_and_count() > 0 {
            assert!(Instant::now() < end, "round {round}: the sandbox outlives its command");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(ran(&place, &["do", "--cwd", cwd, text(&copy), "guest_ends", "--ignored", "--exact"]), 0);
    before.assert_same(&place, &group);
}
