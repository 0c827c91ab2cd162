# Sourced before each case. Two network namespaces with a cable between them: outside (OUT, interface out0, 10.77.0.1 and
# fd77::1) and the container's (IN, interface eth0, 10.77.0.2 and fd77::2). Commands run in the same Debian root file system
# on both sides. From the environment: RUNSC, ROOT, WORK, ID, PLATFORM.
set -eu -o pipefail
OUT=$ID-out IN=$ID-in
HERE=10.77.0.1 GUEST=10.77.0.2 HERE6=fd77::1 GUEST6=fd77::2

# On the host's kernel, in one of the namespaces.
host_in() {
    local ns=$1
    shift
    nsenter --net=/run/netns/"$ns" unshare --mount --propagation private \
        sh -c 'mount -t proc proc "$0/proc"; mount -t tmpfs none "$0/tmp"; exec chroot "$0" "$@"' "$ROOT" "$@"
}
outside() { host_in "$OUT" "$@"; }
# In the background; ended with the case.
outside_bg() { outside "$@" > "$WORK/outside.$RANDOM.log" 2>&1 & }
runsc() { "$RUNSC" --root "$WORK/state" --platform="$PLATFORM" "$@"; }
inside() { runsc exec "$ID" "$@" < /dev/null; }
inside_bg() { inside "$@" > "$WORK/inside.$RANDOM.log" 2>&1 & }
fail() { echo "FAILED: $*" >&2; exit 1; }
eq() { [ "$1" = "$2" ] || fail "'$1' is not '$2'"; }
# Until a command succeeds, ten seconds at most.
until_ok() {
    local end=$((SECONDS + 10))
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "in vain: $*"
        sleep 0.1
    done
}
# Something listens at a port of the guest.
served() { until_ok outside bash -c "exec 3<>/dev/tcp/$GUEST/$1"; }
here_serves() { until_ok outside bash -c "exec 3<>/dev/tcp/$HERE/$1"; }
# A file of that many MiB, the same each time.
make_data() { head -c "$1"M < <(openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2> /dev/null); }
# Serves a command's output over HTTP/1.0 outside, to whoever comes.
serve_data() { outside_bg python3 -c "
import subprocess, socketserver
class H(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline() not in (b'\r\n', b''): pass
        self.wfile.write(b'HTTP/1.0 200 OK\r\n\r\n'); self.wfile.flush()
        p = subprocess.Popen(['sh', '-c', 'openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c ${1}M'], stdout=self.connection.fileno()); p.wait()
socketserver.ThreadingTCPServer.allow_reuse_address = True
class S(socketserver.ThreadingTCPServer): address_family = __import__('socket').AF_INET6
S(('::', 8000), H).serve_forever()"; here_serves 8000; }

ip netns add "$OUT"
ip netns add "$IN"
ip -n "$OUT" link set lo up
ip -n "$IN" link set lo up
ip -n "$OUT" link add out0 type veth peer name eth0 netns "$IN"
ip -n "$OUT" addr add $HERE/24 dev out0
ip -n "$OUT" addr add $HERE6/64 dev out0 nodad
ip -n "$OUT" link set out0 up
ip -n "$IN" addr add $GUEST/24 dev eth0
ip -n "$IN" addr add $GUEST6/64 dev eth0 nodad
ip -n "$IN" link set eth0 up
ip -n "$IN" route add default via $HERE
ip -n "$IN" -6 route add default via $HERE6
runsc run --detach --bundle "$WORK" "$ID" < /dev/null > "$WORK/container.log" 2>&1
