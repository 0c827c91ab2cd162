"""A small client of the Container Runtime Interface (runtime.v1), and what the cases do with it.

Messages are encoded by field number, so that no generated code is needed. BASE, RT and N come from the
environment, as for the shell's cases.
"""
import json
import os
import random
import socket
import struct
import sys
import time
import urllib.parse

import grpc

BASE, RT, N = os.environ["BASE"], os.environ["RT"], os.environ["N"]
PATIENCE = int(os.environ["PATIENCE"])
# A path, as kubelet gives it for a slice of systemd too.
PARENT = "/" + os.environ["PARENT"].strip("/")
POD, CONTAINER, NODE = 0, 1, 2


def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def encode(fields):
    """{number: value}; a value is an int, a bool, text, bytes, a message (dict) or a list of those."""
    out = bytearray()
    for number, value in fields.items():
        for v in value if isinstance(value, list) else [value]:
            if isinstance(v, int):
                out += varint(number << 3) + varint(int(v))
                continue
            data = encode(v) if isinstance(v, dict) else v.encode() if isinstance(v, str) else v
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return bytes(out)


def decode(data):
    """{number: [values]}; messages stay bytes."""
    fields, at = {}, 0

    def number():
        nonlocal at
        shift = value = 0
        while True:
            b = data[at]
            at += 1
            value |= (b & 127) << shift
            shift += 7
            if b < 128:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            value = number()
        elif kind == 2:
            size = number()
            value = data[at:at + size]
            at += size
        elif kind == 1:
            value = struct.unpack_from("<Q", data, at)[0]
            at += 8
        else:
            value = struct.unpack_from("<I", data, at)[0]
            at += 4
        fields.setdefault(key >> 3, []).append(value)
    return fields


def get(data, *path, default=0):
    for number in path:
        found = decode(data).get(number)
        if not found:
            return default
        data = found[0]
    return data


channel = grpc.insecure_channel(f"unix://{BASE}/containerd/sock")


def call(method, fields):
    return channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")(encode(fields), timeout=90 * PATIENCE)


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def soon(what, seconds=20):
    end = time.time() + seconds * PATIENCE
    while time.time() < end:
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("never")


def processes_of_host():
    return [p for p in os.listdir("/proc") if p.isdigit()]


def remove_container(id):
    """Asks again, as kubelet does: after the end of a shim containerd 1.6 may not have noted yet that the container is over."""
    def done():
        try:
            call("RemoveContainer", {1: id})
            return True
        except grpc.RpcError as e:
            if "is still running" not in e.details():
                raise
            return False

    soon(done)


class Pod:
    def __init__(self, name="pod", pid=CONTAINER, network=NODE, linux=None):
        self.options = {1: network, 2: pid, 3: POD}
        self.logs = f"{BASE}/logs/{N}-{name}"
        os.makedirs(self.logs, exist_ok=True)
        self.config = {
            1: {1: f"{N}-{name}", 2: f"uid-{N}-{name}", 3: "e2e", 4: 1},
            3: self.logs,
            8: {1: PARENT, 2: {1: self.options, **(linux or {})}},
        }
        if network == POD:
            self.config[2] = "podname"
        handler = "runsc" if RT == "runsc" else "runc"
        self.id = get(call("RunPodSandbox", {1: self.config, 2: handler}), 1).decode()
        self.containers = []
        self.made = 0

    def state(self):
        return get(call("PodSandboxStatus", {1: self.id}), 1, 3)

    def container(self, name, *command, mounts=(), resources=None, start=True, tty=False, stdin=False, security=None):
        config = {
            1: {1: name, 2: self.made},
            2: {1: "docker.io/library/bb:latest"},
            3: list(command),
            7: [{1: inside, 2: outside, 3: readonly} for inside, outside, readonly in mounts],
            11: f"{name}.log",
            12: stdin,
            14: tty,
            15: {1: resources or {}, 2: {3: self.options, **(security or {})}},
        }
        self.made += 1
        id = get(call("CreateContainer", {1: self.id, 2: config, 3: self.config}), 1).decode()
        self.containers.append(id)
        if start:
            call("StartContainer", {1: id})
        return id

    def log(self, name):
        with open(f"{self.logs}/{name}.log") as f:
            return "".join(line.split(" ", 3)[3] for line in f)

    def remove(self):
        call("StopPodSandbox", {1: self.id})
        for id in self.containers:
            remove_container(id)
        call("RemovePodSandbox", {1: self.id})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            self.remove()
        except grpc.RpcError as e:
            if error[0] is None:
                raise
            print("while removing:", e.details(), file=sys.stderr)


def status(id):
    return get(call("ContainerStatus", {1: id}), 1)


def running(id):
    return get(status(id), 3) == 1


def exited(id):
    return get(status(id), 3) == 2


def exit_code(id):
    soon(lambda: exited(id))
    return get(status(id), 7)


def reason(id):
    return get(status(id), 10, default=b"").decode()


class Stream:
    """A stream of exec, attach or port-forward: a WebSocket whose messages begin with the number of a channel."""

    def __init__(self, url):
        place = urllib.parse.urlparse(url)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=30 * PATIENCE)
        self.socket.sendall(
            f"GET {place.path}?{place.query} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nOrigin: http://localhost\r\n\r\n".encode())
        self.left = b""
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(4096)
            assert more, head
            head += more
        head, self.left = head.split(b"\r\n\r\n", 1)
        assert b" 101 " in head.split(b"\r\n")[0], head
        self.text = {}

    def bytes(self, n):
        while len(self.left) < n:
            more = self.socket.recv(65536)
            if not more:
                raise EOFError
            self.left += more
        out, self.left = self.left[:n], self.left[n:]
        return out

    def receive(self):
        """One message goes to the text of its channel; False at the end."""
        try:
            first, second = self.bytes(2)
            size = second & 127
            if size == 126:
                size = struct.unpack(">H", self.bytes(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.bytes(8))[0]
            data = self.bytes(size)
        except (EOFError, ConnectionResetError):
            return False
        if first & 15 == 8:
            return False
        if first & 15 in (0, 1, 2) and data:
            self.text[data[0]] = self.text.get(data[0], b"") + data[1:]
        return True

    def until(self, channel, part):
        while part not in self.text.get(channel, b""):
            assert self.receive(), self.text
        return self.text[channel]

    def send(self, channel, data):
        data = bytes([channel]) + data
        size = bytes([128 | len(data)]) if len(data) < 126 else bytes([128 | 126]) + struct.pack(">H", len(data))
        self.socket.sendall(b"\x82" + size + b"\0\0\0\0" + data)

    def end(self):
        while self.receive():
            pass
        self.socket.close()
        return self.text


OUT, ERR, RESULT, SIZE = 1, 2, 3, 4


def open_exec(id, *command, tty=False, stdin=True):
    fields = {1: id, 2: list(command), 3: tty, 4: stdin, 5: True, 6: not tty}
    return Stream(get(call("Exec", fields), 1).decode())


def execute(id, *command, timeout=30 * PATIENCE):
    answer = call("ExecSync", {1: id, 2: list(command), 3: timeout})
    return get(answer, 1, default=b"").decode(), get(answer, 2, default=b"").decode(), get(answer, 3)


# --- What the cases do.

def pod_of_one():
    with Pod() as pod:
        same(pod.state(), 0)
        c = pod.container("a", "sleep", "1000")
        soon(lambda: running(c))
        call("StopContainer", {1: c, 2: 0})
        same(exit_code(c), 137)
        same(pod.state(), 0)


def pod_of_three():
    shared = f"{BASE}/{N}.shared"
    os.mkdir(shared)
    with Pod(network=POD) as pod:
        mounts = [("/shared", shared, False)]
        writer = pod.container("writer", "sh", "-c", "echo word > /shared/f; sleep 1000", mounts=mounts)
        reader = pod.container("reader", "sh", "-c", "until cat /shared/f 2> /dev/null; do sleep 0.1; done", mounts=mounts)
        third = pod.container("third", "sh", "-c", "echo mine > /own; hostname; sleep 1000")
        same(exit_code(reader), 0)
        same(pod.log("reader"), "word\n")
        same(execute(third, "cat", "/own")[0], "mine\n")
        # Each has a root of its own.
        same(execute(writer, "test", "-e", "/own")[2], 1)
        soon(lambda: pod.log("third") == "podname\n")
        assert running(writer) and running(third)
        same(execute(third, "sh", "-c", "echo in > /dev/shm/x")[2], 0)
        same(execute(writer, "cat", "/dev/shm/x")[0], "in\n")
    os.remove(f"{shared}/f")
    os.rmdir(shared)


def exit_codes_and_logs():
    with Pod() as pod:
        for code in (0, 7, 255):
            c = pod.container(f"c{code}", "sh", "-c", f"echo out {code}; echo err >&2; exit {code}")
            same(exit_code(c), code)
            same(sorted(pod.log(f"c{code}").split("\n")), ["", "err", f"out {code}"])
        c = pod.container("killed", "sh", "-c", "kill -9 $$; sleep 1; sh -c 'kill -9 1'; exit 3")
        same(exit_code(c), 3)


def exec_sync():
    with Pod() as pod:
        a = pod.container("a", "sleep", "1000")
        b = pod.container("b", "sleep", "1000")
        same(execute(a, "sh", "-c", "echo out; echo err >&2; exit 9"), ("out\n", "err\n", 9))
        execute(a, "touch", "/only-in-a")
        same(execute(b, "test", "-e", "/only-in-a")[2], 1)
        # A readiness probe.
        same(execute(b, "test", "-e", "/ready")[2], 1)
        execute(b, "touch", "/ready")
        same(execute(b, "test", "-e", "/ready")[2], 0)
        try:
            execute(a, "sleep", "100", timeout=1)
            raise AssertionError("no timeout")
        except grpc.RpcError:
            pass


def shared_pid():
    with Pod(pid=POD) as pod:
        a = pod.container("a", "sh", "-c", "exec sleep 98765")
        b = pod.container("b", "sleep", "1000")
        assert "98765" in execute(b, "ps")[0]
        same(execute(b, "sh", "-c", "kill -9 $(pidof -s sleep 98765 | head -1) 2>/dev/null; true")[2], 0)
        call("StopContainer", {1: a, 2: 0})
        same(exit_code(a), 137)


def own_pid():
    with Pod() as pod:
        pod.container("a", "sh", "-c", "exec sleep 98765")
        b = pod.container("b", "sh", "-c", "echo $$; exec sleep 1000")
        assert "98765" not in execute(b, "ps")[0]
        soon(lambda: pod.log("b") == "1\n")


def stats():
    with Pod() as pod:
        c = pod.container("a", "sh", "-c", "while :; do :; done")
        first = get(call("ContainerStats", {1: c}), 1)
        same(get(first, 1, 1).decode(), c)
        same(get(first, 1, 2, 1).decode(), "a")

        def used():
            return get(call("PodSandboxStats", {1: pod.id}), 1, 2, 1, 2, 1)

        # The pod as a whole is measured by the host.
        before = used()
        soon(lambda: used() > before + 50_000_000)


def stop_with_timeout():
    with Pod() as pod:
        c = pod.container("polite", "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")
        time.sleep(0.7)
        call("StopContainer", {1: c, 2: 20})
        same(exit_code(c), 5)
        c = pod.container("rude", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
        call("StopContainer", {1: c, 2: 1})
        same(exit_code(c), 137)


def crash_loop():
    with Pod() as pod:
        for i in range(4):
            c = pod.container("crash", "sh", "-c", f"exit {i + 1}")
            same(exit_code(c), i + 1)
            call("RemoveContainer", {1: c})
            pod.containers.remove(c)
        c = pod.container("well", "true")
        same(exit_code(c), 0)


def oom_kill():
    with Pod() as pod:
        # Two hundred megabytes and no more: where the limit does not hold, no harm is done.
        eater = "head -c 200000000 /dev/zero | tail > /dev/null; exit $?"
        c = pod.container("eater", "sh", "-c", f"exec sh -c '{eater}'", resources={4: 20 << 20})
        other = pod.container("other", "sleep", "1000", resources={4: 20 << 20})
        soon(lambda: exited(c), 60)
        same(exit_code(c), 137)
        soon(lambda: reason(c) == "OOMKilled")
        # The limit of one is none of the other's.
        big = "head -c 30000000 /dev/zero | tail > /dev/null"
        roomy = pod.container("roomy", "sh", "-c", big, resources={4: 200 << 20})
        same(exit_code(roomy), 0)
        assert running(other)


def update_resources():
    with Pod() as pod:
        eater = "until test -e /go; do sleep 0.1; done; head -c 50000000 /dev/zero | tail > /dev/null; echo $?"
        c = pod.container("a", "sh", "-c", eater, resources={4: 100 << 20})
        call("UpdateContainerResources", {1: c, 2: {4: 20 << 20}})
        execute(c, "touch", "/go")
        soon(lambda: pod.log("a"), 60)
        assert "137\n" in pod.log("a"), pod.log("a")
        same(exit_code(c), 0)


def exec_with_terminal():
    with Pod() as pod:
        c = pod.container("a", "sleep", "1000")
        # The terminal's name is in the container's own /dev/pts, whichever was mounted last.
        pod.container("b", "sleep", "1000")
        shell = open_exec(c, "sh", tty=True)
        shell.send(SIZE, b'{"Width": 91, "Height": 33}')
        shell.send(0, b"tty; until [ \"$(stty size)\" = '33 91' ]; do sleep 0.1; done; stty size; exit 4\n")
        text = shell.end()
        assert b"/dev/pts/" in text[OUT] and b"33 91\r\n" in text[OUT], text
        assert b'"ExitCode","message":"4"' in text[RESULT].replace(b" ", b""), text
        plain = open_exec(c, "sh", "-c", "cat; echo err >&2", stdin=False)
        same(plain.end()[ERR], b"err\n")


def consoles():
    with Pod() as pod:
        write = "sleep 1; echo from $0 > /dev/console; sleep 1000"
        for name in "ab":
            pod.container(name, "sh", "-c", write, name, tty=True)
        soon(lambda: pod.log("a") == "from a\n" and pod.log("b") == "from b\n")
        none = open_exec(pod.container("c", "sleep", "1000"), "sh", "-c", "rm -f /tmp/c; mknod /tmp/c c 5 1 && echo lost > /tmp/c", stdin=False)
        none.end()
        time.sleep(0.5)
        same(pod.log("a") + pod.log("b"), "from a\nfrom b\n")


def attach():
    with Pod() as pod:
        c = pod.container("a", "sh", "-c", "while read line; do echo got $line; done", stdin=True)
        stream = Stream(get(call("Attach", {1: c, 2: True, 3: False, 4: True, 5: True}), 1).decode())
        stream.send(0, b"word\n")
        stream.until(OUT, b"got word\n")
        stream.socket.close()
        soon(lambda: pod.log("a") == "got word\n")
        assert running(c)


WEB = "echo page > /index.html; exec httpd -f -p 8080"


def network():
    with Pod("server", network=POD) as server, Pod("client", network=POD) as client:
        server.container("web", "sh", "-c", WEB)
        ip = get(call("PodSandboxStatus", {1: server.id}), 1, 5, 1).decode()
        beside = server.container("beside", "sleep", "1000")
        other = client.container("other", "sleep", "1000")

        def page(c, host):
            return execute(c, "timeout", "5", "wget", "-q", "-O", "-", f"http://{host}:8080/")[0]

        # The containers of a pod have one network; pods and the node reach each other.
        soon(lambda: page(beside, "127.0.0.1") == "page\n")
        same(page(other, ip), "page\n")
        with socket.create_connection((ip, 8080), timeout=5) as node:
            node.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"page\n" in node.makefile("rb").read()
        same(execute(other, "timeout", "5", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")[2], 1)


def port_forward():
    with Pod(network=POD) as pod:
        c = pod.container("web", "sh", "-c", WEB)
        soon(lambda: execute(c, "wget", "-q", "-O", "-", "http://127.0.0.1:8080/")[0] == "page\n")
        url = get(call("PortForward", {1: pod.id, 2: 8080}), 1).decode()
        stream = Stream(url + ("&" if "?" in url else "?") + "port=8080")
        # Each channel begins with the port's number: 0 has the data, 1 errors.
        stream.send(0, b"GET / HTTP/1.0\r\n\r\n")
        assert b"page\n" in stream.until(0, b"page\n")
        stream.socket.close()


def privileges():
    with Pod(linux={6: True}) as pod:
        plain = pod.container("plain", "sleep", "1000")
        mask = execute(plain, "grep", "CapEff", "/proc/self/status")[0].split()[1]
        same(int(mask, 16), 0xa80425fb)
        privileged = pod.container("privileged", "sleep", "1000", security={2: True})
        mask = execute(privileged, "grep", "CapEff", "/proc/self/status")[0].split()[1]
        assert int(mask, 16) & 1 << 21, mask
        readonly = pod.container("readonly", "sleep", "1000", security={7: True})
        same(execute(readonly, "touch", "/f")[2], 1)
        user = pod.container("user", "sleep", "1000", security={5: {1: 1000}, 8: [4000]})
        same(execute(user, "id", "-u")[0], "1000\n")
        assert "4000" in execute(user, "id", "-G")[0]


def residue():
    def left():
        places = [f"{BASE}/containerd/runsc-state/k8s.io", f"{BASE}/containerd/state/io.containerd.runtime.v2.task/k8s.io"]
        places += [f"/sys/fs/cgroup/{c}{PARENT}" for c in ("memory", "cpu", "pids", "freezer", "")]
        return {f"{p}/{e}" for p in places if os.path.isdir(p) for e in os.listdir(p) if os.path.isdir(f"{p}/{e}")}

    before = left()
    with Pod(network=POD) as pod:
        for name in ("a", "b", "c"):
            c = pod.container(name, "sleep", "1000")
            execute(c, "true")
        assert left() != before
    soon(lambda: left() == before)


def info(method, id):
    """The verbose part of a status: JSON by name."""
    for entry in decode(call(method, {1: id, 2: True})).get(2, []):
        if get(entry, 1) == b"info":
            return json.loads(get(entry, 2))
    return {}


def chaos():
    """Something of a pod is killed, each kind twice and in an order that a seed chooses: the other pod goes on, and
    nothing is left."""
    seed = int(os.environ.get("E2E_SEED", "4711"))
    print("seed", seed, flush=True)
    targets = ["container", "sandbox", "shim"] * 2
    random.Random(seed).shuffle(targets)
    with Pod("keep") as keep:
        kept = keep.container("a", "sleep", "1000")
        for turn, target in enumerate(targets):
            with Pod(f"p{turn}") as pod:
                a = pod.container("a", "sleep", "1000")
                b = pod.container("b", "sleep", "1000")
                process = info("ContainerStatus", a)["pid"]
                sandbox = info("PodSandboxStatus", pod.id)["pid"]
                with open(f"/proc/{sandbox}/status") as f:
                    shim = int(next(line for line in f if line.startswith("PPid:")).split()[1])
                print("kill", target, flush=True)
                os.kill({"container": process, "sandbox": sandbox, "shim": shim}[target], 9)
                soon(lambda: exited(a) or pod.state() == 1)
                if target == "container":
                    same(execute(b, "echo", "inside")[0], "inside\n")
                same(execute(kept, "echo", "inside")[0], "inside\n")
            soon(lambda: not os.path.exists(f"/proc/{sandbox}"))
            for id in [pod.id, *pod.containers]:
                soon(lambda: not os.path.exists(f"{BASE}/containerd/runsc-state/k8s.io/{id}"))
        assert running(kept)


def missing_program():
    with Pod() as pod:
        c = pod.container("none", "/no/such", start=False)
        try:
            call("StartContainer", {1: c})
            raise AssertionError("started")
        except grpc.RpcError as e:
            assert "no such file or directory" in e.details(), e.details()
        same(exit_code(pod.container("after", "true")), 0)


def pod_stopped():
    with Pod() as pod:
        c = pod.container("a", "sleep", "1000")
        call("StopPodSandbox", {1: pod.id})
        assert exited(c)
        soon(lambda: pod.state() == 1)


def many_pods():
    began = time.time()
    for i in range(int(os.environ.get("E2E_PODS", "50"))):
        with Pod(f"p{i}") as pod:
            same(exit_code(pod.container("a", "true")), 0)
    print(f"{i + 1} pods in {time.time() - began:.1f} s")


try:
    globals()[sys.argv[1]]()
except grpc.RpcError as e:
    sys.exit(f"{e.code()}: {e.details()}")
