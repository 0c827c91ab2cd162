# Neighbours that somebody has set in the host's namespace, as CNI plug-ins do for gateways, are the guest's; later changes
# too. The guest sees whom its own stack has found, and sets some by itself.
served_at() { outside ping -c 1 -W 1 "$1" > /dev/null; }
mac=$(ip -n "$OUT" -o link show out0 | grep -o 'link/ether [^ ]*' | cut -d' ' -f2)
inside ping -c 1 -W 5 $HERE > /dev/null
inside ip neigh show | tee "$WORK/out"
grep -Eq "^$HERE dev eth0 lladdr $mac (REACHABLE|DELAY|STALE)" "$WORK/out" || fail 'the neighbour is not shown'
inside cat /proc/net/arp | tee "$WORK/arp"
grep -Eq "^$HERE +0x1 +0x2 +$mac +\* +eth0\$" "$WORK/arp" || fail 'not in /proc/net/arp'
inside ping -6 -c 1 -W 5 $HERE6 > /dev/null
inside ip -6 neigh get $HERE6 dev eth0 | grep "lladdr $mac" > /dev/null || fail 'no neighbour of IPv6'
inside ping -c 1 -W 1 10.77.0.99 > /dev/null && fail 'nobody answers'
until_ok inside sh -c "ip neigh show | grep -q '^10.77.0.99 dev eth0 *\(INCOMPLETE\|FAILED\)'"

# A gateway that answers no ARP: only the entry tells where it is. It was set while the container runs; one by which it
# starts is below.
gateway() {
    ip -n "$IN" "$1" neigh replace "$2" lladdr "$mac" dev eth0 nud permanent
    until_ok inside sh -c "ip neigh show nud permanent | grep -q '^$2 dev eth0 lladdr $mac PERMANENT'"
}
gateway -4 169.254.1.1
gateway -6 fe80::1234
inside grep -Eq "^169.254.1.1 +0x1 +0x6 +$mac" /proc/net/arp || fail 'no permanent entry in /proc/net/arp'
ip -n "$OUT" addr add 10.88.0.1/32 dev lo
ip -n "$IN" route add 169.254.1.1/32 dev eth0
until_ok inside sh -c 'ip route | grep -q ^169.254.1.1'
ip -n "$IN" route add 10.88.0.0/24 via 169.254.1.1
until_ok inside ping -c 1 -W 1 10.88.0.1
# Somewhere else, then gone.
ip -n "$IN" neigh replace 169.254.1.1 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
until_ok inside sh -c "ip neigh show | grep -q '^169.254.1.1 dev eth0 lladdr 02:00:00:00:00:77 PERMANENT'"
inside ping -c 1 -W 1 10.88.0.1 > /dev/null && fail 'it went to the old address'
ip -n "$IN" neigh del 169.254.1.1 dev eth0
until_ok inside sh -c '! ip neigh show nud permanent | grep -q ^169.254.1.1'
# What the host's own stack finds, or is told for a while, is not taken.
ip -n "$IN" neigh replace 10.77.0.50 lladdr 02:00:00:00:00:50 dev eth0 nud reachable
ip -n "$IN" neigh replace 10.77.0.51 lladdr 02:00:00:00:00:51 dev eth0 nud permanent
until_ok inside sh -c 'ip neigh show | grep -q ^10.77.0.51'
inside sh -c '! ip neigh show | grep -q ^10.77.0.50' || fail 'a passing neighbour was taken over'

# The guest's own.
inside ip neigh add 10.77.0.60 lladdr 02:00:00:00:00:60 dev eth0
inside ip neigh add 10.77.0.60 lladdr 02:00:00:00:00:61 dev eth0 2> /dev/null && fail 'added twice'
inside ip neigh replace 10.77.0.60 lladdr 02:00:00:00:00:62 dev eth0 nud stale
inside sh -c "ip neigh show | grep -q '^10.77.0.60 dev eth0 lladdr 02:00:00:00:00:62 STALE'"
inside ip neigh flush dev eth0
inside sh -c '! ip neigh show | grep -q ^10.77.0.60' || fail 'not flushed'
inside sh -c "ip neigh show | grep -q '^10.77.0.51 .* PERMANENT'" || fail 'a permanent one was flushed'
inside ip neigh del 10.77.0.51 dev eth0
inside sh -c '! ip neigh show | grep -q ^10.77.0.51' || fail 'not deleted'
inside ping -c 1 -W 5 $HERE > /dev/null

# A container that starts with one.
runsc delete --force "$ID"
ip -n "$IN" neigh replace 169.254.1.1 lladdr "$mac" dev eth0 nud permanent
runsc run --detach --bundle "$WORK" "$ID" < /dev/null > "$WORK/container.log" 2>&1
inside ping -c 1 -W 1 10.88.0.1 > /dev/null
inside sh -c "ip neigh show | grep -q '^169.254.1.1 dev eth0 lladdr $mac PERMANENT'"
