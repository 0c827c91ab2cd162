//! The server against a scripted sandbox.

use std::sync::Mutex;
use std::thread;

use super::super::protocol::{ContainerStatus, ProcessInfo, Stats};
use super::*;
use crate::boot::spec::{ProcessSpec, WindowSize};

#[derive(Default)]
struct Script {
    exits: Mutex<Vec<(u32, ExitStatus)>>,
    forgotten: Mutex<Vec<u32>>,
    over: Mutex<Option<ExitStatus>>,
}

impl SandboxOps for Script {
    fn create(&self, _: &str, _: CreateArgs) -> Result<(), ControlError> {
        Ok(())
    }
    fn delete(&self, _: &str) -> Result<(), ControlError> {
        Ok(())
    }
    fn set_limits(&self, _: &str, _: &crate::boot::spec::Limits) -> Result<(), ControlError> {
        Ok(())
    }
    fn gofer_lives(&self) -> Vec<(String, Arc<OwnedFd>)> {
        Vec::new()
    }
    fn gofer_gone(&self, _: &str) {}
    fn status(&self, _: &str) -> Result<ContainerStatus, ControlError> {
        Ok(ContainerStatus::Running)
    }
    fn start(&self, _: &str) -> Result<(), ControlError> {
        Err(ControlError::new(ErrorKind::WrongStatus, "started already"))
    }
    fn exec(&self, _: &str, args: ExecArgs) -> Result<u32, ControlError> {
        assert!(matches!(args.stdio, Stdio::Streams { .. }));
        assert_eq!(args.extra_fds.len(), 1);
        Ok(7)
    }
    fn exit_status(&self, _: &str, target: WaitTarget) -> Result<Option<ExitStatus>, ControlError> {
        let pid = match target {
            WaitTarget::Init => 1,
            WaitTarget::Process(pid) => pid,
        };
        let exits = self.exits.lock().unwrap();
        Ok(exits.iter().find(|e| e.0 == pid).map(|e| e.1))
    }
    fn oom_kills(&self, _: &str) -> Result<u64, ControlError> {
        Ok(u64::try_from(self.exits.lock().unwrap().len()).unwrap())
    }
    fn forget(&self, _: &str, pid: u32) {
        self.forgotten.lock().unwrap().push(pid);
    }
    fn signal(&self, _: &str, _: SignalTarget, _: i32) -> Result<(), ControlError> {
        Ok(())
    }
    fn processes(&self, _: &str) -> Result<Vec<ProcessInfo>, ControlError> {
        Ok(Vec::new())
    }
    fn pause(&self, _: &str) -> Result<(), ControlError> {
        Ok(())
    }
    fn resume(&self, _: &str) -> Result<(), ControlError> {
        Ok(())
    }
    fn stats(&self, _: &str) -> Result<Stats, ControlError> {
        Ok(Stats::default())
    }
    fn resize(&self, _: &str, _: u32, _: WindowSize) -> Result<(), ControlError> {
        Ok(())
    }
    fn finished(&self) -> Option<ExitStatus> {
        *self.over.lock().unwrap()
    }
}

fn ask(stream: &UnixStream, op: Operation, fds: &[BorrowedFd<'_>]) -> Reply {
    wire::send(stream, &Request { container: "c".into(), op }, fds).unwrap();
    wire::receive(stream).unwrap().0
}

#[test]
fn requests_waits_and_the_end() {
    let directory = std::env::temp_dir().join(format!("control-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let script = Arc::new(Script::default());
    let bell = ExitBell::new().unwrap();
    let mut server = Server::new(listener, bell.clone(), script.clone(), None).unwrap();
    let running = thread::spawn(move || server.run().unwrap());

    let one = UnixStream::connect(&path).unwrap();
    assert!(matches!(ask(&one, Operation::Status, &[]), Reply::Status(ContainerStatus::Running)));
    match ask(&one, Operation::Start, &[]) {
        Reply::Failed(error) => assert_eq!(error.kind, ErrorKind::WrongStatus),
        other => panic!("{other:?}"),
    }

    // Two megabytes of arguments, four descriptors.
    let (a, _b) = UnixStream::pair().unwrap();
    let process = ProcessSpec {
        args: (0..64u8).map(|n| vec![0x80 | n; 8 << 10].into()).collect(),
        ..ProcessSpec::default()
    };
    let exec = |extra_fds| Operation::Exec { process: Box::new(process.clone()), extra_fds };
    let fds = [a.as_fd(); 4];
    assert!(matches!(ask(&one, exec(1), &fds), Reply::Started { pid: 7 }));
    match ask(&one, exec(9), &fds) {
        Reply::Failed(error) => assert_eq!(error.kind, ErrorKind::Invalid),
        other => panic!("{other:?}"),
    }

    // A wait is answered when its process has ended, whatever others do meanwhile.
    wire::send(
        &one,
        &Request { container: "c".into(), op: Operation::Wait { target: WaitTarget::Process(7) } },
        &[],
    )
    .unwrap();
    let two = UnixStream::connect(&path).unwrap();
    assert!(matches!(ask(&two, Operation::Pause, &[]), Reply::Done));
    bell.ring();
    script.exits.lock().unwrap().push((7, ExitStatus::Signal(9)));
    bell.ring();
    match wire::receive(&one).unwrap().0 {
        Reply::Exited(status) => assert_eq!(status.shell_code(), 137),
        other => panic!("{other:?}"),
    }
    assert_eq!(*script.forgotten.lock().unwrap(), [7]);

    // Garbage costs the peer its connection and nobody else anything.
    use std::io::Write;
    let mut three = UnixStream::connect(&path).unwrap();
    three.write_all(&[0xff; 64]).unwrap();
    assert!(wire::receive::<Reply>(&three).is_err());

    wire::send(
        &two,
        &Request { container: "c".into(), op: Operation::Wait { target: WaitTarget::Init } },
        &[],
    )
    .unwrap();
    let four = UnixStream::connect(&path).unwrap();
    assert!(matches!(ask(&four, Operation::Status, &[]), Reply::Status(_)));
    let hold = Operation::Hold { target: WaitTarget::Process(8) };
    wire::send(&four, &Request { container: "c".into(), op: hold }, &[]).unwrap();
    // The reply to this one shows that the wait before it has been read.
    assert!(matches!(ask(&one, Operation::Status, &[]), Reply::Status(_)));
    thread::sleep(Duration::from_millis(20));
    script.exits.lock().unwrap().extend([(1, ExitStatus::Code(3)), (8, ExitStatus::Signal(9))]);
    *script.over.lock().unwrap() = Some(ExitStatus::Code(3));
    bell.ring();
    assert!(matches!(wire::receive(&two).unwrap().0, Reply::Exited(ExitStatus::Code(3))));
    // Whoever stands for a process ends first.
    assert!(matches!(wire::receive(&four).unwrap().0, Reply::Exited(ExitStatus::Signal(9))));
    thread::sleep(Duration::from_millis(50));
    assert!(!running.is_finished());
    drop(four);
    assert_eq!(running.join().unwrap(), ExitStatus::Code(3));
    std::fs::remove_dir_all(&directory).unwrap();
}
