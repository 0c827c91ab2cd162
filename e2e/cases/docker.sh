trap 'status=$?; end_docker || true; exit $status' EXIT

## exit-zero
code 0 run --rm bb true
## exit-seven
code 7 run --rm bb sh -c 'exit 7'
## exit-127-no-such-program
code 127 run --rm bb nothing-like-that
code 127 run --rm bb /no/such/file
## exit-126-not-executable
code 126 run --rm bb /etc/passwd
code 126 run --rm bb /etc
## exit-137-kill
code 137 run --rm bb sh -c 'sh -c "kill -9 \$PPID"; sleep 1; kill -9 $$; exit 137'
code 137 run --name "$N" -d bb sleep 100 > /dev/null && exit 1 || true
D kill "$N" > /dev/null
eq "$(D wait "$N")" 137
## exit-loop-of-links
run --rm bb /loop-a 2> "$BASE/$N.err" && exit 1
has "$(cat "$BASE/$N.err")" "symbolic links"
NET=bridge run --rm bb /loop-a 2> "$BASE/$N.err" && exit 1
has "$(cat "$BASE/$N.err")" "symbolic links"
rm "$BASE/$N.err"
## streams-are-separate
eq "$(run --rm bb sh -c 'echo out; echo err >&2' 2> /dev/null)" out
eq "$(run --rm bb sh -c 'echo out; echo err >&2' 2>&1 > /dev/null)" err
## stdin
eq "$(printf 'a\nb\n' | run --rm -i bb wc -l)" 2
eq "$(head -c 3000000 /dev/zero | run --rm -i bb wc -c)" 3000000
## stdin-is-empty-without-i
eq "$(echo x | run --rm bb wc -c)" 0
## output-large
eq "$(run --rm bb sh -c 'head -c 2000000 /dev/zero | tr "\0" x' | wc -c)" 2000000
## tty
out=$(script -qec "docker -H unix://$BASE/docker.sock run --runtime=$RT --network=none --rm -t bb sh -c 'tty; test -t 0 && test -t 1 && echo yes'" /dev/null)
has "$out" /dev/pts/0
has "$out" yes
## tty-size
out=$(script -qec "stty rows 33 cols 101; docker -H unix://$BASE/docker.sock run --runtime=$RT --network=none --rm -t bb sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sleep 0.3; stty size; done'" /dev/null)
has "$out" '33 101'
## tty-resize
run -d -t --name "$N" bb sh -c 'trap "echo winch" WINCH; while :; do stty size; sleep 0.2; done' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep ' '"
curl -sS --fail --unix-socket "$BASE/docker.sock" -X POST "http://d/containers/$N/resize?h=41&w=121"
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep '41 121'"
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep winch"
## logs
run -d --name "$N" bb sh -c 'echo one; echo two >&2; exit 3' > /dev/null
eq "$(D wait "$N")" 3
eq "$(D logs "$N" 2> /dev/null)" one
eq "$(D logs "$N" 2>&1 > /dev/null)" two
eq "$(D logs --tail 1 "$N" 2>&1 | wc -l)" 1
## logs-follow
run -d --name "$N" bb sh -c 'for i in 1 2 3; do echo $i; sleep 0.3; done' > /dev/null
eq "$(D logs -f "$N" | tr '\n' ,)" 1,2,3,
## exec-output
run -d --name "$N" bb sleep 100 > /dev/null
eq "$(D exec "$N" sh -c 'echo out; echo err >&2' 2> /dev/null)" out
eq "$(echo hello | D exec -i "$N" cat)" hello
## exec-exit-codes
run -d --name "$N" bb sleep 100 > /dev/null
code 0 D exec "$N" true
code 7 D exec "$N" sh -c 'exit 7'
code 137 D exec "$N" sh -c 'kill -9 $$'
# Docker 20.10 has its own idea of the number for what is not in $PATH.
D exec "$N" no-such-program && exit 1 || has '126 127' "$?"
code 126 D exec "$N" /etc/passwd
## exec-user-workdir-env
run -d --name "$N" -e A=1 bb sleep 100 > /dev/null
eq "$(D exec -u 1000 "$N" id -u)" 1000
eq "$(D exec -u user:audio "$N" sh -c 'id -un; id -gn' | tr '\n' ' ')" 'user audio '
eq "$(D exec -w /tmp "$N" pwd)" /tmp
eq "$(D exec -e B=2 "$N" sh -c 'echo $A$B')" 12
## exec-detach
run -d --name "$N" bb sleep 100 > /dev/null
D exec -d "$N" sh -c 'echo done > /tmp/f; sleep 100'
soon D exec "$N" test -s /tmp/f
eq "$(D exec "$N" pidof sleep | wc -w)" 2
## exec-tty
run -d --name "$N" bb sleep 100 > /dev/null
out=$(script -qec "stty rows 30 cols 90; docker -H unix://$BASE/docker.sock exec -it $N sh -c 'tty; sleep 1; stty size; exit 5'" /dev/null) && exit 1 || eq "$?" 5
has "$out" /dev/pts/
has "$out" '30 90'
## exec-privileged-capabilities
run -d --name "$N" bb sleep 100 > /dev/null
has "$(D exec "$N" grep CapEff /proc/self/status)" 00000000a80425fb
## exec-in-stopped
run -d --name "$N" bb true > /dev/null
D wait "$N" > /dev/null
D exec "$N" true && exit 1 || true
## exec-many
run -d --name "$N" bb sleep 100 > /dev/null
for i in 1 2 3 4 5 6; do D exec "$N" sh -c "exit $i" && exit 1 || eq "$?" "$i"; done
## attach
run -d -i --name "$N" bb sh -c 'read x; echo "got $x"; exit 4' > /dev/null
printf 'word\n' | D attach "$N" > /dev/null && exit 1 || eq "$?" 4
eq "$(D logs "$N")" 'got word'
## start-attached
D create --runtime="$RT" --label "case=$N" --network=none --name "$N" bb sh -c 'echo hi; exit 9' > /dev/null
out=$(D start -a "$N") && exit 1 || eq "$?" 9
eq "$out" hi
## top
run -d --name "$N" bb sleep 100 > /dev/null
has "$(D top "$N")" PID
eq "$(D top "$N" -o pid | sed 1d | head -1 | tr -d ' ')" "$(pid_of "$N")"
## stats
run -d --name "$N" bb sh -c 'while :; do :; done' > /dev/null
sleep 1
out=$(D stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}' "$N")
hasnot "$out" '0.00%'
hasnot "$out" ' 0B'
hasnot "$out" ' 0 '
## inspect-state
run -d --name "$N" bb sleep 100 > /dev/null
eq "$(field "$N" .State.Status)" running
pid=$(pid_of "$N")
test -d "/proc/$pid"
D kill "$N" > /dev/null
soon gone "$pid"
eq "$(field "$N" .State.Status) $(field "$N" .State.ExitCode) $(field "$N" .State.Pid)" 'exited 137 0'
## pause-unpause
run -d --name "$N" bb sh -c 'while :; do date +%s%N; sleep 0.1; done' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep 1"
D pause "$N" > /dev/null
eq "$(field "$N" .State.Status)" paused
sleep 0.4
before=$(D logs "$N" | wc -l)
sleep 1
eq "$(D logs "$N" | wc -l)" "$before"
D unpause "$N" > /dev/null
soon sh -c "[ \$(docker -H unix://$BASE/docker.sock logs $N | wc -l) -gt $before ]"
## pause-refuses-exec
run -d --name "$N" bb sleep 100 > /dev/null
D pause "$N" > /dev/null
D exec "$N" true && exit 1 || true
D unpause "$N" > /dev/null
code 0 D exec "$N" true
## kill-paused
run -d --name "$N" bb sleep 100 > /dev/null
D pause "$N" > /dev/null
D kill "$N" > /dev/null
eq "$(D wait "$N")" 137
## kill-signals
run -d --name "$N" bb sh -c 'trap "echo usr1" USR1; trap "echo hup" HUP; echo ready; while :; do sleep 0.1; done' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep ready"
D kill -s USR1 "$N" > /dev/null
D kill -s HUP "$N" > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep usr1"
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep hup"
D kill -s KILL "$N" > /dev/null
D kill "$N" 2> /dev/null && exit 1 || true
## stop-gracefully
run -d --name "$N" bb sh -c 'trap "exit 5" TERM; echo ready; while :; do sleep 0.1; done' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep ready"
D stop "$N" > /dev/null
eq "$(field "$N" .State.ExitCode)" 5
## stop-with-timeout
run -d --name "$N" bb sh -c 'trap "" TERM; while :; do sleep 0.1; done' > /dev/null
began=$(date +%s)
D stop -t 1 "$N" > /dev/null
eq "$(field "$N" .State.ExitCode)" 137
[ $(($(date +%s) - began)) -le 8 ]
## stop-signal
run -d --name "$N" --stop-signal USR2 bb sh -c 'trap "exit 12" USR2; echo ready; while :; do sleep 0.1; done' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep ready"
D stop "$N" > /dev/null
eq "$(field "$N" .State.ExitCode)" 12
## restart
run -d --name "$N" bb sh -c 'echo begin; exec sleep 100' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep begin"
first=$(pid_of "$N")
D restart -t 0 "$N" > /dev/null
[ "$(pid_of "$N")" != "$first" ]
soon sh -c "[ \$(docker -H unix://$BASE/docker.sock logs $N | grep -c begin) = 2 ]"
## restart-keeps-files
run -d --name "$N" bb sh -c 'test -e /kept && exit 8; echo x > /kept; exit 1' > /dev/null
eq "$(D wait "$N")" 1
D start "$N" > /dev/null
eq "$(D wait "$N")" 8
## restart-policy-on-failure
run -d --name "$N" --restart on-failure:2 bb sh -c 'echo try; exit 3' > /dev/null
soon is exited field "$N" .State.Status
soon is 2 field "$N" .RestartCount
eq "$(D logs "$N" | grep -c try)" 3
## restart-policy-always
run -d --name "$N" --restart always bb sleep 100 > /dev/null
first=$(pid_of "$N")
kill -9 "$first"
soon is 1 field "$N" .RestartCount
soon is running field "$N" .State.Status
[ "$(pid_of "$N")" != "$first" ]
## wait
run -d --name "$N" bb sh -c 'sleep 0.5; exit 21' > /dev/null
eq "$(D wait "$N")" 21
## rm-running
run -d --name "$N" bb sleep 100 > /dev/null
pid=$(pid_of "$N")
D rm "$N" 2> /dev/null && exit 1
D rm -f "$N" > /dev/null
soon gone "$pid"
D inspect "$N" > /dev/null 2>&1 && exit 1 || true
## rm-created
D create --runtime="$RT" --label "case=$N" --network=none --name "$N" bb true > /dev/null
D rm "$N" > /dev/null
## update-memory
run -d --name "$N" --memory 100m bb sleep 100 > /dev/null
D update --memory 200m --memory-swap 400m "$N" > /dev/null
eq "$(limit "$(docker_group "$N")" memory.limit_in_bytes memory.max)" 209715200
code 0 D exec "$N" true
## update-cpus
run -d --name "$N" bb sleep 100 > /dev/null
D update --cpus 0.5 "$N" > /dev/null
eq "$(limit "$(docker_group "$N")" cpu.cfs_quota_us cpu.max | cut -d' ' -f1)" 50000
## cp-out
run -d --name "$N" bb sh -c 'echo data > /made; mkdir -p /dir/sub; echo x > /dir/sub/f; exec sleep 100' > /dev/null
soon D exec "$N" test -e /dir/sub/f
D cp "$N:/made" "$BASE/$N.out"
eq "$(cat "$BASE/$N.out")" data
D cp "$N:/dir" "$BASE/$N.dir"
eq "$(cat "$BASE/$N.dir/sub/f")" x
rm -r "$BASE/$N.out" "$BASE/$N.dir"
## cp-in
run -d --name "$N" bb sleep 100 > /dev/null
echo inside > "$BASE/$N.in"
D exec "$N" sh -c 'test ! -e /tmp/in'
D cp "$BASE/$N.in" "$N:/tmp/in"
eq "$(D exec "$N" cat /tmp/in)" inside
echo changed > "$BASE/$N.in"
D cp "$BASE/$N.in" "$N:/tmp/in"
eq "$(D exec "$N" cat /tmp/in)" changed
rm "$BASE/$N.in"
## cp-stopped
run --name "$N" bb sh -c 'echo kept > /made'
eq "$(D cp "$N:/made" - | tar -xO)" kept
## diff
run --name "$N" bb sh -c 'echo n > /new; rm /bin/vi; echo x >> /etc/passwd'
out=$(D diff "$N")
has "$out" 'A /new'
has "$out" 'D /bin/vi'
has "$out" 'C /etc/passwd'
## commit
run --name "$N" bb sh -c 'echo mine > /mine; chmod 640 /mine; chown 5:6 /mine; ln -s /mine /link; rm /bin/vi; mkdir /empty'
D commit "$N" "$N:new" > /dev/null
eq "$(run --rm "$N:new" sh -c 'cat /link; stat -c "%a %u %g" /mine; test -d /empty; test ! -e /bin/vi && echo no-vi' | tr '\n' ' ')" 'mine 640 5 6 no-vi '
D rmi -f "$N:new" > /dev/null
## export
run --name "$N" bb sh -c 'echo mine > /mine'
eq "$(D export "$N" | tar -xO mine)" mine
## rename
run -d --name "$N" bb sleep 100 > /dev/null
D rename "$N" "$N-other"
code 0 D exec "$N-other" true
## healthcheck
run -d --name "$N" --health-cmd 'test -e /tmp/well' --health-interval 0.5s --health-retries 1 bb sleep 100 > /dev/null
soon is unhealthy field "$N" .State.Health.Status
D exec "$N" touch /tmp/well
soon is healthy field "$N" .State.Health.Status
## init
out=$(run --rm --init bb sh -c 'cat /proc/1/comm; sh -c "sleep 0.1 & exit"; sleep 1; ps -o stat | grep -c Z || true')
has "$out" init
has "$out" 0
code 7 run --rm --init bb sh -c 'exit 7'
## pid-1
eq "$(run --rm bb sh -c 'echo $$')" 1
## pid-host
# runc shows the host's processes; a sandbox has a namespace of its own.
out=$(run --rm --pid=host bb ps -o pid,args)
if [ "$RT" = runc ]; then has "$out" dockerd; else
    hasnot "$out" dockerd
    eq "$(echo "$out" | tr -s ' ' | tail -1)" ' 1 ps -o pid,args'
fi
## pid-container
run -d --name "$N" bb sleep 98765 > /dev/null
has "$(run --rm --pid="container:$N" bb ps)" 98765
## ipc-container
run -d --name "$N" --ipc=shareable bb sh -c 'echo word > /dev/shm/f; exec sleep 100' > /dev/null
soon D exec "$N" test -s /dev/shm/f
eq "$(run --rm --ipc="container:$N" bb cat /dev/shm/f)" word
## ipc-private
run -d --name "$N" bb sh -c 'echo word > /dev/shm/f; exec sleep 100' > /dev/null
soon D exec "$N" test -s /dev/shm/f
code 1 run --rm bb test -e /dev/shm/f
## uts-host
eq "$(run --rm --uts=host bb hostname)" "$(hostname)"
## hostname
eq "$(run --rm --hostname web1 bb sh -c 'hostname; cat /etc/hostname' | tr '\n' ' ')" 'web1 web1 '
## domainname
eq "$(run --rm --hostname web1 --domainname example.org bb cat /proc/sys/kernel/domainname)" example.org
## user
eq "$(run --rm --user 1000:29 bb sh -c 'id -u; id -g' | tr '\n' ' ')" '1000 29 '
eq "$(run --rm --user user bb sh -c 'id -un; echo $HOME' | tr '\n' ' ')" 'user /home/user '
code 125 run --rm --user nobody-there bb true
## group-add
has "$(run --rm --user 1000 --group-add audio --group-add 77 bb id -G)" '29'
has "$(run --rm --user 1000 --group-add 77 bb id -G)" '77'
## workdir
eq "$(run --rm --workdir /some/new/place bb pwd)" /some/new/place
## env
echo 'FILED=yes' > "$BASE/$N.env"
eq "$(run --rm -e A='a b' --env-file "$BASE/$N.env" bb sh -c 'echo "$A $FILED"')" 'a b yes'
rm "$BASE/$N.env"
## entrypoint
eq "$(run --rm --entrypoint echo bb one two)" 'one two'
## ulimit
eq "$(run --rm --ulimit nofile=321:654 bb sh -c 'ulimit -n; ulimit -Hn' | tr '\n' ' ')" '321 654 '
eq "$(run --rm --ulimit core=0 bb sh -c 'ulimit -c')" 0
## caps-default
has "$(run --rm bb grep CapEff /proc/self/status)" 00000000a80425fb
has "$(run --rm bb grep CapBnd /proc/self/status)" 00000000a80425fb
has "$(run --rm bb grep CapInh /proc/self/status)" 0000000000000000
## cap-drop
has "$(run --rm --cap-drop ALL bb grep CapEff /proc/self/status)" 0000000000000000
code 1 run --rm --cap-drop CHOWN bb chown 5 /tmp
## cap-add
has "$(run --rm --cap-drop ALL --cap-add NET_ADMIN bb grep CapEff /proc/self/status)" 0000000000001000
code 0 run --rm --cap-add SYS_ADMIN --security-opt seccomp=unconfined bb mount -t tmpfs x /tmp
code 1 run --rm bb mount -t tmpfs x /tmp
## read-only
code 1 run --rm --read-only bb touch /f
code 0 run --rm --read-only --tmpfs /tmp bb touch /tmp/f
## tmpfs
out=$(run --rm --tmpfs /t:size=1m,mode=1770 bb sh -c 'stat -c %a /t; df -k /t | tail -1; dd if=/dev/zero of=/t/f bs=1k count=2000 2>&1 | tail -3')
has "$out" 1770
has "$out" 1024
has "$out" 'No space left'
## volume-rw
mkdir "$BASE/$N.v"
run --rm -v "$BASE/$N.v:/v" bb sh -c 'echo in > /v/f; chown 7:8 /v/f; chmod 604 /v/f'
eq "$(cat "$BASE/$N.v/f") $(stat -c '%u:%g %a' "$BASE/$N.v/f")" 'in 7:8 604'
echo out > "$BASE/$N.v/f"
eq "$(run --rm -v "$BASE/$N.v:/v" bb cat /v/f)" out
rm -r "$BASE/$N.v"
## volume-live
mkdir "$BASE/$N.v"
run -d --name "$N" -v "$BASE/$N.v:/v" bb sleep 100 > /dev/null
D exec "$N" sh -c 'test ! -e /v/late'
echo 1 > "$BASE/$N.v/late"
eq "$(D exec "$N" cat /v/late)" 1
echo 22 > "$BASE/$N.v/late"
eq "$(D exec "$N" cat /v/late)" 22
rm "$BASE/$N.v/late"
code 1 D exec "$N" test -e /v/late
rm -r "$BASE/$N.v"
## volume-ro
mkdir "$BASE/$N.v"
echo x > "$BASE/$N.v/f"
eq "$(run --rm -v "$BASE/$N.v:/v:ro" bb sh -c 'cat /v/f; touch /v/g 2>&1 || echo refused')" "x
touch: /v/g: Read-only file system
refused"
rm -r "$BASE/$N.v"
## volume-file
echo first > "$BASE/$N.f"
run --rm -v "$BASE/$N.f:/etc/some.conf" bb sh -c 'echo second >> /etc/some.conf'
eq "$(tr '\n' ' ' < "$BASE/$N.f")" 'first second '
rm "$BASE/$N.f"
## volume-named
D volume create --label "case=$N" "$N" > /dev/null
run --rm -v "$N:/etc" bb sh -c 'test -e /etc/passwd; echo kept > /etc/kept'
eq "$(run --rm -v "$N:/data" bb cat /data/kept)" kept
D volume rm "$N" > /dev/null
## volume-nested
mkdir -p "$BASE/$N.v/a" "$BASE/$N.w"
echo low > "$BASE/$N.v/a/f"
echo high > "$BASE/$N.w/f"
eq "$(run --rm -v "$BASE/$N.v:/v" -v "$BASE/$N.w:/v/a" bb cat /v/a/f)" high
eq "$(cat "$BASE/$N.v/a/f")" low
rm -r "$BASE/$N.v" "$BASE/$N.w"
## volume-propagation
mkdir -p "$BASE/$N.v"
mount -t tmpfs x "$BASE/$N.v"
mount --make-rshared "$BASE/$N.v"
mkdir "$BASE/$N.v/m"
mount -t tmpfs x "$BASE/$N.v/m"
touch "$BASE/$N.v/m/there"
status=0
run --rm -v "$BASE/$N.v:/v:rslave" bb test -e /v/m/there || status=$?
umount "$BASE/$N.v/m" "$BASE/$N.v"
rmdir "$BASE/$N.v"
exit $status
## volumes-from
run -d --name "$N" -v /data bb sh -c 'echo v > /data/f; exec sleep 100' > /dev/null
soon D exec "$N" test -s /data/f
eq "$(run --rm --volumes-from "$N" bb cat /data/f)" v
## mount-flag
mkdir "$BASE/$N.v"
echo b > "$BASE/$N.v/f"
eq "$(run --rm --mount "type=bind,src=$BASE/$N.v,dst=/v,readonly" --mount type=tmpfs,dst=/t,tmpfs-size=65536 bb sh -c 'cat /v/f; touch /t/x /v/y 2> /dev/null || echo ro' | tr '\n' ' ')" 'b ro '
rm -r "$BASE/$N.v"
code 125 run --rm --mount "type=bind,src=$BASE/not-there,dst=/v" bb true
## device
code 0 run --rm --device /dev/null:/dev/other bb sh -c 'echo x > /dev/other; test -c /dev/other'
## device-files
out=$(run --rm bb sh -c 'for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; head -c 4 /dev/zero | wc -c; ls /dev/pts/ptmx; readlink /dev/fd')
eq "$out" "4
/dev/pts/ptmx
/proc/self/fd"
## privileged
# Docker asks runc for all capabilities: who does not have them cannot give them, and says so.
script='grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo 1 > /proc/sys/net/ipv4/ip_forward && echo done'
if [ "$RT" = runc ] && ! all_capabilities; then
    out=$(run --rm --privileged bb sh -c "$script" 2>&1) && exit 1
    has "$out" 'operation not permitted'
else
    out=$(run --rm --privileged bb sh -c "$script")
    all_known "$out"
    has "$out" done
fi
## seccomp-default
code 1 run --rm bb unshare -m true
code 1 run --rm bb unshare -U true
has "$(run --rm bb grep Seccomp: /proc/self/status)" 2
## seccomp-unconfined
has "$(run --rm --security-opt seccomp=unconfined bb grep Seccomp: /proc/self/status)" 0
## seccomp-profile
cat > "$BASE/$N.json" <<J
{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 62}]}
J
has "$(run --rm --security-opt "seccomp=$BASE/$N.json" bb mkdir /tmp/x 2>&1 || true)" 'Timer expired'
rm "$BASE/$N.json"
## no-new-privileges
has "$(run --rm --security-opt no-new-privileges bb grep NoNewPrivs /proc/self/status)" 1
has "$(run --rm bb grep NoNewPrivs /proc/self/status)" 0
## masked-paths
out=$(run --rm bb sh -c 'wc -c < /proc/kcore; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v : | grep -c . ; echo x > /proc/sys/kernel/hostname || echo refused' 2> /dev/null)
has "$out" refused
## oom
run --name "$N" --memory 20m --memory-swap 20m bb sh -c 'x=a; while :; do x=$x$x$x; done' && exit 1 || eq "$?" 137
eq "$(field "$N" .State.OOMKilled)" true
## memory-seen
# By the engine, and what is used counts.
run -d --name "$N" --memory 100m --memory-swap 100m bb sh -c '{ head -c 40000000 /dev/zero; echo full >&2; sleep 100; } | tail -c 40000000' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N 2>&1 | grep full"
out=$(D stats --no-stream --format '{{.MemUsage}} {{.MemPerc}}' "$N")
has "$out" '/ 100MiB'
used=$(echo "$out" | cut -d. -f1)
has "$(echo "$out" | cut -d' ' -f1)" MiB
[ "${used%MiB*}" -ge 38 ] && [ "${used%MiB*}" -lt 100 ]
eq "$(field "$N" .State.OOMKilled)" false
## pids-limit
out=$(run --rm --pids-limit 20 bb sh -c 'for i in $(seq 40); do sleep 5 & done; echo all' 2>&1) || true
has "$out" "can't fork"
## pids-limit-not-reached
eq "$(run --rm --pids-limit 20 bb sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2 & done; wait; echo all')" all
## cpus
run -d --name "$N" --cpus 0.5 bb sleep 100 > /dev/null
eq "$(limit "$(docker_group "$N")" cpu.cfs_quota_us cpu.max | cut -d' ' -f1)" 50000
## cpuset
eq "$(run --rm --cpuset-cpus 0 bb nproc)" 1
## sysctl
eq "$(run --rm --sysctl net.ipv4.ip_unprivileged_port_start=80 --sysctl kernel.msgmax=4096 bb sh -c 'cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax' | tr '\n' ' ')" '80 4096 '
## shm-size
has "$(run --rm --shm-size 2m bb df -k /dev/shm)" ' 2048 '
## oom-score-adj
eq "$(run --rm --oom-score-adj 300 bb cat /proc/self/oom_score_adj)" 300
## hosts-and-dns
out=$(run --rm --add-host one.example:10.1.2.3 bb cat /etc/hosts)
has "$out" '10.1.2.3'
NET=bridge run --rm --dns 10.9.9.9 bb cat /etc/resolv.conf | grep -q 10.9.9.9
## resolv-conf-writable
code 0 run --rm bb sh -c 'echo nameserver 1.1.1.1 > /etc/resolv.conf'
## network-none
out=$(run --rm bb ip -o link)
has "$out" lo
hasnot "$out" eth0
## network-bridge-starts
eq "$(NET=bridge run --rm bb echo up)" up
## network-host-starts
eq "$(NET=host run --rm bb echo up)" up
## network-host-tables
# What is below /proc/net is the namespace's, and the container finds its own processes behind its sockets.
out=$(NET=host run --rm bb sh -c 'nc -l -p 18190 > /dev/null & sleep 1; netstat -tln | grep 18190
    number=$(awk "\$2 ~ /:470E\$/ && \$4 == \"0A\" { print \$10 }" /proc/net/tcp /proc/net/tcp6); ls -l /proc/$!/fd | grep "socket:.$number.$"
    echo | nc 127.0.0.1 18190; awk "/ lo:/ { print \"lo\", (\$2 > 0) }" /proc/net/dev')
has "$out" :18190
has "$out" socket:
has "$out" 'lo 1'
## network-container
NET=bridge run -d --name "$N" bb sleep 100 > /dev/null
eq "$(NET=container:$N run --rm bb echo up)" up
## loopback
eq "$(run --rm bb sh -c 'echo hello | nc -l -p 8080 & sleep 0.5; nc 127.0.0.1 8080 < /dev/null')" hello
## auto-remove
run -d --rm --name "$N" bb true > /dev/null
soon sh -c "! docker -H unix://$BASE/docker.sock inspect $N"
## many-at-once
for i in 1 2 3 4; do run --rm bb sh -c "exit $i" & p[$i]=$!; done
for i in 1 2 3 4; do code "$i" wait "${p[$i]}"; done
## cidfile-and-label
run --rm --cidfile "$BASE/$N.cid" bb true
[ "$(wc -c < "$BASE/$N.cid")" = 64 ]
rm "$BASE/$N.cid"
## events
since=$(date +%s)
run --rm bb true
out=$(D events --since "$since" --until "$(($(date +%s) + 1))" --filter "label=case=$N" --format '{{.Action}}' | tr '\n' ' ')
for word in create start die destroy; do has "$out" $word; done
## build [alone]
mkdir "$BASE/$N.ctx"
cat > "$BASE/$N.ctx/Dockerfile" <<F
FROM bb
RUN echo built > /built && mkdir -p /opt/x && chmod 700 /opt/x
COPY file /copied
RUN cat /built /copied > /both
USER 1000
CMD ["cat", "/both"]
F
echo copied > "$BASE/$N.ctx/file"
docker_daemon "$N" --default-runtime "$RT" --bridge none --iptables=false
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
trap 'status=$?; end_daemon "$N"; rm -rf "$BASE/$N.ctx"; exit $status' EXIT
D save bb | d load > /dev/null
d build -q --network none --cgroup-parent "$PARENT" -t built "$BASE/$N.ctx" > /dev/null
eq "$(d run --rm --network none built | tr '\n' ' ')" 'built copied '
printf 'FROM bb\nRUN exit 5\n' > "$BASE/$N.ctx/Dockerfile"
d build --network none --cgroup-parent "$PARENT" "$BASE/$N.ctx" > "$BASE/$N.log" 2>&1 && exit 1
has "$(cat "$BASE/$N.log")" 'non-zero code: 5'
## userns-remap [alone]
# Only the mount namespace of this daemon knows the user whose ids are given.
mkdir "$BASE/$N.etc"
cp /etc/passwd /etc/group "$BASE/$N.etc"
echo 'e2eremap:x:5501:5501::/:/bin/false' >> "$BASE/$N.etc/passwd"
echo 'e2eremap:x:5501:' >> "$BASE/$N.etc/group"
echo e2eremap:100000:65536 | tee "$BASE/$N.etc/subuid" > "$BASE/$N.etc/subgid"
INSIDE=(unshare --mount --propagation private sh -ec 'for f in passwd group subuid subgid; do [ -e "/etc/$f" ] || : > "/etc/$f"; mount --bind "$0/$f" "/etc/$f"; done; exec "$@"' "$BASE/$N.etc")
docker_daemon "$N" --userns-remap e2eremap --bridge none --iptables=false
trap 'status=$?; end_daemon "$N"; rm -r "$BASE/$N.etc"; exit $status' EXIT
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
has "$(d info -f '{{.SecurityOptions}}')" name=userns
D save bb | d load > /dev/null
eq "$(d run --rm --runtime="$RT" --network none bb sh -c 'id -u; touch /f; stat -c %u /f /etc; awk "{ print \$1, \$2, \$3 }" /proc/self/uid_map; chown 7 /f; stat -c %u /f' | tr '\n' ' ')" '0 0 0 0 100000 65536 7 '
# What root there has written is on the host that of the user whose ids these are.
d run --runtime="$RT" --network none --name writer bb touch /written
eq "$(find "$BASE/$N/data" -name written -path '*/diff/*' -exec stat -c %u {} +)" 100000
## live-restore [alone]
docker_daemon "$N" --live-restore --bridge none --iptables=false
trap 'status=$?; end_daemon "$N"; exit $status' EXIT
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
D save bb | d load > /dev/null
d run -d --runtime="$RT" --network none --name live bb sh -c 'while :; do date +%s%N; sleep 0.2; done' > /dev/null
pid=$(d inspect -f '{{.State.Pid}}' live)
kill "$(cat "$BASE/$N/pid")"
soon gone "$(cat "$BASE/$N/pid")"
test -d "/proc/$pid"
docker_daemon "$N" --live-restore --bridge none --iptables=false
eq "$(d inspect -f '{{.State.Pid}} {{.State.Status}}' live)" "$pid running"
code 0 d exec live true
n=$(d logs live | wc -l)
soon sh -c "[ \$(docker -H unix://$BASE/$N.sock logs live | wc -l) -gt $n ]"
d stop -t 0 live > /dev/null
eq "$(d inspect -f '{{.State.ExitCode}}' live)" 137
## daemon-killed [alone]
docker_daemon "$N" --live-restore --bridge none --iptables=false
trap 'status=$?; end_daemon "$N"; exit $status' EXIT
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
D save bb | d load > /dev/null
d run -d --runtime="$RT" --network none --name live bb sleep 1000 > /dev/null
daemon=$(cat "$BASE/$N/pid")
containerd=$(cat "$BASE/$N/exec/containerd/containerd.pid")
kill -9 "$daemon" "$containerd"
# A new one takes a zombie for a daemon that lives.
soon test ! -e "/proc/$daemon"
soon test ! -e "/proc/$containerd"
rm -f "$BASE/$N/pid" "$BASE/$N/exec/containerd/containerd.pid"
docker_daemon "$N" --live-restore --bridge none --iptables=false
code 0 d exec live true
d rm -f live > /dev/null
## shim-killed
run -d --name "$N" bb sleep 1000 > /dev/null
pid=$(pid_of "$N")
shim=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
grep -q shim "/proc/$shim/comm" || { note "no shim above $pid"; exit 1; }
kill -9 "$shim"
soon is exited field "$N" .State.Status
D rm -f "$N" > /dev/null
soon gone "$pid"
## process-of-container-killed
run -d --name "$N" bb sleep 1000 > /dev/null
kill -9 "$(pid_of "$N")"
eq "$(D wait "$N")" 137
D rm "$N" > /dev/null
## gofer-killed [runsc]
run -d --name "$N" bb sh -c 'while :; do cat /etc/passwd > /dev/null || exit 9; sleep 0.1; done' > /dev/null
id=$(field "$N" .Id)
sentry=$(pid_of "$N")
gofer=$(grep -o '"gofer":{"pid":[0-9]*' "$BASE"/docker/exec/runtime-*/moby/"$id"/state.json | grep -o '[0-9]*$')
kill -9 "$gofer"
eq "$(D wait "$N")" 137
soon gone "$sentry"
D rm "$N" > /dev/null
## checkpoint-is-refused [runsc]
# With words that say so; the container goes on.
run -d --name "$N" bb sh -c 'while :; do echo x; sleep 0.1; done' > /dev/null
out=$(D checkpoint create "$N" one 2>&1) && exit 1
has "$out" 'checkpoint is not supported'
eq "$(field "$N" .State.Status)" running
code 0 D exec "$N" true
n=$(D logs "$N" | wc -l)
soon sh -c "[ \$(docker -H unix://$BASE/docker.sock logs $N | wc -l) -gt $n ]"
eq "$(D checkpoint ls "$N" | wc -l)" 1
## install [runsc] [alone]
mkdir -p "$BASE/$N"
echo '{"experimental": true, "runtimes": {"other": {"path": "/usr/sbin/runc"}}}' > "$BASE/$N/daemon.json"
cp "$BASE/$N/daemon.json" "$BASE/$N/before"
"$BASE/runsc" install --config "$BASE/$N/daemon.json" --path "$BASE/runsc" -- --debug
"$BASE/runsc" install --config "$BASE/$N/daemon.json" --path "$BASE/runsc" -- --debug | grep -q 'nothing to change'
KEEP_CONFIG=1 docker_daemon "$N" --bridge none --iptables=false --cgroup-parent "$PARENT"
trap 'status=$?; end_daemon "$N"; exit $status' EXIT
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
D save bb | d load > /dev/null
eq "$(d run --rm --runtime=runsc --network none bb echo installed)" installed
eq "$(d run --rm --runtime=other --network none bb echo other)" other
has "$("$BASE/runsc" uninstall --config "$BASE/$N/daemon.json")" 'systemctl reload docker'
eq "$(jq -cS . "$BASE/$N/daemon.json")" "$(jq -cS . "$BASE/$N/before")"
# The last runtime is one that dockerd does not forget at a reload.
only() { "$BASE/runsc" "$@" --config "$BASE/$N/only.json"; }
has "$(only install --path "$BASE/runsc")" 'systemctl reload docker'
has "$(only uninstall)" 'systemctl restart docker'
