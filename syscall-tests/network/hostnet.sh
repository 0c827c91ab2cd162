# --network=host in the container's namespace: the guest uses the sockets of the host's stack there. Servers and clients both
# ways, TCP and UDP, IPv4 and IPv6.
runsc delete --force "$ID"
# As Docker has it.
sed -i 's/"namespaces"/"sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}, &/' "$WORK/config.json"
runsc --network=host run --detach --bundle "$WORK" "$ID" < /dev/null > "$WORK/container.log" 2>&1
# The host's own stack has the namespace back.
until_ok outside ping -c 1 -W 1 $GUEST
inside ip -o addr show dev eth0 | grep "inet $GUEST/24" > /dev/null || fail 'no address'

eq "$(inside cat /proc/sys/net/ipv4/ip_unprivileged_port_start)" 0
inside ping -c 1 -W 2 $HERE > /dev/null || fail 'no ping'
inside ping -c 1 -W 2 $HERE6 > /dev/null || fail 'no ping over IPv6'
inside_bg sh -c 'cd /etc && exec python3 -m http.server 80'
served 80
# The tables are the namespace's own, and the guest's sockets have its numbers.
inside ss -tlnp | grep ':80 .*python3' > /dev/null || fail 'ss does not find the server'
inside awk '$1 == "eth0:" && $2 > 0 { found = 1 } END { exit !found }' /proc/net/dev || fail 'nothing counted'
inside grep 'Idx Device' /proc/net/mcfilter > /dev/null || fail 'no mcfilter'
inside grep eth0 /proc/net/dev_mcast > /dev/null || fail 'no addresses of groups at the interface'
eq "$(outside curl -sf http://$GUEST/hostname)" "$(inside cat /etc/hostname)"

serve_data 64
want=$(make_data 64 | sha256sum)
eq "$(inside sh -c "curl -sS http://$HERE:8000/ | sha256sum")" "$want"
eq "$(inside sh -c "curl -gsS 'http://[$HERE6]:8000/' | sha256sum")" "$want"
inside_bg sh -c 'cd /etc && exec python3 -m http.server --bind :: 8080'
served 8080
eq "$(outside curl -sf http://$GUEST:8080/hostname)" "$(inside cat /etc/hostname)"
outside curl -gsf "http://[$GUEST6]:8080/passwd" | grep ^root > /dev/null || fail 'no page over IPv6'

inside_bg iperf3 -s
served 5201
# Its server does not listen for a moment after each test.
for options in "" "-R" "-u -b 50M" "-P 4"; do
    # shellcheck disable=SC2086
    until_ok outside iperf3 -c $GUEST -t 1 $options
done
outside_bg iperf3 -s -p 5202
here_serves 5202
for options in "" "-R" "-u -b 50M"; do
    # shellcheck disable=SC2086
    until_ok inside iperf3 -c $HERE -p 5202 -t 1 $options
done

inside_bg redis-server --port 6379 --protected-mode no --save ''
served 6379
outside redis-benchmark -h $GUEST -q -n 5000 -c 20 -t get,set -P 4 > "$WORK/redis"
grep -q 'GET: ' "$WORK/redis" || fail 'no benchmark of redis'

# Datagrams one by one, each way.
ECHO='
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", 7777))
while True: s.sendto(*s.recvfrom(65536))'
ASK='
import socket, sys
for to in sys.argv[1:]:
    s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect((to, 7777))
    for size in (0, 1, 1400, 9000, 60000): s.send(b"x" * size); assert s.recv(65536) == b"x" * size'
inside_bg python3 -c "$ECHO"
outside_bg python3 -c "$ECHO"
asks() { "$1" python3 -c "$ASK" "$2" "$3"; }
until_ok asks outside $GUEST $GUEST6
until_ok asks inside $HERE $HERE6
# A socket of IPv6 that speaks IPv4.
until_ok asks inside ::ffff:$HERE ::ffff:127.0.0.1
inside python3 -c "
import socket
s = socket.socket(socket.AF_INET6); s.connect(('::ffff:$HERE', 8000)); s.send(b'GET / HTTP/1.0\r\n\r\n')
assert s.recv(4) == b'HTTP' and s.getsockname()[0] == '::ffff:$GUEST'"
