# The cable is pulled in the middle of a transfer, and comes back.
serve_data 256
want=$(make_data 256 | sha256sum)
inside sh -c "curl -sS --limit-rate 64M http://$HERE:8000/ | sha256sum" > "$WORK/sum" &
transfer=$!
sleep 1
ip -n "$OUT" link set out0 down
until_ok inside sh -c '[ $(cat /sys/class/net/eth0/operstate) = down ]'
sleep 2
ip -n "$OUT" link set out0 up
ip -n "$OUT" addr add $HERE6/64 dev out0 nodad 2> /dev/null || true
until_ok inside sh -c '[ $(cat /sys/class/net/eth0/operstate) = up ]'
wait $transfer
eq "$(cat "$WORK/sum")" "$want"
