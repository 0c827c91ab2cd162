# Podman as root; with its own storage, cgroups by files, networks that netavark makes. Most cases want none.
P() {
    local runtime=runc
    [ "$RT" = runc ] || runtime=$BASE/runsc
    podman --root "$BASE/podman/root" --runroot "$BASE/podman/run" --tmpdir "$BASE/podman/tmp" --cgroup-manager "$CGROUPS" --events-backend file \
        --storage-driver overlay --network-config-dir "$BASE/podman/networks" --runtime "$runtime" "$@"
}
prun() { P run --network none --cgroup-parent "$PARENT" --label "case=$N" "$@"; }
export CONTAINERS_CONF=$BASE/.config/containers/containers.conf
end_podman() {
    set +e
    local left
    left=$(P ps -aq --filter "label=case=$N")
    [ -z "$left" ] || P rm -f -t 0 $left
}
trap 'status=$?; end_podman > /dev/null 2>&1; exit $status' EXIT
# rootless SCRIPT: run by a user without rights who has ids to give away. Only the mount namespace of this case knows that
# user. In the script, R is podman.
rootless() {
    # Where its runtime directory has a long name, Podman waits 20 seconds for each container's end.
    local place=$BASE/u$$ file
    mkdir -p "$place/home" "$place/r"
    cp /etc/passwd /etc/group "$place"
    echo "e2e:x:5500:5500::$place/home:/bin/sh" >> "$place/passwd"
    echo 'e2e:x:5500:' >> "$place/group"
    echo e2e:600000:65536 | tee "$place/subuid" > "$place/subgid"
    chown 5500:5500 "$place/home" "$place/r"
    chmod 700 "$place/r"
    unshare --mount --propagation private bash -eu -o pipefail -c '
        for file in passwd group subuid subgid; do
            mount --bind "$0/$file" "/etc/$file"
        done
        # As everybody may open it where systemd makes it.
        mknod -m 666 "$0/tun" c 10 200
        mount --bind "$0/tun" /dev/net/tun
        # A short name: that of the socket of slirp4netns begins with it.
        mount --bind "$0/r" /mnt
        exec setpriv --reuid 5500 --regid 5500 --init-groups env -i PATH="$PATH" HOME="$0/home" \
            XDG_RUNTIME_DIR=/mnt RUNSC_E2E="$RUNSC_E2E" BASE="$BASE" PATIENCE="$PATIENCE" RT="$RT" N="$N" bash -eu -o pipefail -c "$1"
    ' "$place" "$(declare -f note eq has code soon is)
        R() {
            podman --cgroup-manager cgroupfs --events-backend file --storage-driver vfs \
                --runtime \"\$([ \"\$RT\" = runc ] && echo runc || echo \"\$BASE/runsc\")\" \"\$@\"
        }
        cd
        trap 'status=\$?; R rm -fat 0 > /dev/null 2>&1; R system migrate > /dev/null 2>&1; exit \$status' EXIT
        mkdir -p .config/containers
        printf '[containers]\ndefault_ulimits = [\"nofile=1024:1024\"]\n' > .config/containers/containers.conf
        tar -C \"\$BASE/busybox\" -c . | R import -q -c 'CMD [\"sh\"]' -c 'ENV PATH=/bin' - bb > /dev/null
        $1"
    rm -rf "$place"
}

# At an address of the host a program of it listens, and says what it is asked for.
ask_back() { # PORT
    busybox nc -ll -p "$1" -e sh -c 'read word; echo "outside $word"' 2> /dev/null &
    listener=$!
    trap 'status=$?; kill "$listener" 2> /dev/null; end_podman > /dev/null 2>&1; exit $status' EXIT
}
serve_page='mkdir -p /www; echo served > /www/page; exec httpd -f -h /www -p'

## network-bridge
# Podman's own network, with a published port.
P run -d --name "$N" --cgroup-parent "$PARENT" --label "case=$N" -p 18180:80 bb sh -c "$serve_page 80" > /dev/null
address=$(P inspect -f '{{.NetworkSettings.IPAddress}}' "$N")
gateway=$(P inspect -f '{{.NetworkSettings.Gateway}}' "$N")
has "$(P exec "$N" ip -o -4 address show dev eth0)" "$address"
soon curl -sf "http://$address/page"
eq "$(curl -sf "http://$address/page")" served
eq "$(curl -sf "http://$gateway:18180/page")" served
eq "$(curl -sf "http://127.0.0.1:18180/page")" served
# And out.
ask_back 18181
eq "$(echo word | P exec -i "$N" nc -w 5 "$gateway" 18181)" 'outside word'
P exec "$N" ping -c 1 -W 5 "$gateway" > /dev/null
# Afterwards the port is free, and its rules are gone.
P rm -f -t 0 "$N" > /dev/null
code 7 curl -s "http://127.0.0.1:18180/page"
hasnot "$(iptables-save)" 18180
## network-of-two
# Two on a network of their own find each other by name.
P network create "$N" > /dev/null
trap 'status=$?; end_podman > /dev/null 2>&1; P network rm -f "$N" > /dev/null 2>&1; exit $status' EXIT
P run -d --name "$N-web" --network "$N" --cgroup-parent "$PARENT" --label "case=$N" bb sh -c "$serve_page 80" > /dev/null
P run -d --name "$N" --network "$N" --cgroup-parent "$PARENT" --label "case=$N" bb sleep 100 > /dev/null
soon P exec "$N" wget -q -O - "http://$N-web/page"
eq "$(P exec "$N" wget -q -O - "http://$N-web/page")" served
## network-host
P run -d --name "$N" --network host --cgroup-parent "$PARENT" --label "case=$N" bb sh -c "$serve_page 18182" > /dev/null
soon curl -sf "http://127.0.0.1:18182/page"
eq "$(curl -sf "http://127.0.0.1:18182/page")" served
ask_back 18183
eq "$(echo word | P exec -i "$N" nc -w 5 127.0.0.1 18183)" 'outside word'
## rootless-network
# Podman's default: slirp4netns makes the only interface. Here it publishes ports as well; and by one more setting a
# program of the host is at 10.0.2.2.
ask_back 18184
rootless '
    echo "[engine]
network_cmd_options = [\"port_handler=slirp4netns\", \"allow_host_loopback=true\"]" >> .config/containers/containers.conf
    R run -d --name a -p 18185:80 bb sh -c "mkdir -p /www; echo served > /www/page; exec httpd -f -h /www -p 80" > /dev/null
    has "$(R exec a ip -o -4 address show dev tap0)" 10.0.2.100
    soon curl -sf http://127.0.0.1:18185/page
    eq "$(curl -sf http://127.0.0.1:18185/page)" served
    eq "$(echo word | R exec -i a nc -w 5 10.0.2.2 18184)" "outside word"
'
## rootless-ports
# Podman publishes ports by a process of its own inside of the namespace. The server comes and goes: so does its port.
rootless '
    R run -d --name a -p 18188:80 -p 18189:90 bb sh -c "mkdir -p /www; echo served > /www/page
        httpd -p 90 -h /www; while :; do timeout 3 httpd -f -h /www -p 80; sleep 1; done" > /dev/null
    for turn in 1 2; do
        soon curl -sf http://127.0.0.1:18188/page
        eq "$(curl -sf http://127.0.0.1:18189/page)" served
        soon sh -c "! curl -sf http://127.0.0.1:18188/page"
    done
'
## rootless-network-host
ask_back 18186
rootless '
    R run -d --name a --network host bb sh -c "mkdir -p /www; echo served > /www/page; exec httpd -f -h /www -p 18187" > /dev/null
    soon curl -sf http://127.0.0.1:18187/page
    eq "$(curl -sf http://127.0.0.1:18187/page)" served
    eq "$(echo word | R exec -i a nc -w 5 127.0.0.1 18186)" "outside word"
'
## exit-codes
code 0 prun --rm bb true
code 7 prun --rm bb sh -c 'exit 7'
code 127 prun --rm bb /no/such
## streams
eq "$(prun --rm bb sh -c 'echo out; echo err >&2' 2> /dev/null)" out
eq "$(echo in | prun --rm -i bb cat)" in
## detached-exec-logs
prun -d --name "$N" bb sh -c 'echo begun; sleep 100' > /dev/null
eq "$(P exec "$N" echo inside)" inside
code 5 P exec "$N" sh -c 'exit 5'
soon sh -c 'true'
eq "$(P logs "$N")" begun
P stop -t 0 "$N" > /dev/null
eq "$(P inspect -f '{{.State.ExitCode}}' "$N")" 137
## pause
prun -d --name "$N" bb sleep 100 > /dev/null
P pause "$N" > /dev/null
eq "$(P inspect -f '{{.State.Status}}' "$N")" paused
P unpause "$N" > /dev/null
code 0 P exec "$N" true
## cp-from-running
prun -d --name "$N" bb sh -c 'echo made > /made; sleep 100' > /dev/null
soon P exec "$N" test -s /made
P cp "$N:/made" "$BASE/$N.out"
eq "$(cat "$BASE/$N.out")" made
# And back, where the container sees it, and what it has mounted.
P cp "$BASE/$N.out" "$N:/tmp/again"
eq "$(P exec "$N" cat /tmp/again)" made
P cp "$N:/etc/hostname" "$BASE/$N.out"
eq "$(cat "$BASE/$N.out")" "$(P exec "$N" cat /etc/hostname)"
code 125 P cp "$N:/no/such" "$BASE/$N.out"
rm "$BASE/$N.out"
## cp-from-pod-member
P pod create --name "$N" --network none --cgroup-parent "$PARENT" --share ipc,net,uts --infra-image bb --infra-command 'sleep 1000' > /dev/null
trap 'status=$?; P pod rm -f -t 0 "$N" > /dev/null || true; exit $status' EXIT
P run -d --pod "$N" --name "$N-a" bb sh -c 'echo made > /made; sleep 100' > /dev/null
soon P exec "$N-a" test -s /made
P cp "$N-a:/made" "$BASE/$N.out"
eq "$(cat "$BASE/$N.out")" made
rm "$BASE/$N.out"
## cp-diff-commit
prun --name "$N" bb sh -c 'echo made > /made'
P cp "$N:/made" "$BASE/$N.out"
eq "$(cat "$BASE/$N.out")" made
rm "$BASE/$N.out"
has "$(P diff "$N")" 'A /made'
P commit -q "$N" "$N:new" > /dev/null
eq "$(prun --rm "$N:new" cat /made)" made
P rmi -f "$N:new" > /dev/null
## top
prun -d --name "$N" bb sleep 100 > /dev/null
# What ps shows in the container; Podman's own list is that of the host's processes.
has "$(P top "$N" -o pid,args)" 'sleep 100'
## stats
prun -d --name "$N" --memory 100m bb sh -c 'while :; do :; done' > /dev/null
sleep 1
read -r name pids used _ limit cpu < <(P stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}} {{.CPUPerc}}' "$N")
eq "$name" "$N"
[ "$pids" -ge 1 ]
[ "${cpu%%.*}" -ge 1 ]
eq "$limit" 104.9MB
case $used in 0B | 0.*) note "memory $used"; exit 1 ;; esac
## kill
prun -d --name "$N" bb sh -c 'trap "exit 9" USR1; echo ready; while :; do sleep 0.1; done' > /dev/null
soon sh -c "podman --root $BASE/podman/root --runroot $BASE/podman/run logs $N | grep ready"
P kill -s USR1 "$N" > /dev/null
eq "$(P wait "$N")" 9
## healthcheck
prun -d --name "$N" --health-cmd 'test -e /healthy' --health-interval disable --health-retries 1 bb sleep 100 > /dev/null
code 1 P healthcheck run "$N"
P exec "$N" touch /healthy
code 0 P healthcheck run "$N"
## terminal
out=$(script -qec "stty cols 91 rows 33; podman --root $BASE/podman/root --runroot $BASE/podman/run --tmpdir $BASE/podman/tmp --cgroup-manager $CGROUPS --events-backend file --storage-driver overlay --runtime $([ "$RT" = runc ] && echo runc || echo "$BASE/runsc") run --rm -it --network none --cgroup-parent $PARENT --label case=$N bb sh -c 'tty; until [ \"\$(stty size)\" = \"33 91\" ]; do sleep 0.1; done; stty size'" /dev/null < /dev/null)
has "$out" '/dev/'
has "$out" '33 91'
## attach
prun -d -i --name "$N" bb sh -c 'while read line; do echo "got $line"; done' > /dev/null
has "$({ echo word; sleep 2; } | P attach "$N" || true)" 'got word'
## restart
prun -d --name "$N" bb sh -c 'echo up; sleep 100' > /dev/null
P restart -t 0 "$N" > /dev/null
soon sh -c "[ \"\$(podman --root $BASE/podman/root --runroot $BASE/podman/run logs $N | grep -c up)\" = 2 ]"
## rootless
rootless '
    eq "$(R run --rm --network none bb sh -c "id -u; echo x > /f; stat -c %u /f; cat /f" | tr "\n" " ")" "0 0 x "
    code 5 R run --rm --network none bb sh -c "exit 5"
    code 127 R run --rm --network none bb /no/such
    R run -d --name a --network none bb sh -c "echo begun; sleep 100" > /dev/null
    eq "$(R exec a echo inside)" inside
    eq "$(R logs a)" begun
    R cp a:/etc/passwd out
    has "$(cat out)" root
    R stop -t 0 a > /dev/null
    eq "$(R inspect -f "{{.State.ExitCode}}" a)" 137
    mkdir v
    R run --rm --network none -v "$PWD/v:/v" bb sh -c "echo y > /v/f"
    eq "$(cat v/f)" y
    eq "$(R run --rm --network none --user 7 bb id -u)" 7
'
## user-and-umask
eq "$(prun --rm --user 1000 --umask 077 bb sh -c 'id -u; umask' | tr '\n' ' ')" '1000 0077 '
## volume
mkdir "$BASE/$N.v"
prun --rm -v "$BASE/$N.v:/v" bb sh -c 'echo x > /v/f'
eq "$(cat "$BASE/$N.v/f")" x
rm -r "$BASE/$N.v"
## limits
prun -d --name "$N" --memory 100m --pids-limit 20 bb sleep 100 > /dev/null
group=$(group "libpod-$(P inspect -f '{{.Id}}' "$N")")
eq "$(limit "$group" memory.limit_in_bytes memory.max)" 104857600
has "$(P exec "$N" sh -c 'for i in $(seq 40); do sleep 5 & done' 2>&1 || true)" "can't fork"
# Those that are left of it take the place of what exec starts; runc itself needs some.
# runc needs some of its own.
soon P exec "$N" true
P update --memory 200m "$N" > /dev/null
eq "$(limit "$group" memory.limit_in_bytes memory.max)" 209715200
soon P exec "$N" true
## pod
P pod create --name "$N" --network none --cgroup-parent "$PARENT" --share ipc,net,uts --infra-image bb --infra-command 'sleep 1000' > /dev/null
trap 'status=$?; P pod rm -f -t 0 "$N" > /dev/null || true; exit $status' EXIT
P run -d --pod "$N" --name "$N-a" bb sh -c 'echo word > /dev/shm/f; sleep 100' > /dev/null
soon P exec "$N-a" test -s /dev/shm/f
eq "$(P run --rm --pod "$N" bb cat /dev/shm/f)" word
code 4 P run --rm --pod "$N" bb sh -c 'exit 4'
P stop -t 0 "$N-a" > /dev/null
eq "$(P inspect -f '{{.State.ExitCode}}' "$N-a")" 137
## user-namespace
out=$(prun --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 bb sh -c 'id -u; touch /f; stat -c %u /f /bin /dev/shm; awk "{ print \$1, \$2, \$3 }" /proc/self/uid_map; chown 7 /f; stat -c %u /f' | tr '\n' ' ')
eq "$out" '0 0 0 0 0 100000 65536 7 '
