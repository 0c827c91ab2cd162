//! Network figures over a cable between two namespaces, and on loopback: natively (a second namespace and nothing else), in
//! runc and in runsc, in turn. The programs are the host's: iperf3, redis-server and redis-benchmark, nginx, wrk; and
//! `micro`, for the round trips of a byte.

use crate::Options;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is measured, and the share of the native figure that is aimed at.
pub const MEASURES: [(&str, &str, f64); 11] = [
    ("tcp_in", "Gbit/s", 0.8),
    ("tcp_out", "Gbit/s", 0.8),
    ("udp_in", "packets/s", 0.0),
    ("redis_get", "requests/s", 0.45),
    ("redis_get_p16", "requests/s", 0.7),
    ("nginx_1k", "requests/s", 0.4),
    ("lo_tcp", "Gbit/s", 0.6),
    ("lo_one_byte", "round trips/s", 0.25),
    ("lo_redis_get", "requests/s", 0.45),
    ("lo_redis_get_p16", "requests/s", 0.7),
    ("idle_ticks", "in 5 s", 0.0),
];

/// Figures of one runtime by measure, one of each round.
pub struct Runtime {
    pub name: &'static str,
    pub figures: BTreeMap<&'static str, Vec<f64>>,
    pub troubles: Vec<String>,
}

impl Runtime {
    fn note(&mut self, name: &'static str, figure: Result<f64, String>) {
        match figure {
            Ok(figure) => self.figures.entry(name).or_default().push(figure),
            Err(why) => self.troubles.push(format!("{name}: {why}")),
        }
    }
}

const GUEST: &str = "10.79.0.2";

struct Place {
    id: String,
    work: PathBuf,
    micro: PathBuf,
    runtime: Option<(PathBuf, Vec<String>)>,
}

/// Ends what it holds.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn quiet(program: &str, arguments: &str) -> bool {
    let done = Command::new(program).args(arguments.split_whitespace()).stdin(Stdio::null()).output();
    done.is_ok_and(|out| out.status.success())
}

fn in_namespace(name: &str, command: &[&str]) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--net=/run/netns/{name}")).args(command).stdin(Stdio::null());
    nsenter
}

fn output(mut command: Command) -> Result<String, String> {
    let out = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() { Ok(text) } else { Err(format!("{command:?}: {} {text}", out.status)) }
}

impl Place {
    fn new(
        name: &'static str,
        micro: PathBuf,
        runtime: Option<(PathBuf, Vec<String>)>,
    ) -> Result<Place, String> {
        let id = format!("bnet{}-{name}", std::process::id());
        let place = Place { work: std::env::temp_dir().join(&id), id, micro, runtime };
        place.set_up().inspect_err(|_| place.tear_down())?;
        Ok(place)
    }

    fn set_up(&self) -> Result<(), String> {
        let (out, inside) = (self.outside(), self.inside());
        for command in [
            format!("netns add {out}"),
            format!("netns add {inside}"),
            format!("-n {out} link set lo up"),
            format!("-n {inside} link set lo up"),
            format!("-n {out} link add out0 type veth peer name eth0 netns {inside}"),
            format!("-n {out} addr add 10.79.0.1/24 dev out0"),
            format!("-n {out} link set out0 up"),
            format!("-n {inside} addr add {GUEST}/24 dev eth0"),
            format!("-n {inside} link set eth0 up"),
        ] {
            if !quiet("ip", &command) {
                return Err(format!("ip {command}"));
            }
        }
        std::fs::create_dir_all(self.work.join("www")).map_err(|e| e.to_string())?;
        if let Some(mut run) = self.command(&["run", "--detach", "--bundle"]) {
            std::fs::create_dir_all(self.root()).map_err(|e| e.to_string())?;
            if !quiet("mount", &format!("--bind / {}", self.root().display())) {
                return Err("no bind mount for the root".to_owned());
            }
            std::fs::write(self.work.join("config.json"), self.config().to_string())
                .map_err(|e| e.to_string())?;
            let log = self.work.join("stderr");
            let to_log = std::fs::File::create(&log).map_err(|e| e.to_string())?;
            run.arg(&self.work).arg(&self.id).stdout(Stdio::null()).stderr(to_log);
            let status = run.status().map_err(|e| e.to_string())?;
            if !status.success() {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{run:?}: {status}: {}", said.lines().last().unwrap_or_default()));
            }
        }
        Ok(())
    }

    fn tear_down(&self) {
        if let Some(mut delete) = self.command(&["delete", "--force"]) {
            let _ = delete.arg(&self.id).output();
        }
        quiet("ip", &format!("netns del {}", self.outside()));
        quiet("ip", &format!("netns del {}", self.inside()));
        let _ = std::fs::remove_dir_all(&self.work);
        // Not below the other one, and not with what is in it: should the mount stay, the host's root would go.
        quiet("umount", &self.root().display().to_string());
        let _ = std::fs::remove_dir(self.root());
    }

    /// A bind mount of the host's root; runc takes none that is "/".
    fn root(&self) -> PathBuf {
        std::env::temp_dir().join(format!("{}-root", self.id))
    }

    fn outside(&self) -> String {
        format!("{}-out", self.id)
    }

    fn inside(&self) -> String {
        format!("{}-in", self.id)
    }

    fn command(&self, arguments: &[&str]) -> Option<Command> {
        let (program, options) = self.runtime.as_ref()?;
        let mut command = Command::new(program);
        command.arg("--root").arg(self.work.join("state")).args(options).args(arguments).stdin(Stdio::null());
        Some(command)
    }

    fn config(&self) -> Value {
        let capabilities =
            ["CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE"];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["sleep", "1000"], "cwd": "/",
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20000, "soft": 20000}]
            },
            "root": {"path": self.root(), "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
                {"destination": "/run", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/mnt", "type": "bind", "source": self.work.join("www"), "options": ["bind", "ro"]}
            ],
            "linux": {"namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                {"type": "network", "path": format!("/run/netns/{}", self.inside())}
            ]}
        })
    }

    /// A command inside.
    fn within(&self, command: &[&str]) -> Command {
        match self.command(&["exec", &self.id]) {
            Some(mut exec) => {
                exec.args(command);
                exec
            }
            None => in_namespace(&self.inside(), command),
        }
    }

    fn server(&self, command: &[&str], port: u16) -> Result<Server, String> {
        let mut server = self.within(command);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        let server = Server(server.spawn().map_err(|e| e.to_string())?);
        let end = Instant::now() + Duration::from_secs(10);
        let probe = format!("exec 3<>/dev/tcp/{GUEST}/{port}");
        while Instant::now() < end {
            if in_namespace(&self.outside(), &["bash", "-c", &probe])
                .output()
                .is_ok_and(|o| o.status.success())
            {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("{command:?} does not serve port {port}"))
    }

    /// Ends every process of that name inside.
    fn end(&self, name: &str) {
        // The native place shares the host's processes: there the server was its own child and is gone.
        if self.runtime.is_some() {
            let _ = self.within(&["bash", "-c", &format!("for p in /proc/[0-9]*; do read -r n < $p/comm; [ \"$n\" = {name} ] && kill -9 ${{p#/proc/}}; done")]).output();
        }
    }

    fn outer(&self, command: &[&str]) -> Result<String, String> {
        output(in_namespace(&self.outside(), command))
    }

    fn measure(&self, options: &Options, runtime: &mut Runtime) {
        self.streams(options, runtime);
        self.redis(options, runtime);
        if options.wants("lo_one_byte") {
            let micro = self.micro.to_string_lossy();
            let bytes = output(self.within(&[&micro, "echo"]));
            let figure = bytes.and_then(|t| t.trim().parse().map_err(|_| format!("no figure in {t:?}")));
            runtime.note("lo_one_byte", figure);
        }
        if options.wants("nginx_1k") {
            runtime.note("nginx_1k", self.nginx());
            self.end("nginx");
        }
        if options.wants("idle_ticks") {
            runtime.note("idle_ticks", self.idle());
            self.end("python3");
        }
    }

    /// The server of measures, if one of them is wanted; why it does not serve is noted with the first.
    fn server_of(
        &self,
        measures: &[&'static str],
        options: &Options,
        runtime: &mut Runtime,
        command: &[&str],
        port: u16,
    ) -> Option<Server> {
        let first = measures.iter().find(|name| options.wants(name))?;
        self.server(command, port).map_err(|why| runtime.note(first, Err(why))).ok()
    }

    fn streams(&self, options: &Options, runtime: &mut Runtime) {
        let measures = ["tcp_in", "tcp_out", "udp_in", "lo_tcp"];
        if let Some(_server) = self.server_of(&measures, options, runtime, &["iperf3", "-s"], 5201) {
            for name in measures.into_iter().filter(|name| options.wants(name)) {
                let host = if name == "lo_tcp" { "127.0.0.1" } else { GUEST };
                let mut client = vec!["iperf3", "-c", host, "-J", "-t", "2"];
                match name {
                    "tcp_out" => client.push("-R"),
                    "udp_in" => client.extend(["-u", "-b", "0", "-l", "64"]),
                    _ => {}
                }
                let text = if name == "lo_tcp" { output(self.within(&client)) } else { self.outer(&client) };
                let figure = text.and_then(|t| if name == "udp_in" { packets(&t) } else { gigabits(&t) });
                runtime.note(name, figure);
            }
            self.end("iperf3");
        }
    }

    fn redis(&self, options: &Options, runtime: &mut Runtime) {
        let redis =
            ["redis-server", "--protected-mode", "no", "--save", "", "--bind", "0.0.0.0", "--dir", "/tmp"];
        let kinds = [
            ("redis_get", GUEST, "60000", "1"),
            ("redis_get_p16", GUEST, "300000", "16"),
            ("lo_redis_get", "127.0.0.1", "60000", "1"),
            ("lo_redis_get_p16", "127.0.0.1", "300000", "16"),
        ];
        let measures = kinds.map(|(name, ..)| name);
        if let Some(_server) = self.server_of(&measures, options, runtime, &redis, 6379) {
            for (name, host, requests, pipeline) in kinds.into_iter().filter(|kind| options.wants(kind.0)) {
                let line =
                    format!("redis-benchmark -h {host} -t get --csv -c 20 -n {requests} -P {pipeline}");
                let client: Vec<&str> = line.split(' ').collect();
                let text = if host == GUEST { self.outer(&client) } else { output(self.within(&client)) };
                runtime.note(name, text.and_then(|t| requests_of_csv(&t)));
            }
            self.end("redis-server");
        }
    }

    fn nginx(&self) -> Result<f64, String> {
        let www = self.work.join("www");
        let root = if self.runtime.is_some() { Path::new("/mnt") } else { &www };
        std::fs::write(www.join("f"), [b'x'; 1024]).map_err(|e| e.to_string())?;
        let own = if self.runtime.is_some() { PathBuf::from("/tmp/nginx") } else { self.work.join("nginx") };
        let configuration = format!(
            "worker_processes 1; master_process off; daemon off; pid {0}.pid; error_log /dev/null; user root; events {{ worker_connections 1024; }} \
             http {{ access_log off; client_body_temp_path {0}.1; proxy_temp_path {0}.2; fastcgi_temp_path {0}.3; \
             uwsgi_temp_path {0}.4; scgi_temp_path {0}.5; server {{ listen 8080; root {1}; }} }}",
            own.display(),
            root.display()
        );
        std::fs::write(www.join("nginx.conf"), configuration).map_err(|e| e.to_string())?;
        let file = root.join("nginx.conf");
        let server =
            self.server(&["nginx", "-e", "/dev/null", "-c", file.to_str().unwrap_or_default()], 8080);
        let wrk = ["wrk", "-c", "64", "-t", "1", "-d", "2s", &format!("http://{GUEST}:8080/f")];
        let text = server.and_then(|_server| self.outer(&wrk));
        let number = |text: String| {
            let line = text.lines().find_map(|l| l.strip_prefix("Requests/sec:")).map(str::to_owned);
            line.and_then(|l| l.trim().parse().ok()).ok_or(format!("no figure in {text:?}"))
        };
        text.and_then(number)
    }

    /// Processor time of the sandbox's processes with 100 idle connections.
    fn idle(&self) -> Result<f64, String> {
        if self.runtime.as_ref().is_none_or(|(program, _)| !program.ends_with("runsc")) {
            return Ok(0.0);
        }
        let code = "import socket,time;s=socket.socket();s.setsockopt(1,2,1);s.bind(('',7000));s.listen(200);l=[]\n\
                    while True: l.append(s.accept())";
        let _server = self.server(&["python3", "-c", code], 7000)?;
        let client = format!(
            "import socket,time;l=[socket.create_connection(('{GUEST}',7000)) for _ in range(100)];time.sleep(12)"
        );
        let mut client = in_namespace(&self.outside(), &["python3", "-c", &client]);
        let _client = Server(client.spawn().map_err(|e| e.to_string())?);
        std::thread::sleep(Duration::from_secs(4));
        let state = self.command(&["state", &self.id]).ok_or("no state")?;
        let state: Value = serde_json::from_str(&output(state)?).map_err(|e| e.to_string())?;
        let pid = state.get("pid").and_then(Value::as_i64).ok_or("no pid")?;
        let before = ticks(pid)?;
        std::thread::sleep(Duration::from_secs(5));
        Ok(ticks(pid)? - before)
    }
}

fn ticks(pid: i64) -> Result<f64, String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|e| e.to_string())?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
    number(11).zip(number(12)).map(|(user, system)| user + system).ok_or("no ticks".to_owned())
}

fn gigabits(text: &str) -> Result<f64, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let bits = json.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    bits.map(|bits| bits / 1e9).ok_or(format!("no figure: {:?}", json.get("error")))
}

/// Datagrams that arrived, by second.
fn packets(text: &str) -> Result<f64, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let number = |name: &str| json.pointer(&format!("/end/sum/{name}")).and_then(Value::as_f64);
    let figure = (|| Some((number("packets")? - number("lost_packets")?) / number("seconds")?))();
    figure.ok_or(format!("no figure: {:?}", json.get("error")))
}

fn requests_of_csv(text: &str) -> Result<f64, String> {
    let line = text.lines().find(|line| line.starts_with("\"GET\""));
    let figure = line.and_then(|line| line.split(',').nth(1)?.trim_matches('"').parse().ok());
    figure.ok_or(format!("no figure in {text:?}"))
}

/// Runs all rounds, the runtimes in turn.
pub fn run(options: &Options) -> Vec<Runtime> {
    let runsc = (options.runsc.clone(), vec![format!("--platform={}", options.platform())]);
    let runtimes =
        [("native", None), ("runc", Some((PathBuf::from("runc"), Vec::new()))), ("runsc", Some(runsc))];
    let mut results: Vec<Runtime> = runtimes
        .iter()
        .map(|(name, _)| Runtime { name, figures: BTreeMap::new(), troubles: Vec::new() })
        .collect();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for (result, (name, runtime)) in results.iter_mut().zip(&runtimes) {
            match Place::new(name, options.here.join("micro"), runtime.clone()) {
                Ok(place) => {
                    place.measure(options, result);
                    place.tear_down();
                }
                Err(why) => result.troubles.push(why),
            }
        }
    }
    results
}
