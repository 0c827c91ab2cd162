"""The host's TCP as a peer: a TUN device in a network namespace of its own, whose packets go over standard input, and servers behind
it. Frames: four bytes of length, one byte of kind (p: packet, c: command or answer), the rest."""
import fcntl, hashlib, os, random, socket, struct, subprocess, sys, threading, time

trouble, version = float(sys.argv[1]), int(sys.argv[2])
wire = socket.socket(fileno=0)
lock = threading.Lock()
chance = random.Random(1803)


def frame(kind, data):
    with lock:
        wire.sendall(struct.pack("!IB", len(data) + 1, kind) + data)


def take(n):
    data = b""
    while len(data) < n:
        more = wire.recv(n - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"t0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
for command in (
    "ip link set lo up",
    "ip addr add 10.9.0.1/24 dev t0",
    "ip -6 addr add fd09::1/64 dev t0 nodad",
    "ip link set t0 mtu 1500 up",
):
    subprocess.run(command.split(), check=True)
ME, YOU = (("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2"))[version == 6]
FAMILY = (socket.AF_INET, socket.AF_INET6)[version == 6]


class Way:
    """One direction: loses, doubles, and holds back until the next one has passed."""

    def __init__(self, out):
        self.out, self.held = out, None

    def pass_on(self, packet):
        if chance.random() < trouble:
            return
        if self.held is None and chance.random() < trouble:
            self.held = packet
            return
        self.out(packet)
        if chance.random() < trouble:
            self.out(packet)
        if self.held is not None:
            held, self.held = self.held, None
            self.out(held)


def inject(packet):
    try:
        os.write(tun, packet)
    except OSError:
        pass


def outward():
    way = Way(lambda packet: frame(ord("p"), packet))
    while True:
        way.pass_on(os.read(tun, 65536))


def text(n):
    return b"".join(hashlib.sha256(struct.pack("!I", i)).digest() for i in range((n + 31) // 32))[:n]


def all_of(s):
    data = bytearray()
    while True:
        more = s.recv(65536)
        if not more:
            return bytes(data)
        data += more


def echo(s):
    while True:
        data = s.recv(65536)
        if not data:
            return
        s.sendall(data)


def digest(s):
    s.sendall(hashlib.sha256(all_of(s)).hexdigest().encode())


def late_digest(s):
    # The window closes and is probed.
    time.sleep(1.5)
    digest(s)


def source(s):
    s.sendall(text(1500000))


def reset(s):
    s.recv(1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def after_the_end(s):
    n = len(all_of(s))
    s.sendall(text(n))


def urgent(s):
    s.sendall(b"ab")
    s.send(b"c", socket.MSG_OOB)
    time.sleep(0.2)
    s.sendall(b"d")


def options(s):
    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    s.sendall(b"%d %d" % (info[5], int.from_bytes(info[16:20], "little")))  # tcpi_options, tcpi_snd_mss


SERVERS = {7: echo, 9: digest, 10: late_digest, 19: source, 20: reset, 21: after_the_end, 22: urgent, 23: options}


def serve(port, what):
    listener = socket.socket(FAMILY)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if what == late_digest:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    listener.bind((ME, port))
    listener.listen(16)

    def one(s):
        try:
            what(s)
        except OSError:
            pass
        s.close()

    def loop():
        while True:
            s, _ = listener.accept()
            threading.Thread(target=one, args=(s,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def client():
    """A mebibyte to and fro to the other side's echo, read while it is written; then the end of both."""
    data = text(1 << 20)
    s = socket.socket(FAMILY)
    s.settimeout(60)
    s.connect((YOU, 7000))
    writer = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
    writer.start()
    back = all_of(s)
    writer.join()
    s.close()
    return b"the same" if back == data else b"%d bytes, others" % len(back)


def refused():
    try:
        socket.create_connection((YOU, 7001), 20)
        return b"open"
    except OSError as error:
        return type(error).__name__.encode()


def ask(what):
    try:
        frame(ord("c"), what())
    except Exception as error:
        frame(ord("c"), repr(error).encode())


for port, what in SERVERS.items():
    serve(port, what)
threading.Thread(target=outward, daemon=True).start()
frame(ord("c"), b"ready")
way = Way(inject)
while True:
    (length,) = struct.unpack("!I", take(4))
    data = take(length)
    if data[:1] == b"p":
        way.pass_on(data[1:])
    else:
        what = {b"client": client, b"refused": refused}[data[1:]]
        threading.Thread(target=ask, args=(what,), daemon=True).start()
