# ctr and the shim of containerd, without Docker.
C() { ctr -a "$BASE/containerd/sock" -n e2e "$@"; }
# A container of this case. containerd has runc's shim for both runtimes.
crun() {
    local options=()
    [ "$RT" = runc ] || options=(--runc-binary "$BASE/runsc" --runc-root "$BASE/containerd/runsc-state")
    C run --runtime io.containerd.runc.v2 "${options[@]}" $(cgroup_option) "$@"
}
cgroup_option() { if [ "$CGROUPS" = systemd ]; then echo "--runc-systemd-cgroup --cgroup $PARENT:ctr:$N"; else echo "--cgroup $PARENT/$N"; fi; }
image=docker.io/library/bb:latest
remove() {
    C tasks rm -f "$1"
    C containers rm "$1"
    C snapshots rm "$1"
    ! C containers ls -q | grep -qx "$1" && ! C snapshots ls | grep -q "^$1 "
}
end_containerd() {
    set +e
    remove "$N"
    remove "$N-keep"
}
pid_of_task() { C tasks ls | awk -v n="$1" '$1 == n { print $2 }'; }
parent_of() { awk '/^PPid:/ { print $2 }' "/proc/$1/status"; }
# Processes in the cgroup of a container, by name.
in_cgroup() { # CONTAINER COMM
    local pid group
    group=$(group "$1" ctr-)
    for pid in $(cat "/sys/fs/cgroup/pids$group/cgroup.procs" "/sys/fs/cgroup$group/cgroup.procs" 2> /dev/null); do
        [ "$(cat "/proc/$pid/comm")" != "$2" ] || echo "$pid"
    done
}
trap 'status=$?; end_containerd > /dev/null 2>&1; exit $status' EXIT

## exit-codes
code 0 crun --rm $image "$N" true
code 7 crun --rm $image "$N" sh -c 'exit 7'
## missing-program
crun --rm $image "$N" /no/such 2> "$BASE/$N.err" && exit 1
has "$(cat "$BASE/$N.err")" 'no such file or directory'
rm "$BASE/$N.err"
## streams
eq "$(crun --rm $image "$N" sh -c 'echo out; echo err >&2' 2> /dev/null)" out
## stdin
# Not at once: ctr misses the end of its input while the task is being made.
eq "$({ echo hello; sleep $((2 * PATIENCE)); } | crun --rm $image "$N" cat)" hello
## detached
crun -d $image "$N" sleep 100
has "$(C tasks ls)" RUNNING
pid=$(C tasks ls | awk -v n="$N" '$1 == n { print $2 }')
test -d "/proc/$pid"
has "$(C tasks ps "$N")" "$pid"
## exec
crun -d $image "$N" sleep 100
eq "$(C tasks exec --exec-id a "$N" echo inside)" inside
code 6 C tasks exec --exec-id b "$N" sh -c 'exit 6'
## kill-and-delete
crun -d $image "$N" sleep 100
C tasks kill -s 9 "$N"
soon sh -c "ctr -a $BASE/containerd/sock -n e2e tasks ls | grep '$N.*STOPPED'"
has "$(C tasks rm "$N" 2>&1 || true)" 137
## pause
crun -d $image "$N" sleep 100
C tasks pause "$N"
has "$(C tasks ls)" PAUSED
C tasks resume "$N"
has "$(C tasks ls)" RUNNING
## metrics
crun -d $image "$N" sh -c 'while :; do :; done'
sleep 1
has "$(C tasks metrics "$N")" memory
## read-only
code 1 crun --rm --read-only $image "$N" touch /f
## environment-and-directory
eq "$(crun --rm --env A=b --cwd /tmp $image "$N" sh -c 'echo $A; pwd; id -u' | tr '\n' ' ')" 'b /tmp 0 '
## bind-mount
mkdir "$BASE/$N.v"
crun --rm --mount "type=bind,src=$BASE/$N.v,dst=/v,options=rbind:rw" $image "$N" sh -c 'echo x > /v/f'
eq "$(cat "$BASE/$N.v/f")" x
rm -r "$BASE/$N.v"
## shim-killed
crun -d $image "$N" sleep 1000
pid=$(C tasks ls | awk -v n="$N" '$1 == n { print $2 }')
shim=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
kill -9 "$shim"
soon gone "$pid"
## chaos [alone]
count=0
# Something of one container is killed, each part once and in an order that a seed (E2E_SEED) chooses: the other goes on,
# and of the first nothing is left.
N=$N-keep crun -d $image "$N-keep" sleep 1000
kept=$(pid_of_task "$N-keep")
seed=${E2E_SEED:-4711}
targets=(init shim daemon)
[ "$RT" = runc ] || targets+=(gofer)
for target in $(RANDOM=$seed; for t in "${targets[@]}"; do echo "$RANDOM $t"; done | sort -n | cut -d' ' -f2) init; do
    round=$target$((++count))
    note "seed $seed, round $round"
    crun -d $image "$N" sleep 1000
    pid=$(pid_of_task "$N")
    case $target in
    init) kill -9 "$pid" ;;
    shim) kill -9 "$(parent_of "$pid")" ;;
    gofer) kill -9 "$(in_cgroup "$N" runsc-gofer)" ;;
    daemon)
        kill -9 "$(cat "$BASE/containerd/pid")"
        soon gone "$(cat "$BASE/containerd/pid")"
        test -d "/proc/$pid"
        containerd_daemon
        eq "$(C tasks exec --exec-id "x$round" "$N" echo inside)" inside
        kill -9 "$pid"
        ;;
    esac
    soon gone "$pid"
    soon remove "$N"
    eq "$(C tasks exec --exec-id "r$round" "$N-keep" echo inside)" inside
    soon test ! -e "$BASE/containerd/runsc-state/e2e/$N"
    soon is '' find /sys/fs/cgroup -type d -path "*$(group "$N" ctr-)"
    eq "$(pid_of_task "$N-keep")" "$kept"
done
## kill-all
crun -d $image "$N" sh -c 'trap "" TERM; sleep 1000 & sleep 1000'
pid=$(pid_of_task "$N")
C tasks kill -a -s KILL "$N"
soon gone "$pid"
soon sh -c "ctr -a $BASE/containerd/sock -n e2e tasks ls | grep '$N.*STOPPED'"
## checkpoint-is-refused [runsc]
# With a word that says so; the container goes on.
crun -d $image "$N" sleep 1000
C tasks checkpoint "$N" 2> "$BASE/$N.err" && exit 1
rm "$BASE/$N.err"
has "$(C tasks ls)" RUNNING
code 0 C tasks exec --exec-id a "$N" true
## terminal
out=$(script -qec "stty cols 91 rows 33; ctr -a $BASE/containerd/sock -n e2e run -t --rm --runtime io.containerd.runc.v2 \
    $([ "$RT" = runc ] || echo --runc-binary "$BASE/runsc" --runc-root "$BASE/containerd/runsc-state") $(cgroup_option) \
    $image $N sh -c 'tty; until [ \"\$(stty size)\" = \"33 91\" ]; do sleep 0.1; done; stty size'" /dev/null < /dev/null)
has "$out" '33 91'
## daemon-killed [alone]
crun -d $image "$N" sleep 1000
pid=$(C tasks ls | awk -v n="$N" '$1 == n { print $2 }')
kill -9 "$(cat "$BASE/containerd/pid")"
soon gone "$(cat "$BASE/containerd/pid")"
test -d "/proc/$pid"
containerd_daemon
has "$(C tasks ls)" RUNNING
eq "$(C tasks exec --exec-id a "$N" echo inside)" inside
## install [runsc]
cp "$BASE/containerd/config.toml" "$BASE/$N.toml"
"$BASE/runsc" install containerd --runtime another --config "$BASE/$N.toml" --path /opt/runsc
has "$(containerd --config "$BASE/$N.toml" config dump)" 'BinaryName = "/opt/runsc"'
"$BASE/runsc" uninstall containerd --runtime another --config "$BASE/$N.toml"
cmp "$BASE/containerd/config.toml" "$BASE/$N.toml"
rm "$BASE/$N.toml"
## completion-and-man [runsc]
"$BASE/runsc" completion bash | bash -n
"$BASE/runsc" completion zsh | grep -q '#compdef runsc'
"$BASE/runsc" completion fish | grep -q 'complete -c runsc'
"$BASE/runsc" man "$BASE/$N.man"
grep -q 'SH NAME' "$BASE/$N.man/runsc.1" "$BASE/$N.man/runsc-create.1"
rm -r "$BASE/$N.man"
