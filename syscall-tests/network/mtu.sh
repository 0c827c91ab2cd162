# Small and large frames; the change is noticed while the container runs.
serve_data 64
want=$(make_data 64 | sha256sum)
for mtu in 1280 9000 1500; do
    ip -n "$OUT" link set out0 mtu $mtu
    ip -n "$IN" link set eth0 mtu $mtu
    until_ok inside sh -c "[ \$(cat /sys/class/net/eth0/mtu) = $mtu ]"
    eq "$(inside sh -c "curl -sS http://$HERE:8000/ | sha256sum")" "$want"
    eq "$(inside sh -c "curl -sS 'http://[$HERE6]:8000/' | sha256sum")" "$want"
done
