# 5 % loss, 20 ms of delay and reordering both ways: by netem where the kernel has it, else by a relay of our own between
# two cables.
if tc -n "$OUT" qdisc add dev out0 root netem delay 20ms 5ms loss 5% reorder 5% 2> /dev/null &&
    tc -n "$IN" qdisc add dev eth0 root netem delay 20ms 5ms loss 5% reorder 5%; then
    echo by netem
else
    echo 'by a relay: the kernel has no netem'
    MID=$ID-mid
    ip netns add "$MID"
    ip -n "$OUT" link set out0 netns "$MID"
    ip -n "$OUT" link add far0 type veth peer name out1 netns "$MID"
    ip -n "$OUT" addr add $HERE/24 dev far0
    ip -n "$OUT" addr add $HERE6/64 dev far0 nodad
    ip -n "$OUT" link set far0 up
    ip -n "$MID" link set out0 up
    ip -n "$MID" link set out1 up
    for one in "$OUT far0" "$MID out0" "$MID out1" "$IN eth0"; do
        host_in ${one% *} ethtool -K ${one#* } tso off gso off gro off tx off rx off > /dev/null 2>&1 || true
    done
    RELAY='
import heapq, random, select, socket, time
s = []
for name in ("out0", "out1"):
    x = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); x.bind((name, 3)); x.setsockopt(263, 23, 1)
    x.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20); s.append(x)
random.seed(1); wait = []; n = 0
while True:
    t = max(0, wait[0][0] - time.monotonic()) if wait else None
    for x in select.select(s, [], [], t)[0]:
        f = x.recv(65536); n += 1
        if random.random() < 0.05: continue
        late = 0.02 + (0.005 if random.random() < 0.05 else 0)
        heapq.heappush(wait, (time.monotonic() + late, n, 1 - s.index(x), f))
    while wait and wait[0][0] <= time.monotonic():
        _, _, to, f = heapq.heappop(wait)
        try: s[to].send(f)
        except OSError: pass
'
    host_in "$MID" python3 -c "$RELAY" > "$WORK/relay.log" 2>&1 &
    sleep 0.5
fi
serve_data 8
want=$(make_data 8 | sha256sum)
eq "$(inside sh -c "curl -sS http://$HERE:8000/ | sha256sum")" "$want"
outside_bg python3 -c "
import hashlib, socket
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', 8002)); s.listen(1)
c, _ = s.accept(); h = hashlib.sha256()
while d := c.recv(65536): h.update(d)
c.sendall(h.hexdigest().encode())"
sleep 0.5
want=$(make_data 4 | sha256sum | cut -d' ' -f1)
eq "$(inside python3 -c "
import socket, subprocess
s = socket.create_connection(('$HERE', 8002), 60)
s.sendall(subprocess.run('openssl enc -aes-128-ctr -nosalt -K 00 -iv 00 -in /dev/zero 2>/dev/null | head -c 4M', shell=True, stdout=subprocess.PIPE).stdout)
s.shutdown(1); print(s.recv(64).decode())")" "$want"
