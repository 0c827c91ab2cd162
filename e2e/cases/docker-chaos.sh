# Parts of the engine and of a sandbox are killed at moments that a fixed seed chooses: no other container notices, and what is
# left of the one that was hit goes away with it.
#
# Whatever the engine forgets (it does, with runc too), `delete --force` takes away.
#
# Each round starts a victim in the background, kills one process after up to half a second (so now during its
# creation, now while it runs), and takes the victim away.

NAMES="--live-restore --bridge none --iptables=false"
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
exec_root=$BASE/$N/exec
# The process itself, or its number in a file; nothing if it is gone.
number() { case "$1" in
    dockerd) cat "$BASE/$N/pid" ;;
    containerd) cat "$exec_root/containerd/containerd.pid" ;;
    shim) awk '/^PPid:/ { print $2 }' "/proc/$(victim_process)/status" ;;
    sentry) victim_process ;;
    gofer) find "$exec_root" -path "*/$(victim)/state.json" -not -path '*/rootfs/*' 2> /dev/null | xargs -r grep -ho '"gofer":{"pid":[0-9]*' | grep -o '[0-9]*$' | head -1 ;;
    esac 2> /dev/null || true; }
victim() { cat "$BASE/$N/victim" 2> /dev/null || echo none; }
victim_process() { cat "$(find "$exec_root" -path "*/$(victim)/init.pid" | head -1)" 2> /dev/null || true; }
bystander_lives() {
    eq "$(d inspect -f '{{.State.Pid}} {{.State.Status}}' bystander)" "$pid running"
    local n
    n=$(d logs bystander | wc -l)
    soon sh -c "[ \$(docker -H unix://$BASE/$N.sock logs bystander | wc -l) -gt $n ]"
}
ensure_daemon() {
    local containerd
    if ! d version > /dev/null 2>&1; then
        soon gone "$(cat "$BASE/$N/pid" 2> /dev/null || echo 0)"
        # It takes its containerd along; a new one that still sees that, be it as a zombie, waits for it in vain.
        containerd=$(number containerd)
        [ -z "$containerd" ] || soon test ! -e "/proc/$containerd"
        rm -f "$BASE/$N/pid"
        docker_daemon "$N" $NAMES
    fi
}
chaos() { # SEED WHO…
    RANDOM=$1
    shift
    docker_daemon "$N" $NAMES
    trap 'status=$?; ensure_daemon || true; end_daemon "$N" || true; exit $status' EXIT
    D save bb | d load > /dev/null
    d run -d --runtime="$RT" --network none --name bystander bb sh -c 'while :; do echo x; sleep 0.2; done' > /dev/null
    pid=$(d inspect -f '{{.State.Pid}}' bystander)
    local who delay id hit process state runtime=$RT
    [ "$RT" = runc ] || runtime=$BASE/runsc
    for who in "$@"; do
        rm -f "$BASE/$N/victim"
        (d run -d --cidfile "$BASE/$N/victim" --runtime="$RT" --network none --name victim bb sh -c 'while :; do cat /etc/passwd > /dev/null; done' > /dev/null 2>&1 || true) &
        delay=$((RANDOM % 50))
        sleep "0.$(printf %02d "$delay")"
        # What is to be hit may not be there yet.
        hit=
        for _ in $(seq 100); do
            hit=$(number "$who")
            [ -z "$hit" ] || break
            sleep 0.05
        done
        note "$who ($hit) after 0.$(printf %02d "$delay") s, then some"
        [ -z "$hit" ] || kill -9 "$hit" 2> /dev/null || true
        wait $! || true
        ensure_daemon
        soon d version
        id=$(victim)
        soon sh -c "docker -H unix://$BASE/$N.sock rm -f victim || ! docker -H unix://$BASE/$N.sock inspect victim"
        # The engine may have lost it: then the runtime itself cleans up.
        if [ "$id" != none ]; then
            process=$(victim_process)
            # Docker names it by its default runtime.
            state=$(echo "$exec_root"/runtime-*/moby)
            [ ! -e "$state/$id" ] || note "the engine has left it"
            code 0 "$runtime" --root "$state" delete --force "$id"
            [ ! -e "$state/$id" ]
            [ -z "$process" ] || soon gone "$process"
            # runc that was killed while it made them leaves them.
            [ "$RT" = runc ] || soon sh -c "! find /sys/fs/cgroup -maxdepth 3 -name $id | grep ."
        fi
        bystander_lives
    done
    # containerd may be on its way back.
    soon d exec bystander true
    d rm -f bystander > /dev/null
    soon gone "$pid"
}

## chaos-of-the-engine [alone]
chaos 4711 containerd dockerd shim dockerd containerd
## chaos-of-the-sandbox [alone]
[ "$RT" = runc ] && last=sentry || last=gofer
chaos 1234 sentry "$last" shim "$last" sentry
