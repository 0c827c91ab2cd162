# Echo requests both ways and over both families; ARP is answered once.
inside ping -c 3 -i 0.2 -W 5 $HERE
inside ping -6 -c 3 -i 0.2 -W 5 $HERE6
outside ping -c 3 -i 0.2 -W 5 $GUEST | tee "$WORK/out"
grep -q '3 received' "$WORK/out" || fail 'answers are missing'
! grep -q DUP "$WORK/out" || fail 'answered twice'
outside ping -6 -c 3 -i 0.2 -W 5 $GUEST6 | tee "$WORK/out"
! grep -q DUP "$WORK/out" || fail 'answered twice'
outside arping -c 3 -I out0 $GUEST | tee "$WORK/out"
grep -q 'Received 3 response' "$WORK/out" || fail 'ARP is not answered once each'
