trap 'status=$?; end_docker || true; exit $status' EXIT
# Options of run, and what else users do with a container.

logs_has() { docker -H "unix://$BASE/docker.sock" logs "$N" 2>&1 | grep -q "$1"; }

## exit-125-of-the-daemon
code 125 run --rm --no-such-option bb true
code 125 run --rm --name 'not/a/name' bb true
code 125 run --rm -v relative:relative bb true
code 125 run --rm no-such-image-here true
## status-of-a-signal
for s in TERM:143 INT:130 HUP:129 SEGV:139 ABRT:134; do
    code "${s#*:}" run --rm --init bb sh -c "kill -${s%:*} \$\$; sleep 5"
done
## pid-1-ignores-signals
run -d --name "$N" bb sleep 100 > /dev/null
D kill -s TERM "$N" > /dev/null
D kill -s INT "$N" > /dev/null
sleep 0.5
eq "$(field "$N" .State.Status)" running
D kill -s STOP "$N" > /dev/null
D kill -s CONT "$N" > /dev/null
code 0 D exec "$N" true
## signals-of-the-client
# The client passes on what it gets (--sig-proxy).
mkfifo "$BASE/$N.in"
docker -H "unix://$BASE/docker.sock" run --runtime="$RT" --network=none --name "$N" --label "case=$N" bb \
    sh -c 'trap "echo caught; exit 6" INT; echo ready; while :; do sleep 0.1; done' > "$BASE/$N.out" &
client=$!
soon grep -q ready "$BASE/$N.out"
kill -INT "$client"
code 6 wait "$client"
has "$(cat "$BASE/$N.out")" caught
rm "$BASE/$N.in" "$BASE/$N.out"
## interrupt-at-a-terminal
out=$( (sleep 2; printf 'echo one\n'; sleep 1; printf 'sleep 50\n'; sleep 1.5; printf '\003'; sleep 1; printf 'echo t$((1+1))o; exit 3\n'; sleep 2) |
    script -qec "docker -H unix://$BASE/docker.sock run --runtime=$RT --network=none --rm -it bb sh" /dev/null) && exit 1 || eq "$?" 3
has "$out" t2o
## detach-keys
(sleep 2; printf '\020\021'; sleep 1) |
    script -qec "docker -H unix://$BASE/docker.sock run --runtime=$RT --network=none --label case=$N --name $N -it bb sh" /dev/null > /dev/null || true
eq "$(field "$N" .State.Status)" running
(sleep 1; printf 'exit 8\n'; sleep 1) | script -qec "docker -H unix://$BASE/docker.sock attach $N" /dev/null > /dev/null && exit 1 || eq "$?" 8
## attach-two-clients
run -d --name "$N" bb sh -c 'while [ ! -e /go ]; do sleep 0.1; done; for i in 1 2 3; do echo line $i; done' > /dev/null
D attach --no-stdin "$N" > "$BASE/$N.1" & a=$!
D attach --no-stdin "$N" > "$BASE/$N.2" & b=$!
sleep 1
D exec "$N" touch /go
wait "$a" "$b"
eq "$(cat "$BASE/$N.1")" "$(printf 'line 1\nline 2\nline 3')"
cmp "$BASE/$N.1" "$BASE/$N.2"
rm "$BASE/$N.1" "$BASE/$N.2"
## exec-tty-resize
run -d --name "$N" bb sleep 100 > /dev/null
s=$BASE/docker.sock
id=$(curl -sS --fail --unix-socket "$s" -H 'Content-Type: application/json' -d '{"Tty": true, "AttachStdout": true, "Cmd": ["sh", "-c", "while :; do stty size; sleep 0.2; done"]}' "http://d/containers/$N/exec" | jq -r .Id)
curl -sS -N --max-time 30 --unix-socket "$s" -H 'Content-Type: application/json' -d '{"Tty": true}' "http://d/exec/$id/start" > "$BASE/$N.out" & reader=$!
soon grep -q ' ' "$BASE/$N.out"
curl -sS --fail --unix-socket "$s" -X POST "http://d/exec/$id/resize?h=43&w=99"
soon grep -q '43 99' "$BASE/$N.out"
kill "$reader"
rm "$BASE/$N.out"
## exec-privileged
run -d --name "$N" bb sleep 100 > /dev/null
# Docker asks runc for all capabilities: who does not have them cannot give them, and says so.
if [ "$RT" = runc ] && ! all_capabilities; then
    out=$(D exec --privileged "$N" true 2>&1) && exit 1
    has "$out" 'operation not permitted'
else
    all_known "$(D exec --privileged "$N" grep CapEff /proc/self/status)"
fi
# The others have what they had.
has "$(D exec "$N" grep CapEff /proc/self/status)" 00000000a80425fb
## exec-leaves-when-the-container-ends
run -d --name "$N" bb sleep 100 > /dev/null
D exec "$N" sleep 100 & e=$!
soon sh -c "docker -H unix://$BASE/docker.sock exec $N ps | grep -c 'sleep 100' | grep 2"
D kill "$N" > /dev/null
code 137 wait "$e"
## exec-large-streams
run -d --name "$N" bb sleep 100 > /dev/null
head -c 5000000 /dev/urandom > "$BASE/$N.f"
eq "$(D exec -i "$N" cat < "$BASE/$N.f" | sha256sum)" "$(sha256sum < "$BASE/$N.f")"
rm "$BASE/$N.f"
## exec-inspect
run -d --name "$N" bb sleep 100 > /dev/null
D exec -d "$N" sh -c 'sleep 4; exit 11'
id=$(D inspect -f '{{index .ExecIDs 0}}' "$N" | tr -d '[]')
eq "$(curl -sS --unix-socket "$BASE/docker.sock" "http://d/exec/$id/json" | jq .Running)" true
soon is 11 sh -c "curl -sS --unix-socket $BASE/docker.sock http://d/exec/$id/json | jq .ExitCode"
## ps-and-filters
run -d --name "$N" bb sleep 100 > /dev/null
has "$(D ps --filter "name=^$N\$" --format '{{.Status}} {{.Command}}')" 'Up '
D kill "$N" > /dev/null
has "$(D ps -a --filter "name=^$N\$" --format '{{.Status}}')" 'Exited (137)'
eq "$(D ps -aq --filter "label=case=$N" --filter exited=137 | wc -l)" 1
## logs-options
run -d --name "$N" bb sh -c 'echo first; sleep 2; echo second' > /dev/null
D wait "$N" > /dev/null
eq "$(D logs --tail 1 "$N")" second
has "$(D logs -t "$N" | head -1)" "$(date -u +%Y-)"
since=$(D logs -t "$N" | tail -1 | cut -d' ' -f1)
eq "$(D logs --since "$since" "$N")" second
## log-drivers
run --log-driver none --name "$N" bb echo hidden > /dev/null
D logs "$N" > /dev/null 2>&1 && exit 1
run --log-driver local --name "$N.2" bb echo shown > /dev/null
eq "$(D logs "$N.2")" shown
## log-of-a-fast-writer
run -d --name "$N" bb sh -c 'seq 20000' > /dev/null
eq "$(D wait "$N")" 0
eq "$(D logs "$N" | sha256sum)" "$(seq 20000 | sha256sum)"
## inspect-runtime
run -d --name "$N" bb sleep 100 > /dev/null
eq "$(field "$N" .HostConfig.Runtime)" "$RT"
## stats-of-many
for i in 1 2 3; do run -d --name "$N.$i" bb sleep 100 > /dev/null; done
# The client shows zeros for what has not come after two seconds, which on a slow machine it may not have.
all_three() {
    D stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}' "$N.1" "$N.2" "$N.3" |
        awk '/ 0B/ { zero = 1 } END { exit zero || NR != 3 }'
}
soon all_three
## top-options
run -d --name "$N" bb sh -c 'sleep 100; true' > /dev/null
has "$(D top "$N" aux)" USER
## wait-for-many
run -d --name "$N" bb sh -c 'sleep 0.5; exit 2' > /dev/null
run -d --name "$N.2" bb sh -c 'exit 3' > /dev/null
eq "$(D wait "$N" "$N.2" | tr '\n' ' ')" '2 3 '
## stop-many
for i in 1 2 3; do run -d --name "$N.$i" --init bb sleep 100 > /dev/null; done
began=$(date +%s)
D stop "$N.1" "$N.2" "$N.3" > /dev/null
[ $(($(date +%s) - began)) -lt 9 ]
eq "$(field "$N.2" .State.ExitCode)" 143
## start-many-times
run --name "$N" bb sh -c 'echo x >> /n; exit 4' && exit 1
for i in 1 2 3 4; do code 4 D start -a "$N"; done
eq "$(D cp "$N:/n" - | tar -xO | wc -l)" 5
## restart-unless-stopped
run -d --name "$N" --restart unless-stopped bb sh -c 'sleep 0.3; exit 1' > /dev/null
soon sh -c "[ \$(docker -H unix://$BASE/docker.sock inspect -f '{{.RestartCount}}' $N) -ge 2 ]"
D stop -t 1 "$N" > /dev/null
sleep 1
eq "$(field "$N" .State.Status)" exited
## update-others
run -d --name "$N" bb sleep 100 > /dev/null
D update --pids-limit 9 --cpu-shares 512 --restart on-failure:5 "$N" > /dev/null
eq "$(field "$N" .HostConfig.PidsLimit) $(field "$N" .HostConfig.CpuShares)" '9 512'
has "$(D exec "$N" sh -c 'for i in $(seq 20); do sleep 3 & done' 2>&1)" "can't fork"
## update-twice
# The second update names other limits: the first one's stay.
run -d --name "$N" bb sleep 100 > /dev/null
D update --pids-limit 9 "$N" > /dev/null
D update --cpu-shares 512 "$N" > /dev/null
has "$(D exec "$N" sh -c 'for i in $(seq 20); do sleep 3 & done' 2>&1)" "can't fork"
## update-cpuset
run -d --name "$N" bb sleep 100 > /dev/null
D update --cpuset-cpus 0 "$N" > /dev/null
eq "$(D exec "$N" nproc)" 1
## memory-seen-inside
run --rm --memory 64m bb sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2> /dev/null || true' | grep -qx 67108864
## oom-of-a-child
# The child is killed, by whatever it uses the memory up; the container and its other processes go on.
since=$(date +%s)
run -d --name "$N" --memory 40m --memory-swap 40m bb sh -c 'sleep 99 & p=$!
sh -c "x=a; while :; do x=\$x\$x\$x; done"; echo "child $?"
tail /dev/zero; echo "reader $?"
kill -0 $p && echo both; exec sleep 100' > /dev/null
soon logs_has 'child 137'
soon logs_has 'reader 137'
soon logs_has both
eq "$(field "$N" .State.Status)" running
has "$(D events --since "$since" --until "$(($(date +%s) + 1))" --filter "label=case=$N" --format '{{.Action}}' | tr '\n' ' ')" oom
## oom-event
since=$(date +%s)
run --name "$N" --memory 20m --memory-swap 20m bb sh -c 'x=a; while :; do x=$x$x$x; done' && exit 1 || eq "$?" 137
has "$(D events --since "$since" --until "$(($(date +%s) + 1))" --filter "label=case=$N" --format '{{.Action}}' | tr '\n' ' ')" oom
## limits-in-the-cgroup
run -d --name "$N" --cpu-shares 300 --cpuset-mems 0 --memory 50m --memory-reservation 30m --pids-limit 77 --blkio-weight 300 bb sleep 100 > /dev/null 2>&1
group=$(docker_group "$N")
# Shares of 300 are a weight of 12.
has ' 300 12 ' " $(limit "$group" cpu.shares cpu.weight) "
eq "$(limit "$group" memory.soft_limit_in_bytes memory.low)" 31457280
eq "$(limit "$group" memory.limit_in_bytes memory.max)" 52428800
eq "$(limit "$group" cpuset.mems cpuset.mems)" 0
## cgroup-is-gone
run -d --name "$N" bb sleep 100 > /dev/null
id=$(field "$N" .Id)
[ "$(find /sys/fs/cgroup -maxdepth 3 -name "*$id*" | wc -l)" -gt 0 ]
D rm -f "$N" > /dev/null
soon is 0 sh -c "find /sys/fs/cgroup -maxdepth 3 -name '*$id*' | wc -l"
## cgroup-namespace
eq "$(run --rm --cgroupns=private bb sh -c 'cut -d: -f3 /proc/self/cgroup | sort -u')" /
## ulimits
out=$(run --rm --ulimit nproc=100:200 --ulimit fsize=1048576 --ulimit stack=4194304 --ulimit memlock=65536 bb grep -E 'processes|file size|stack|locked' /proc/self/limits | tr -s ' ')
has "$out" 'Max processes 100 200'
has "$out" 'Max file size 1048576 1048576'
has "$out" 'Max stack size 4194304 4194304'
has "$out" 'Max locked memory 65536 65536'
## file-size-limit
eq "$(run --rm --ulimit fsize=100000 bb sh -c 'head -c 200000 /dev/zero > /f 2> /dev/null; stat -c %s /f')" 100000
## tmpfs-options
out=$(run --rm --tmpfs /a:ro --tmpfs /b:noexec,size=64k,uid=5,gid=6,mode=700 bb sh -c 'touch /a/x 2>&1; cp /bin/busybox /b/y 2>&1; stat -c "%u %g %a" /b; grep " /b " /proc/mounts' || true)
has "$out" 'Read-only file system'
has "$out" 'No space left on device'
has "$out" '5 6 700'
has "$out" noexec
## tmpfs-noexec
code 126 run --rm --tmpfs /t:noexec bb sh -c 'echo "#!/bin/sh" > /t/x; chmod 755 /t/x; /t/x'
code 0 run --rm --tmpfs /t:exec bb sh -c 'echo "#!/bin/sh" > /t/x; chmod 755 /t/x; /t/x'
## read-only-with-volumes
run --rm --read-only -v /data --mount type=tmpfs,dst=/run bb sh -c 'touch /data/x /run/x && ! touch /x 2> /dev/null && ! touch /etc/x 2> /dev/null && echo x > /dev/shm/x'
## mount-bind-nonrecursive
mkdir -p "$BASE/$N.v/m"
mount -t tmpfs x "$BASE/$N.v/m"
touch "$BASE/$N.v/m/there"
status=0
run --rm --mount "type=bind,src=$BASE/$N.v,dst=/v,bind-nonrecursive" bb sh -c 'test ! -e /v/m/there' || status=$?
run --rm --mount "type=bind,src=$BASE/$N.v,dst=/v" bb sh -c 'test -e /v/m/there' || status=$?
umount "$BASE/$N.v/m"
rm -r "$BASE/$N.v"
exit $status
## volume-over-a-file-and-below
echo conf > "$BASE/$N.c"
mkdir "$BASE/$N.d"
run --rm -v "$BASE/$N.c:/etc/passwd:ro" -v "$BASE/$N.d:/new/deep/place" bb sh -c 'cat /etc/passwd > /new/deep/place/copy'
eq "$(cat "$BASE/$N.d/copy")" conf
rm -r "$BASE/$N.c" "$BASE/$N.d"
## volume-shared-by-two
mkdir "$BASE/$N.v"
run -d --name "$N" -v "$BASE/$N.v:/v" bb sh -c 'while [ ! -s /v/from-2 ]; do sleep 0.1; done; cat /v/from-2; echo yes > /v/from-1' > /dev/null
run --rm -v "$BASE/$N.v:/v" bb sh -c 'echo hello > /v/from-2; for i in $(seq 100); do [ -s /v/from-1 ] && exit 0; sleep 0.1; done; exit 1'
eq "$(D wait "$N")" 0
eq "$(D logs "$N")" hello
rm -r "$BASE/$N.v"
## volume-unix-socket
# A socket of the host in a volume, as many mount docker.sock: it is seen, and answers who connects.
run --rm -v "$BASE/docker.sock:/s" bb test -S /s
run --rm -v "$BASE:/v:ro" bb test -S /v/docker.sock
cat > "$BASE/$N.c" <<'C'
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/s"};
	const char *ask = "GET /_ping HTTP/1.0\r\n\r\n";
	char answer[4096] = "";
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(s, (struct sockaddr *)&to, sizeof to) < 0 || write(s, ask, strlen(ask)) < 0)
		return perror("/s"), 1;
	for (ssize_t n, have = 0; (n = read(s, answer + have, sizeof answer - 1 - have)) > 0; have += n)
		;
	return puts(answer), 0;
}
C
cc -static -o "$BASE/$N.bin" "$BASE/$N.c"
has "$(run --rm -v "$BASE/docker.sock:/s" -v "$BASE/$N.bin:/ping" bb /ping)" '200 OK'
rm "$BASE/$N.c" "$BASE/$N.bin"
## volume-rm-with-v
run -d --name "$N" -v /data bb sleep 100 > /dev/null
volume=$(D inspect -f '{{range .Mounts}}{{.Name}}{{end}}' "$N")
D rm -fv "$N" > /dev/null
D volume inspect "$volume" > /dev/null 2>&1 && exit 1 || true
## devices-of-the-container
eq "$(run --rm --device /dev/zero:/dev/z:r bb sh -c 'head -c 3 /dev/z | wc -c')" 3
## shm-of-a-program
eq "$(run --rm --shm-size 1m bb sh -c 'head -c 2000000 /dev/zero > /dev/shm/x; stat -c %s /dev/shm/x' 2> /dev/null)" 1048576
## ipc-host-and-none
code 0 run --rm --ipc=host bb true
code 1 run --rm --ipc=none bb test -w /dev/shm/x
## pid-container-signals
run -d --name "$N" bb sh -c 'trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done' > /dev/null
soon logs_has ready
run --rm --pid="container:$N" bb kill -TERM 1
eq "$(D wait "$N")" 9
## sysctls
eq "$(run --rm --sysctl kernel.shmmax=65536 --sysctl net.ipv4.ip_forward=1 bb sh -c 'cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward' | tr '\n' ' ')" '65536 1 '
code 125 run --rm --sysctl kernel.panic=1 bb true 2> /dev/null
## security-options
# Masked and read-only paths are mounts.
paths='grep " /proc/sys " /proc/mounts | grep -c "[ ,]ro[ ,]"; cut -d" " -f2 /proc/mounts | grep -c "^/proc/" || true'
read -r -d '' read_only below < <(run --rm bb sh -c "$paths") || true
eq "$read_only" 1
# /proc/acpi or what else of the list is there, beside /proc/sys
[ "$below" -gt 1 ]
eq "$(run --rm --security-opt systempaths=unconfined bb sh -c "$paths" | tr '\n' ' ')" '0 0 '
code 1 run --rm bb sh -c 'echo 7 > /proc/sys/kernel/msgmax'
# These two take nothing else away.
eq "$(run --rm --name "$N" --security-opt apparmor=unconfined --security-opt label=disable bb grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status | tr -s '\t\n' '  ')" \
    'CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2 '
code 125 run --rm --security-opt no-such-option=1 bb true 2> /dev/null
## caps-of-a-user
has "$(run --rm -u 1000 bb grep CapEff /proc/self/status)" 0000000000000000
has "$(run --rm -u 1000 bb grep CapBnd /proc/self/status)" 00000000a80425fb
## privileged-port-of-a-user
code 0 run --rm -u 1000 bb sh -c 'nc -l -p 80 & sleep 0.5; kill $!'
## init-forwards-signals
run -d --name "$N" --init bb sh -c 'trap "exit 14" TERM; echo ready; while :; do sleep 0.1; done' > /dev/null
soon logs_has ready
D stop "$N" > /dev/null
eq "$(field "$N" .State.ExitCode)" 14
## health-fails-and-recovers-after-pause
run -d --name "$N" --health-cmd 'exit 0' --health-interval 0.5s bb sleep 100 > /dev/null
soon is healthy field "$N" .State.Health.Status
D pause "$N" > /dev/null
sleep 1
D unpause "$N" > /dev/null
soon is healthy field "$N" .State.Health.Status
has "$(D inspect -f '{{json .State.Health.Log}}' "$N")" '"ExitCode":0'
## stop-timeout-of-the-container
run -d --name "$N" --stop-timeout 1 bb sh -c 'trap "" TERM; echo ready; while :; do sleep 0.1; done' > /dev/null
soon logs_has ready
began=$(date +%s)
D stop "$N" > /dev/null
[ $(($(date +%s) - began)) -le 8 ]
eq "$(field "$N" .State.ExitCode)" 137
## stop-paused
run -d --name "$N" bb sleep 100 > /dev/null
D pause "$N" > /dev/null
D stop -t 1 "$N" > /dev/null
eq "$(field "$N" .State.Status)" exited
## rm-paused
run -d --name "$N" bb sleep 100 > /dev/null
pid=$(pid_of "$N")
D pause "$N" > /dev/null
D rm -f "$N" > /dev/null
soon gone "$pid"
## prune
D create --runtime="$RT" --label "case=$N" --network=none --name "$N" bb true > /dev/null
D container prune -f --filter "label=case=$N" > /dev/null
D inspect "$N" > /dev/null 2>&1 && exit 1 || true
## names-and-environment
out=$(run --rm --hostname h -e TERM=vt100 bb env)
has "$out" HOSTNAME=h
has "$out" PATH=/bin
has "$out" HOME=/root
## long-arguments
eq "$(run --rm -e LONG="$(head -c 100000 /dev/zero | tr '\0' y)" bb sh -c 'echo ${#LONG} $#' "$(head -c 100000 /dev/zero | tr '\0' x)" a b)" '100000 2'
## words-with-blanks
eq "$(run --rm bb printf '%s|' 'a b' '' '$x' '"q"' $'t\tt')" 'a b||$x|"q"|'$'t\tt|'
## many-processes-end-together
run -d --name "$N" bb sh -c 'for i in $(seq 60); do sleep 1000 & done; echo ready; wait' > /dev/null
soon logs_has ready
pid=$(pid_of "$N")
D rm -f "$N" > /dev/null
soon gone "$pid"
## orphans-end-with-the-container
run --rm bb sh -c '(sleep 1000 &) ; exit 0'
## starts-in-a-row
for i in 1 2 3 4 5 6 7 8 9 10; do eq "$(run --rm bb echo "$i")" "$i"; done
