# A flood of SYNs from addresses that never answer leaves other connections alive, old and new.
inside_bg redis-server --protected-mode no --save '' --bind 0.0.0.0
served 6379
FLOOD='
import os, random, socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("out0", 0))
src = bytes.fromhex(open("/sys/class/net/out0/address").read().strip().replace(":", "")) if os.path.exists("/sys/class/net/out0/address") else s.getsockname()[4]
dst = bytes.fromhex(sys.argv[1].replace(":", ""))
def ck(b):
    t = sum(struct.unpack("!%dH" % (len(b) // 2), b)); t = (t >> 16) + (t & 0xffff); t += t >> 16; return ~t & 0xffff
to = socket.inet_aton("10.77.0.2"); end = time.time() + 4; n = 0
while time.time() < end:
    a = socket.inet_aton("10.77.%d.%d" % (random.randrange(1, 255), random.randrange(1, 255)))
    t = struct.pack("!HHIIBBHHH", random.randrange(1024, 65535), 6379, random.getrandbits(32), 0, 0x50, 2, 1024, 0, 0)
    t = t[:16] + struct.pack("!H", ck(a + to + struct.pack("!BBH", 0, 6, 20) + t)) + t[18:]
    i = struct.pack("!BBHHHBBH", 0x45, 0, 40, n & 0xffff, 0, 64, 6, 0) + a + to
    i = i[:10] + struct.pack("!H", ck(i)) + i[12:]
    s.send(dst + src + b"\x08\0" + i + t); n += 1
print(n)
'
mac=$(ip -n "$IN" -o link show eth0 | grep -o 'link/ether [^ ]*' | cut -d' ' -f2)
outside python3 -c "$FLOOD" "$mac" > "$WORK/flood" &
flood=$!
sleep 1
for try in 1 2 3 4 5; do eq "$(outside timeout 5 redis-cli -h $GUEST ping)" PONG; done
outside timeout 20 redis-benchmark -h $GUEST -c 5 -n 2000 -t get -q | tail -n 4 | tr '\r' '\n' | grep 'per second'
wait $flood
[ "$(cat "$WORK/flood")" -gt 5000 ] || fail "too few: $(cat "$WORK/flood")"
