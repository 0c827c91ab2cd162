# A namespace of the container's own, with nothing but lo when it starts: an interface that somebody moves in later works,
# and six at once. With --network=none it never does.
runsc delete --force "$ID"
sed -i 's/{"type": *"network", *"path": *"[^"]*"}/{"type":"network"}/; s/{"path": *"[^"]*", *"type": *"network"}/{"type":"network"}/' "$WORK/config.json"
grep -q '"type": *"network"' "$WORK/config.json"
! grep -q /run/netns "$WORK/config.json" || fail 'it joins a namespace'
runsc run --detach --bundle "$WORK" "$ID" < /dev/null > "$WORK/container.log" 2>&1
pid=$(runsc state "$ID" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
inside_ip() { nsenter --net=/proc/"$pid"/ns/net ip "$@"; }
eq "$(inside ip -o link show | wc -l)" 1
move_in() { # NAME NET
    ip -n "$OUT" link add "o$1" type veth peer name "$1" netns "$pid"
    ip -n "$OUT" addr add "10.$2.0.1/24" dev "o$1"
    ip -n "$OUT" link set "o$1" up
    inside_ip addr add "10.$2.0.2/24" dev "$1"
    inside_ip link set "$1" up
}
move_in net0 90
until_ok inside ping -c 1 -W 1 10.90.0.1
outside ping -c 1 -W 1 10.90.0.2 > /dev/null
inside_ip route add default via 10.90.0.1
until_ok inside sh -c 'ip route | grep -q "^default via 10.90.0.1"'
inside_bg python3 -c "
import http.server, socketserver
socketserver.TCPServer(('', 8080), http.server.SimpleHTTPRequestHandler).serve_forever()"
until_ok outside curl -sf http://10.90.0.2:8080/
# The sockets of those that go are there for those that come.
for n in 1 2 3; do move_in "net$n" "9$n"; done
for n in 1 2 3; do until_ok inside ping -c 1 -W 1 "10.9$n.0.1"; done
for n in 1 2 3; do ip -n "$OUT" link del "onet$n"; done
until_ok inside sh -c '! ip link show dev net1'
for n in 4 5 6; do move_in "net$n" "9$n"; done
for n in 4 5 6; do until_ok inside ping -c 1 -W 1 "10.9$n.0.1"; done
outside curl -sf http://10.90.0.2:8080/ > /dev/null

runsc delete --force "$ID"
runsc --network=none run --detach --bundle "$WORK" "$ID" < /dev/null > "$WORK/container.log" 2>&1
pid=$(runsc state "$ID" | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p')
move_in net7 97
sleep 1
eq "$(inside ip -o link show | wc -l)" 1
