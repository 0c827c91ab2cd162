# The guest asks a name server outside by dig, over UDP and TCP, IPv4 and IPv6, with answers of all sizes; a server that is
# not there, and one that comes back.
SERVER='
import socket, struct, sys, threading
def answer(q, limit):
    end = q.index(b"\0", 12) + 5
    name = q[13:13 + q[12]]
    # "many" has 200 addresses, for which a datagram of the usual size is too short.
    count = 200 if name == b"many" else 1
    rest = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([10, 9, n, 7]) for n in range(count))
    if name == b"none":
        return q[:2] + b"\x81\x83" + q[4:6] + b"\0\0\0\0\0\0" + q[12:end]
    whole = q[:2] + b"\x81\x80" + q[4:6] + struct.pack("!H", count) + b"\0\0\0\0" + q[12:end] + rest
    if len(whole) <= limit: return whole
    return q[:2] + b"\x83\x80" + q[4:6] + b"\0\0\0\0\0\0" + q[12:end]
def size(q):
    # What EDNS says there is room for.
    at = q.find(b"\0\0\x29", 12)
    return struct.unpack("!H", q[at + 3:at + 5])[0] if at > 0 else 512
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::", 53))
t = socket.socket(socket.AF_INET6); t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind(("::", 53)); t.listen(50)
def tcp():
    while True:
        c, _ = t.accept()
        n, = struct.unpack("!H", c.recv(2)); q = c.recv(n, socket.MSG_WAITALL)
        a = answer(q, 65535); c.sendall(struct.pack("!H", len(a)) + a); c.close()
threading.Thread(target=tcp, daemon=True).start()
while True:
    q, who = u.recvfrom(65536); u.sendto(answer(q, size(q)), who)
'
outside python3 -c "$SERVER" > "$WORK/server.log" 2>&1 &
until_ok inside dig +short +time=1 +tries=1 @$HERE some.name
for server in $HERE $HERE6; do
    eq "$(inside dig +short @$server some.name)" 10.9.0.7
    eq "$(inside dig +short +tcp @$server some.name)" 10.9.0.7
    # 3,235 bytes: cut off, asked again over TCP; then in fragments of one datagram.
    eq "$(inside dig +short +noedns @$server many.name | wc -l)" 200
    eq "$(inside dig +short +bufsize=4096 +ignore @$server many.name | wc -l)" 200
    inside dig @$server none.name | grep 'status: NXDOMAIN' > /dev/null || fail 'no NXDOMAIN'
done
# A hundred at once, from as many ports.
inside sh -c "for n in \$(seq 100); do echo name\$n.name; done > /tmp/names; xargs -P 20 -n 5 dig +short @$HERE < /tmp/names" > "$WORK/many"
eq "$(grep -c '^10.9.0.7$' "$WORK/many")" 100
# By resolv.conf, as programs ask.
inside sh -c "echo nameserver $HERE > /etc/resolv.conf"
eq "$(inside getent ahostsv4 other.name | head -1 | cut -d' ' -f1)" 10.9.0.7
# Nobody at the port: told at once by ICMP.
ip -n "$OUT" addr add 10.77.0.3/24 dev out0
begun=$SECONDS
inside sh -c "dig +time=20 +tries=1 -p 54 @10.77.0.3 some.name" > "$WORK/refused" && fail 'an answer from nobody'
[ $((SECONDS - begun)) -lt 10 ] || fail 'a refusal is not noticed'
grep -q 'refused' "$WORK/refused" || fail 'no refusal'
