# TCP both ways, eight streams, UDP, IPv6; the server inside as well.
outside_bg iperf3 -s
inside_bg iperf3 -s
here_serves 5201
served 5201
sleep 0.5
for options in "-c $HERE" "-c $HERE -R" "-c $HERE -P 8" "-c $HERE -u -b 200M" "-c $HERE6" "-c $HERE6 -R"; do
    inside iperf3 $options -t 1 -f m | tail -4
done
for options in "-c $GUEST" "-c $GUEST -R" "-c $GUEST -P 8" "-c $GUEST -u -b 200M" "-c $GUEST6"; do
    # Its server does not listen for a moment after each test.
    { outside iperf3 $options -t 1 -f m || { sleep 1; outside iperf3 $options -t 1 -f m; }; } | tail -4
done
