# How a command ends, and how it is ended from outside. $RUN is empty or begins a sandbox.
exec 2> /dev/null
$RUN sh -c 'exit 42'; echo "status $?"
for signal in TERM INT HUP KILL USR1 PIPE SEGV ABRT ALRM RTMIN; do
    ( $RUN sh -c "kill -$signal \$\$; sleep 5; echo survived" ); echo "$signal $?"
done
$RUN sh -c 'trap "echo trapped; exit 3" TERM; kill -TERM $$; sleep 1'; echo "status $?"
timeout 1 $RUN sleep 60; echo "status $?"
timeout -s INT 1 $RUN sh -c 'trap "echo interrupted; exit 4" INT; echo begun; while :; do sleep 0.05; done'; echo "status $?"
timeout --preserve-status -s HUP 1 $RUN sh -c 'sleep 60; echo never'; echo "status $?"
timeout --preserve-status -s USR2 1 $RUN sh -c 'trap "" USR2; sleep 1.5; echo ignored'; echo "status $?"
$RUN sh -c 'sleep 1 & echo left behind' | cat
$RUN sh -c 'while :; do echo y; done' | head -2; echo "${PIPESTATUS[*]}"
$RUN yes | head -1; echo "${PIPESTATUS[*]}"
echo input | $RUN cat; (sleep 0.2; echo late) | $RUN head -1
$RUN /nonexistent; echo "status $?"
$RUN /etc/passwd; echo "status $?"
( ulimit -n 77; $RUN sh -c 'ulimit -n' )
( umask 057; $RUN sh -c umask )
( cd /usr/share && $RUN pwd )
VARIABLE=value $RUN sh -c 'echo $VARIABLE'
