# 2,000 connections at once; then 100 that are idle cost no processor time.
inside_bg python3 -c '
import asyncio
async def echo(r, w):
    while (d := await r.read(65536)): w.write(d); await w.drain()
    w.close()
async def main():
    s = await asyncio.start_server(echo, "0.0.0.0", 7000, backlog=4096); await s.serve_forever()
asyncio.run(main())'
served 7000
CLIENT='
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
n, hold = int(sys.argv[2]), float(sys.argv[3])
l = [socket.create_connection((sys.argv[1], 7000), 20) for _ in range(n)]
for i, s in enumerate(l): s.sendall(b"%d" % i)
for i, s in enumerate(l):
    assert s.recv(64) == b"%d" % i
print("all", flush=True); time.sleep(hold)
'
outside python3 -c "$CLIENT" $GUEST 2000 0
outside python3 -c "$CLIENT" $GUEST 100 9 > "$WORK/idle" &
until_ok grep -q all "$WORK/idle"
pid=$(runsc state "$ID" | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
ticks() { awk '{ sub(/.*\) /, ""); split($0, f, " "); print f[12] + f[13] }' /proc/$pid/stat; }
sleep 2
before=$(ticks)
sleep 5
eq "$(($(ticks) - before))" 0
