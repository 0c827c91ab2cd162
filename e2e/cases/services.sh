# What users type: the service under its own name, its port published as it is.
export DOCKER_HOST=unix://$BASE/docker.sock
S=$N
trap 'status=$?; [ "$S" = "$N" ] || docker rm -fv "$S" > /dev/null 2>&1 || true; end_docker || true; exit $status' EXIT
# serve NAME PORT [OF THE HOST]
serve() {
    S=$1
    docker run --name "$1" -d --runtime="$RT" -p "${3:-$2}:$2" "$1" > /dev/null
}
X() { docker exec -i "$S" "$@"; }
logs_have() { docker logs "$S" 2>&1 | grep "$1" > /dev/null; }
# Where the service is for those outside: an address of the host, and the port there. (Not 127.0.0.1: of that
# docker-proxy takes care, which in Docker 20.10 now and then ends with a thread of dockerd.)
host() { field "$S" .NetworkSettings.Gateway; }
port() { D port "$S" | head -1 | sed 's/.*://'; }
at() { echo "$(host):$(port)"; }
# client IMAGE COMMAND…: a program of an image as one of the host, on its side of the published port.
client() { D run --rm -i --runtime=runc --network=host --label "case=$N" "$@"; }
# Says something there and prints the first line, or so many bytes, of the answer.
outside() { # TEXT BYTES
    local place
    place=$(at)
    timeout 10 bash -c 'exec 3<> "/dev/tcp/$0"; printf "$1" >&3; if [ -n "${2:-}" ]; then head -c "$2" <&3; else head -1 <&3; fi' \
        "${place/:/\/}" "$@" | tr -d '\r\0'
}

## redis
S=redis
docker run --name redis -d --runtime="$RT" -p 6379:6379 redis > /dev/null
host=$(host)
soon client redis redis-cli -h "$host" ping
eq "$(client redis redis-cli -h "$host" set key value)" OK
eq "$(X redis-cli get key)" value
eq "$(outside 'GET key\r\n' 9 | tr '\n' ' ')" '$5 value'
out=$(client redis redis-benchmark -h "$host" -q -n 3000 -c 20 -t ping_inline,set,get,lpush,lrange_100 | tr '\r' '\n')
for word in PING_INLINE: SET: GET: LPUSH: "LRANGE_100 (first 100 elements):"; do has "$out" "$word"; done
has "$(client redis redis-benchmark -h "$host" -q -n 20000 -c 20 -P 16 -t set,get)" 'SET: '
# That was this server.
requests=$(docker exec -i redis redis-cli info stats | tr -d '\r' | sed -n 's/^total_commands_processed://p')
[ "$requests" -gt 40000 ]
has "$(docker logs redis)" 'Ready to accept connections'
out=$(docker exec -i redis ps aux)
has "$out" redis-server
has "$out" 'ps aux'
# The snapshot forks; it is read again at the next start.
eq "$(X redis-cli bgsave)" 'Background saving started'
soon is 0 sh -c "docker exec redis redis-cli info persistence | tr -d '\r' | sed -n 's/^rdb_bgsave_in_progress://p'"
has "$(X redis-cli info persistence)" rdb_last_bgsave_status:ok
eq "$(docker stop redis)" redis
eq "$(field redis .State.ExitCode)" 0
has "$(docker logs redis)" 'ready to exit'
code 1 client redis redis-cli -h "$host" ping
docker start redis > /dev/null
soon client redis redis-cli -h "$host" ping
eq "$(X redis-cli get key)" value
## redis-append-only
NET=bridge run --name "$N" -d redis > /dev/null
soon X redis-cli ping
X redis-cli config set appendonly yes > /dev/null
X redis-benchmark -q -n 2000 -r 1000 -t set > /dev/null
keys=$(X redis-cli dbsize)
X redis-cli bgrewriteaof > /dev/null
soon is 0 sh -c "docker exec $N redis-cli info persistence | tr -d '\r' | sed -n 's/^aof_rewrite_in_progress://p'"
X redis-cli debug loadaof > /dev/null
eq "$(X redis-cli dbsize)" "$keys"
## nginx
serve nginx 80
soon X curl -sf -o /dev/null http://127.0.0.1/
eq "$(X sh -c 'curl -s http://127.0.0.1/1k | wc -c')" 1024
eq "$(curl -sf "http://$(at)/1k" | wc -c)" 1024
has "$(X curl -sI http://127.0.0.1/1k)" 'Accept-Ranges: bytes'
eq "$(X sh -c 'curl -s -r 10-19 http://127.0.0.1/1k | wc -c')" 10
eq "$(X curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1/none)" 404
eq "$(X sh -c 'for i in 1 2 3 4 5 6 7 8; do curl -sf "http://127.0.0.1/1k?[1-50]" | wc -c & done; wait' | sort -u)" 51200
soon logs_have 'GET /none'
has "$(X ps aux)" 'nginx: worker process'
# A reload replaces the workers.
X nginx -s reload
soon X curl -sf -o /dev/null http://127.0.0.1/
docker stop "$S" > /dev/null
eq "$(field "$S" .State.ExitCode)" 0
## postgres
serve postgres 5432
soon X pg_isready -h 127.0.0.1
X psql -q -h 127.0.0.1 -c 'create table t (id serial primary key, n int, s text)'
X psql -q -h 127.0.0.1 -c "insert into t (n, s) select i, md5(i::text) from generate_series(1, 5000) i"
X psql -q -h 127.0.0.1 -c 'create index on t (s)' -c 'vacuum analyze t'
eq "$(X psql -At -h 127.0.0.1 -c "select count(*), sum(n), (select n from t where s = md5('77')) from t")" '5000|12502500|77'
# A request for TLS, which this server declines.
eq "$(outside '\0\0\0\10\4\322\26\57' 1)" N
eq "$(client postgres psql -At -h "$(host)" -c 'select sum(n) from t')" 12502500
X pgbench -q -i -s 1 -h 127.0.0.1 > /dev/null 2>&1
has "$(X pgbench -n -c 4 -t 20 -h 127.0.0.1 2>&1)" 'actually processed: 80/80'
has "$(client postgres pgbench -n -c 4 -t 20 -h "$(host)" 2>&1)" 'actually processed: 80/80'
has "$(X ps aux)" 'postgres: checkpointer'
soon logs_have 'database system is ready to accept connections'
eq "$(X psql -At -c 'select 1')" 1
docker stop "$S" > /dev/null
eq "$(field "$S" .State.ExitCode)" 0
docker start "$S" > /dev/null
soon X pg_isready -h 127.0.0.1
eq "$(X psql -At -h 127.0.0.1 -c 'select count(*) from t')" 5000
## mariadb
serve mariadb 3306
soon X mariadb-admin ping
X mariadb -e "create database d; create user u identified by 'p'; grant all on d.* to u"
X mariadb -h 127.0.0.1 -u u -pp d -e 'create table t (n int primary key, s varchar(64)) engine=innodb; insert into t select seq, md5(seq) from seq_1_to_2000; update t set s = concat(s, n) where n % 2 = 0'
eq "$(X mariadb -N -h 127.0.0.1 -u u -pp d -e 'select count(*), sum(length(s)) from t')" "2000	67448"
has "$(outside '' 40)" MariaDB
eq "$(client mariadb mariadb -N -h "$(host)" -P "$(port)" -u u -pp d -e 'insert into t values (0, "out"); select count(*) from t')" 2001
has "$(X ps aux)" mariadbd
X mariadb-dump d > "$BASE/$N.sql"
has "$(tail -1 "$BASE/$N.sql")" 'Dump completed'
rm "$BASE/$N.sql"
docker stop "$S" > /dev/null
eq "$(field "$S" .State.ExitCode)" 0
has "$(docker logs "$S" 2>&1)" 'Shutdown complete'
## memcached
serve memcached 11211
soon X bash -c 'exec 3<> /dev/tcp/127.0.0.1/11211'
out=$(X bash -c 'exec 3<> /dev/tcp/127.0.0.1/11211; printf "set k 0 0 5\r\nhello\r\nget k\r\nincr none 1\r\nquit\r\n" >&3; cat <&3' | tr -d '\r' | tr '\n' ' ')
eq "$out" 'STORED VALUE k 0 5 hello END NOT_FOUND '
has "$(outside 'version\r\n')" VERSION
eq "$(outside 'get k\r\n')" 'VALUE k 0 5'
has "$(X ps aux)" memcached
docker stop "$S" > /dev/null
## node
cat > "$BASE/$N.js" <<'J'
const http = require('http'), { Worker } = require('worker_threads'), { execSync } = require('child_process');
const server = http.createServer((q, r) => {
  if (q.url == '/child') return r.end(execSync('echo from-child'));
  if (q.url == '/worker') return new Worker("require('worker_threads').parentPort.postMessage('from-worker')", { eval: true }).on('message', m => r.end(m));
  let n = 0; q.on('data', d => n += d.length).on('end', () => r.end(String(n)));
}).listen(8000, () => console.log('ready'));
process.on('SIGTERM', () => { console.log('bye'); server.close(); process.exit(3); });
J
NET=bridge run --name "$N" -d -p 8000 -v "$BASE/$N.js:/srv/s.js:ro" services node /srv/s.js > /dev/null
soon logs_have ready
eq "$(X sh -c 'head -c 3000000 /dev/zero | curl -s --data-binary @- http://127.0.0.1:8000/')" 3000000
eq "$(head -c 3000000 /dev/zero | curl -s --data-binary @- "http://$(at)/")" 3000000
eq "$(X curl -s http://127.0.0.1:8000/child)" from-child
eq "$(X curl -s http://127.0.0.1:8000/worker)" from-worker
D stop "$N" > /dev/null
eq "$(field "$N" .State.ExitCode)" 3
has "$(D logs "$N")" bye
rm "$BASE/$N.js"
## python
NET=bridge run --name "$N" -d -p 8000 -w /usr/share services python3 -u -m http.server 8000 > /dev/null
soon X curl -sf -o /dev/null http://127.0.0.1:8000/
eq "$(X sh -c 'curl -s http://127.0.0.1:8000/common-licenses/GPL-3 | cmp - /usr/share/common-licenses/GPL-3 && echo same')" same
eq "$(curl -s "http://$(at)/common-licenses/GPL-3" | sha256sum)" "$(X sha256sum < /dev/null /usr/share/common-licenses/GPL-3 | sed 's| /.*| -|')"
soon logs_have 'GET /common-licenses/GPL-3'
eq "$(X python3 -c 'import multiprocessing as m; print(sum(m.Pool(3).map(abs, range(-100, 0))))')" 5050
eq "$(X python3 -c 'import asyncio
async def f(n): await asyncio.sleep(0.01); return n
async def g(): return sum(await asyncio.gather(*(f(i) for i in range(100))))
print(asyncio.run(g()))')" 4950
## openjdk
cat > "$BASE/$N.java" <<'J'
import com.sun.net.httpserver.*; import java.net.*; import java.util.concurrent.*; import java.util.stream.*;
public class S { public static void main(String[] a) throws Exception {
  var s = HttpServer.create(new InetSocketAddress(8000), 0);
  s.createContext("/", e -> { var b = ("sum " + IntStream.rangeClosed(1, 1000).parallel().sum()).getBytes(); e.sendResponseHeaders(200, b.length); e.getResponseBody().write(b); e.close(); });
  s.setExecutor(Executors.newFixedThreadPool(4)); s.start(); System.gc(); System.out.println("ready");
  Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("bye"))); } }
J
NET=bridge run --name "$N" -d -p 8000 -v "$BASE/$N.java:/srv/S.java:ro" services java -Xmx128m /srv/S.java > /dev/null
soon logs_have ready
eq "$(X curl -s http://127.0.0.1:8000/)" 'sum 500500'
eq "$(curl -s "http://$(at)/")" 'sum 500500'
eq "$(X sh -c 'for i in 1 2 3 4; do curl -sf "http://127.0.0.1:8000/?[1-20]" & done | wc -c')" 800
D stop "$N" > /dev/null
eq "$(field "$N" .State.ExitCode)" 143
has "$(D logs "$N")" bye
rm "$BASE/$N.java"
## apache-php
serve apache 80 8080
soon X curl -sf -o /dev/null http://127.0.0.1/
eq "$(X curl -s http://127.0.0.1/a.php)" Linux42
eq "$(curl -s "http://$(at)/a.php")" Linux42
has "$(X curl -sI http://127.0.0.1/)" Apache
has "$(X ps aux)" apache2
eq "$(X sh -c 'for i in 1 2 3 4; do curl -sf "http://127.0.0.1/a.php?[1-20]" & done | sort | uniq -c | tr -s " "')" ' 80 Linux42'
docker stop "$S" > /dev/null
## names-on-a-network
# Services of a network find each other by name, whatever was there first.
D network create "$N" > /dev/null
trap 'status=$?; end_docker || true; D network rm "$N" > /dev/null || true; exit $status' EXIT
# Names that are nobody's are asked of servers that are not there: not for long.
brief=(--dns-opt timeout:1 --dns-opt attempts:1)
NET=$N run -d --name "$N-web" --network-alias www "${brief[@]}" nginx > /dev/null
NET=$N run -d --name "$N-store" redis > /dev/null
soon D exec "$N-web" redis-cli -h "$N-store" ping
eq "$(D exec "$N-web" redis-cli -h "$N-store" set from web)" OK
eq "$(D exec "$N-store" sh -c "curl -sf http://$N-web/1k | wc -c")" 1024
eq "$(NET=$N run --rm services sh -c "curl -sf http://www/1k | wc -c; redis-cli -h $N-store get from" | tr '\n' ' ')" '1024 web '
code 6 D exec "$N-web" curl -s http://nobody-there/
# Who comes later is found too, and who is gone is not.
D rm -f "$N-store" > /dev/null
D exec "$N-web" redis-cli -h "$N-store" ping 2> /dev/null && exit 1
NET=$N run -d --name "$N-store" redis > /dev/null
soon is PONG D exec "$N-web" redis-cli -h "$N-store" ping
## network-connect
# A container comes into a second network while it runs.
D network create "$N" > /dev/null
trap 'status=$?; end_docker || true; D network rm "$N" > /dev/null || true; exit $status' EXIT
NET=bridge run -d --name "$N" nginx > /dev/null
NET=$N run -d --name "$N-client" --dns-opt timeout:1 --dns-opt attempts:1 services sleep 100 > /dev/null
code 6 D exec "$N-client" curl -s "http://$N/1k"
D network connect "$N" "$N"
soon D exec "$N-client" curl -sf -o /dev/null "http://$N/1k"
D network disconnect "$N" "$N"
D exec "$N-client" curl -s -m 3 -o /dev/null "http://$N/1k" && exit 1 || true
## volume-locks
# flock between two containers of a volume, and the host.
mkdir "$BASE/$N.v"
run -d --name "$N" -v "$BASE/$N.v:/v" services sh -c 'flock /v/l sh -c "echo have > /v/s; sleep 3"' > /dev/null
soon test -s "$BASE/$N.v/s"
code 1 run --rm -v "$BASE/$N.v:/v" services flock -n /v/l true
code 1 flock -n "$BASE/$N.v/l" true
code 0 run --rm -v "$BASE/$N.v:/v" services flock /v/l true
D wait "$N" > /dev/null
code 0 run --rm -v "$BASE/$N.v:/v" services flock -n /v/l true
rm -r "$BASE/$N.v"
## volume-record-locks
mkdir "$BASE/$N.v"
cat > "$BASE/$N.v/l.py" <<'P'
import fcntl, sys, time
f = open('/v/r', 'a+')
if sys.argv[1] == 'hold':
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 10)
    fcntl.lockf(f, fcntl.LOCK_SH, 10, 30)
    open('/v/held', 'w').write('x')
    time.sleep(4)
else:
    for start, how in [(0, fcntl.LOCK_EX), (5, fcntl.LOCK_EX), (15, fcntl.LOCK_SH), (35, fcntl.LOCK_SH), (35, fcntl.LOCK_EX)]:
        try:
            fcntl.lockf(f, how | fcntl.LOCK_NB, 9, start)
            print('had', end=' ')
        except OSError as e:
            print(e.errno, end=' ')
    began = time.time()
    fcntl.lockf(f, fcntl.LOCK_EX, 9, 15)
    print('waited' if time.time() - began > 0.3 else 'at once')
P
run -d --name "$N" -v "$BASE/$N.v:/v" services python3 /v/l.py hold > /dev/null
soon test -s "$BASE/$N.v/held"
eq "$(run --rm -v "$BASE/$N.v:/v" services python3 /v/l.py try)" 'had 11 11 had 11 waited'
rm -r "$BASE/$N.v"
