//! Real programs, timed from within: how long each takes from its start to its end, once everything is warm.
//!
//! Each program has its directory, made once; what must be undone before each turn is not timed.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Something to run by the shell.
pub struct Program {
    /// Its name in the table.
    pub name: &'static str,
    /// The ratio to native that is aimed at.
    pub aim: f64,
    /// Programs that must be there.
    needs: &'static [&'static str],
    /// Makes files, once.
    prepare: &'static str,
    /// Before each turn.
    before: &'static str,
    what: What,
}

enum What {
    /// A script, timed as a whole.
    Script(&'static str),
    /// Requests by fifty clients over a Unix socket: which, and how many at a time. The time of one.
    Redis(&'static str, u32),
}

const fn script(
    name: &'static str,
    aim: f64,
    needs: &'static [&'static str],
    [prepare, before, what]: [&'static str; 3],
) -> Program {
    Program { name, aim, needs, prepare, before, what: What::Script(what) }
}

const fn redis_bench(name: &'static str, aim: f64, test: &'static str, pipeline: u32) -> Program {
    let needs = &["redis-server", "redis-benchmark"];
    Program { name, aim, needs, prepare: "", before: "", what: What::Redis(test, pipeline) }
}

/// Makes C files f1.c … of a few functions each: their number, and what each begins with.
macro_rules! c_files {
    ($count:literal, $header:literal) => {
        concat!(
            "for i in $(seq ",
            $count,
            "); do { ",
            $header,
            r#"
              for f in $(seq 20); do
                  echo "int f_${i}_$f(int n) { char b[64]; int s = 0; for (int i = 0; i < n; i++) {"
                  echo "snprintf(b, sizeof b, \"%d\", i * $f); s += atoi(b) + (int)strlen(b); } return s; }"
              done; } > f$i.c; done
            { echo 'all: prog'; echo 'prog:' $(seq -f 'f%g.o' "#,
            $count,
            r#"); printf '\tgcc -o $@ $^\n%%.o: %%.c\n\tgcc -O1 -c -o $@ $<\n'; } > Makefile
            "#
        )
    };
}

/// All of them.
pub const ALL: &[Program] = &[
    script(
        "make_j2",
        1.3,
        &["make", "gcc"],
        [
            concat!(
                c_files!(
                    "60",
                    "echo '#include <stdio.h>'; echo '#include <stdlib.h>'; echo '#include <string.h>'"
                ),
                "echo 'int main(void) { return 0; }' >> f1.c"
            ),
            "rm -f *.o prog",
            "make -s -j2",
        ],
    ),
    // Each file includes headers of the project's own; the result is linked and run.
    script(
        "compile_200",
        1.3,
        &["make", "gcc"],
        [
            concat!(
                r##"for h in $(seq 20); do
                    { echo "#pragma once"; echo '#include <stddef.h>'; echo "struct s$h { int a, b; char name[32]; };"
                      echo "static inline int g$h(struct s$h *p) { return p->a * $h + p->b; }"; } > h$h.h; done
                for h in $(seq 20); do echo "#include \"h$h.h\""; done > all.h
                "##,
                c_files!(
                    "200",
                    "echo '#include <stdio.h>'; echo '#include <stdlib.h>'; echo '#include <string.h>'; echo '#include \"all.h\"'"
                ),
                "echo 'int main(void) { return f_1_1(3) < 0; }' >> f1.c"
            ),
            "rm -f *.o prog",
            "make -s -j2 && ./prog",
        ],
    ),
    script("hackbench", 4.0, &["hackbench"], ["", "", "hackbench -g 2 -l 200 > /dev/null"]),
    // All of the root, the same files in both places: /tmp is a file system of its own in the sandbox and often none on the host; /proc,
    // /sys and /dev are in both. What others delete meanwhile must not fail it.
    script(
        "find",
        2.0,
        &["find"],
        ["", "", "find / -xdev -path /tmp -prune -o -print > /dev/null 2>&1; true"],
    ),
    script(
        "find_50000",
        2.0,
        &["find"],
        [
            "for d in $(seq 100); do mkdir d$d; (cd d$d; seq -f 'f%g' 500 | xargs touch); done",
            "",
            "test $(find . -type f | wc -l) = 50000",
        ],
    ),
    script("tar", 2.0, &["tar"], ["", "", "tar c /usr/share 2>/dev/null | tar t > /dev/null"]),
    script(
        "python_start",
        1.4,
        &["/usr/bin/python3"],
        ["", "", "/usr/bin/python3 -c 'import json, re, subprocess, email, http.client, logging, unittest'"],
    ),
    script(
        "python_json",
        1.1,
        &["/usr/bin/python3"],
        [
            r#"printf '%s\n' 'import json' 'd = {"k%d" % i: [i, str(i), {"x": i / 7}] for i in range(500)}' \
                'for _ in range(200): assert json.loads(json.dumps(d)) == d' > j.py"#,
            "",
            "/usr/bin/python3 j.py",
        ],
    ),
    script(
        "sqlite_insert",
        2.0,
        &["sqlite3"],
        [
            r#"{ echo 'CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); BEGIN;'
              for i in $(seq 20000); do echo "INSERT INTO t VALUES ($i, 'row number $i');"; done
              echo 'COMMIT;'
              for i in $(seq 20001 20200); do echo "INSERT INTO t VALUES ($i, 'one by one $i');"; done
              echo 'SELECT count(*) FROM t;'; } > in.sql"#,
            "rm -f t.db*",
            "sqlite3 t.db < in.sql > /dev/null",
        ],
    ),
    // Bulk inserts, an index, selects by range and by text, updates, a join, deletes.
    script(
        "sqlite_speed",
        1.5,
        &["sqlite3"],
        [
            r#"cat > speed.sql <<'END'
CREATE TABLE a (id INTEGER PRIMARY KEY, n INTEGER, t TEXT);
CREATE TABLE b (id INTEGER PRIMARY KEY, n INTEGER);
BEGIN;
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60000)
    INSERT INTO a SELECT i, (i * 7919) % 60013, 'text of row ' || i FROM c;
INSERT INTO b SELECT id, n % 1000 FROM a;
COMMIT;
CREATE INDEX an ON a (n);
CREATE INDEX bn ON b (n);
SELECT count(*), avg(n) FROM a WHERE n BETWEEN 1000 AND 30000;
SELECT count(*) FROM a WHERE t LIKE '%99%';
UPDATE a SET n = n + 1 WHERE id % 3 = 0;
SELECT sum(a.n) FROM a JOIN b ON a.id = b.id WHERE b.n < 100;
SELECT t FROM a ORDER BY t LIMIT 100;
DELETE FROM a WHERE id % 5 = 0;
VACUUM;
END"#,
            "rm -f t.db*",
            "sqlite3 t.db < speed.sql > /dev/null",
        ],
    ),
    script(
        "git_status",
        2.0,
        &["git"],
        [
            r#"export HOME=$PWD; git init -q .; git config user.email a@b.c; git config user.name n
            for d in $(seq 80); do mkdir d$d; for f in $(seq 50); do echo $d $f > d$d/f$f; done; done
            git add . > /dev/null; git commit -q -m all"#,
            "",
            "HOME=$PWD git status > /dev/null",
        ],
    ),
    redis_bench("redis_get_1", 2.5, "get", 1),
    redis_bench("redis_set_1", 2.5, "set", 1),
    redis_bench("redis_get_16", 1.43, "get", 16),
    redis_bench("redis_set_16", 1.43, "set", 16),
];

impl Program {
    /// The first program it needs that is not installed.
    pub fn missing(&self) -> Option<&'static str> {
        let path = std::env::var("PATH").unwrap_or_default();
        let found = |n: &str| {
            n.starts_with('/') && Path::new(n).exists()
                || path.split(':').any(|d| Path::new(d).join(n).exists())
        };
        self.needs.iter().copied().find(|n| !found(n))
    }

    /// The nanoseconds of each turn. The current directory is the program's own.
    pub fn run(&self, turns: usize) -> Result<Vec<f64>, String> {
        shell(self.prepare)?;
        match self.what {
            What::Script(script) => self.scripts(script, turns),
            What::Redis(test, pipeline) => redis(test, pipeline, turns),
        }
    }

    fn scripts(&self, script: &str, turns: usize) -> Result<Vec<f64>, String> {
        let mut samples = Vec::new();
        // The first turn warms caches.
        for turn in 0..=turns {
            shell(self.before)?;
            let began = Instant::now();
            shell(script)?;
            if turn > 0 {
                samples.push(began.elapsed().as_nanos() as f64);
            }
        }
        Ok(samples)
    }
}

fn shell(script: &str) -> Result<(), String> {
    if script.is_empty() {
        return Ok(());
    }
    let status = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{status}: {}", script.lines().next_back().unwrap_or_default())),
        Err(error) => Err(format!("/bin/sh: {error}")),
    }
}

/// A server that ends with its user.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn redis(test: &str, pipeline: u32, turns: usize) -> Result<Vec<f64>, String> {
    let text = |e: std::io::Error| format!("redis: {e}");
    let socket = std::env::current_dir().map_err(text)?.join("socket");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let server = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(text)?;
    let _server = Server(server);
    let began = Instant::now();
    while let Err(error) = UnixStream::connect(&socket) {
        if began.elapsed() > Duration::from_secs(20) {
            return Err(text(error));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut samples = Vec::new();
    let mut requests = 2000;
    for turn in 0..=turns {
        let mut client = Command::new("redis-benchmark");
        client.arg("-s").arg(&socket).args(["-t", test, "--csv", "-n"]).arg(requests.to_string());
        client.arg("-P").arg(pipeline.to_string());
        let output = client.stdin(Stdio::null()).stderr(Stdio::null()).output().map_err(text)?;
        // "test","rps",… and a line of titles before it in newer versions.
        let lines = String::from_utf8_lossy(&output.stdout);
        let rate = lines
            .lines()
            .filter_map(|l| l.split(',').nth(1)?.trim_matches('"').parse::<f64>().ok())
            .find(|rate| *rate > 0.0)
            .ok_or_else(|| format!("redis-benchmark: {}: {lines}", output.status))?;
        if turn == 0 {
            // About half a second each.
            requests = (rate / 2.0).clamp(1000.0, 2e6) as u64;
        } else {
            samples.push(1e9 / rate);
        }
    }
    Ok(samples)
}
