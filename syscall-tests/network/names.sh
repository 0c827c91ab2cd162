# Docker's name server listens on the loopback interface of the host's namespace: asked over UDP and TCP.
SERVER='
import socket, struct, threading
def answer(q):
    end = q.index(b"\0", 12) + 5
    return q[:2] + b"\x81\x80" + q[4:6] + b"\0\1\0\0\0\0" + q[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([10, 9, 8, 7])
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.11", 53))
t = socket.socket(); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind(("127.0.0.11", 53)); t.listen(5)
def tcp():
    while True:
        c, _ = t.accept()
        n, = struct.unpack("!H", c.recv(2)); q = c.recv(n, socket.MSG_WAITALL)
        a = answer(q); c.sendall(struct.pack("!H", len(a)) + a); c.close()
threading.Thread(target=tcp, daemon=True).start()
while True:
    q, who = u.recvfrom(65536); u.sendto(answer(q), who)
'
host_in "$IN" python3 -c "$SERVER" > "$WORK/server.log" 2>&1 &
until_ok inside dig +short +time=1 +tries=1 @127.0.0.11 some.name
for try in 1 2 3; do eq "$(inside dig +short @127.0.0.11 some.name)" 10.9.8.7; done
for try in 1 2 3 4 5 6 7 8; do eq "$(inside dig +short +tcp @127.0.0.11 some.name)" 10.9.8.7; done
inside sh -c 'echo nameserver 127.0.0.11 > /etc/resolv.conf'
eq "$(inside getent ahostsv4 other.name | head -1 | cut -d' ' -f1)" 10.9.8.7

# It asks servers outside from within the namespace, by the host's stack, which hears nothing else from there.
outside_bg python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('$HERE', 53))
while True:
    q, who = s.recvfrom(512); s.sendto(q, who)"
ask() {
    host_in "$IN" python3 -c "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); s.connect(('$HERE', 53)); s.send(b'question')
assert s.recv(512) == b'question'"
}
until_ok ask
! host_in "$IN" timeout 2 bash -c "exec 3<>/dev/tcp/$HERE/22" 2> /dev/null || fail 'the host answers'
