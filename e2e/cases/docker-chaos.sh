# Parts of the engine and of a sandbox are killed at moments that a seed chooses: no other container notices, and what is
# left of the one that was hit goes away with it. The seed is said, and E2E_SEED sets another one.
#
# Whatever the engine forgets (it does, with runc too), `delete --force` takes away.
#
# Each round starts a victim in the background, kills one process after up to half a second (so now during its
# creation, now while it runs), and takes the victim away. A round in which nothing is killed fails.

NAMES="--live-restore --bridge none --iptables=false"
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
exec_root=$BASE/$N/exec
# alive PID COMM…: it is there, is no zombie, and has that name (any, without one).
alive() {
    [ -n "$1" ] && ! gone "$1" && { [ -z "${2:-}" ] || grep -qx "$2" "/proc/$1/comm"; }
}
# The number of the process that is to be hit; nothing if it is not there (yet).
number() {
    local pid= name=
    case "$1" in
    dockerd) pid=$(cat "$BASE/$N/pid") name=dockerd ;;
    containerd) pid=$(cat "$exec_root/containerd/containerd.pid") name=containerd ;;
    # Not the helpers that start it and clean up after it.
    shim) pid=$(pgrep -f -- "^[^ ]*containerd-shim-runc-v2 .*-id $(victim) -address ") name='containerd-shim.*' ;;
    sentry) pid=$(victim_process) ;;
    gofer)
        pid=$(find "$exec_root" -path "*/$(victim)/state.json" -not -path '*/rootfs/*' | xargs -r grep -ho '"gofer":{"pid":[0-9]*' | grep -o '[0-9]*$' | head -1)
        name=runsc-gofer
        ;;
    esac 2> /dev/null || true
    if alive "$pid" "$name" 2> /dev/null; then echo "$pid"; fi
}
victim() { cat "$BASE/$N/victim" 2> /dev/null || echo none; }
victim_process() { cat "$(find "$exec_root" -path "*/$(victim)/init.pid" | head -1)" 2> /dev/null || true; }
# Sentries, gofers, and calls of runsc, of whatever container of this run.
parts() {
    local comm
    for comm in /proc/[0-9]*/comm; do
        # They have wiped their environment, but sit in the run's cgroup; calls are known by the run's mark.
        if grep -qsE '^runsc(-sentry|-gofer)?$' "$comm" && { grep -qs "$PARENT/" "${comm%comm}cgroup" || grep -qsz "^RUNSC_E2E=$RUNSC_E2E\$" "${comm%comm}environ"; } && ! gone "$(basename "${comm%/comm}")"; then
            echo "$comm"
        fi
    done 2> /dev/null | wc -l
}
bystanders="bystander-1 bystander-2 bystander-3"
said() { d logs "$1" 2> /dev/null | wc -l; }
says_more() { [ "$(said "$1")" -gt "$2" ]; }
bystanders_live() {
    local name
    for name in $bystanders; do
        eq "$(d inspect -f '{{.State.Pid}} {{.State.Status}}' "$name")" "${pids[$name]} running"
        soon says_more "$name" "$(said "$name")"
    done
}
ensure_daemon() {
    local containerd
    if ! d version > /dev/null 2>&1; then
        soon gone "$(cat "$BASE/$N/pid" 2> /dev/null || echo 0)"
        # It takes its containerd along; a new one that still sees that, be it as a zombie, waits for it in vain.
        containerd=$(cat "$exec_root/containerd/containerd.pid" 2> /dev/null || true)
        [ -z "$containerd" ] || soon test ! -e "/proc/$containerd"
        rm -f "$BASE/$N/pid"
        docker_daemon "$N" $NAMES
    fi
}
chaos() { # SEED WHO…
    local seed=${E2E_SEED:-$1}
    RANDOM=$seed
    shift
    note "seed $seed"
    docker_daemon "$N" $NAMES
    trap 'status=$?; [ $status = 0 ] || note "the seed was '"$seed"'"; ensure_daemon || true; end_daemon "$N" || true; exit $status' EXIT
    D save bb | d load > /dev/null
    declare -gA pids
    local who delay id hit process gofer state runtime=$RT name before wanted="$*" killed=
    [ "$RT" = runc ] || runtime=$BASE/runsc
    for name in $bystanders; do
        d run -d --runtime="$RT" --network none --name "$name" bb sh -c 'while :; do echo x; sleep 0.2; done' > /dev/null
        pids[$name]=$(d inspect -f '{{.State.Pid}}' "$name")
    done
    soon says_more bystander-3 0
    before=$(parts)
    [ "$RT" = runc ] || [ "$before" -ge 6 ]
    for who in "$@"; do
        rm -f "$BASE/$N/victim"
        (d run -d --cidfile "$BASE/$N/victim" --runtime="$RT" --network none --name victim bb sh -c 'while :; do cat /etc/passwd > /dev/null; done' > /dev/null 2>&1 || true) &
        delay=$((RANDOM % 50))
        sleep "0.$(printf %02d "$delay")"
        # What is to be hit may not be there yet.
        hit=
        for _ in $(seq 400); do
            hit=$(number "$who")
            [ -z "$hit" ] || break
            sleep 0.05
        done
        [ -n "$hit" ] || { note "there was no $who to kill"; return 1; }
        gofer=$(number gofer)
        kill -9 "$hit"
        soon gone "$hit"
        killed="$killed $who"
        note "$who ($hit) after 0.$(printf %02d "$delay") s, then some"
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
            [ -z "$gofer" ] || soon gone "$gofer"
            # runc that was killed while it made them leaves them.
            [ "$RT" = runc ] || soon sh -c "! find /sys/fs/cgroup -maxdepth 3 -name '*$id*' | grep ."
        fi
        # Nothing but the bystanders is left: no process of a sandbox, and no container.
        soon is "$before" parts
        eq "$(d ps -aq | wc -l)" 3
        bystanders_live
    done
    eq "$killed" " $wanted"
    # containerd may be on its way back.
    soon d exec bystander-1 true
    d rm -f $bystanders > /dev/null
    for name in $bystanders; do soon gone "${pids[$name]}"; done
    soon is 0 parts
}

## chaos-of-the-engine [alone]
chaos 4711 containerd dockerd shim dockerd containerd
## chaos-of-the-sandbox [alone]
[ "$RT" = runc ] && last=sentry || last=gofer
chaos 1234 sentry "$last" shim "$last" sentry
