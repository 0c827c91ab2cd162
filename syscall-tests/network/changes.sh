# What the guest sees of its interfaces; one that comes later and goes again, as `docker network connect` brings it; what
# the guest changes by itself.
serve_data 1
# The guest reaches an address outside.
reaches() { inside timeout 5 bash -c "exec 3<>/dev/tcp/$1/8000"; }
inside ip -o addr show dev eth0 | tee "$WORK/out"
grep -q "inet $GUEST/24" "$WORK/out" || fail 'no IPv4 address'
grep -q "inet6 $GUEST6/64" "$WORK/out" || fail 'no IPv6 address'
grep -q "^default via $HERE dev eth0" <<< "$(inside ip route)" || fail 'no default route'
grep -q "^default via $HERE6 dev eth0" <<< "$(inside ip -6 route)" || fail 'no default route of IPv6'
grep -q "^fd77::/64 dev eth0 proto kernel metric 256" <<< "$(inside ip -6 route)" || fail 'no connected route of IPv6'
eq "$(inside cat /sys/class/net/eth0/address)" "$(ip -n "$IN" -o link show eth0 | grep -o 'link/ether [^ ]*' | cut -d' ' -f2)"
inside grep -q eth0 /proc/net/dev
inside grep -q eth0 /proc/net/route

ip -n "$OUT" link add out1 type veth peer name tmp1 netns "$IN"
ip -n "$OUT" addr add 10.78.0.1/24 dev out1
ip -n "$OUT" link set out1 up
ip -n "$IN" link set tmp1 name eth1
ip -n "$IN" addr add 10.78.0.2/24 dev eth1
ip -n "$IN" link set eth1 up
ip -n "$IN" route add 10.99.0.0/16 via 10.78.0.1
until_ok inside sh -c 'ip route | grep -q "^10.99.0.0/16 via 10.78.0.1 dev eth1"'
until_ok reaches 10.78.0.1
until_ok outside ping -c 1 -W 1 10.78.0.2
ip -n "$OUT" link del out1
until_ok inside sh -c '! ip link show dev eth1'
reaches $HERE

inside ip addr add 10.77.0.9/24 dev eth0
until_ok outside ping -c 1 -W 1 10.77.0.9
inside ip addr del 10.77.0.9/24 dev eth0
! outside ping -c 1 -W 1 10.77.0.9 || fail 'the address is still there'
ip -n "$OUT" addr add 10.88.0.1/32 dev lo
inside ip route add 10.88.0.1/32 via $HERE
reaches 10.88.0.1
inside ip route del 10.88.0.1/32
inside ip link set eth0 mtu 1400
eq "$(inside cat /sys/class/net/eth0/mtu)" 1400
