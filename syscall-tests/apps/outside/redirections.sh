# Standard streams that are files of the host: offsets and appends are those of the one description that all
# who inherited it share. $RUN is empty or begins a sandbox.
$RUN sh -c 'echo a; echo b; (echo c; sh -c "echo d"); echo e & wait' > out; cat out
$RUN sh -c 'echo f; (echo g; sh -c "echo h"); cat /dev/null; echo i' >> out; cat out
( echo first; $RUN sh -c 'for i in 1 2 3 4; do (for j in 1 2 3 4 5; do echo $i; done) & done; wait'; echo last ) > out
head -1 out; sort out | uniq -c; tail -1 out
( echo first; $RUN sh -c 'echo out; echo err >&2; sh -c "echo both; echo both >&2"; echo end'; echo last ) > out 2>&1; cat out
printf '1\n2\n3\n4\n5\n' > in
( read -r x; echo "got $x"; $RUN sh -c 'read y; echo in $y; (read y; echo child $y)'; read -r z; echo "after $z"; $RUN cat ) < in
$RUN sh -c 'echo some text; : > /dev/stdout; echo x' > out; od -c out
$RUN sh -c 'echo some text; : > /dev/stdout; echo x' >> out; od -c out
$RUN sh -c 'sh -c "sleep 0.3; echo late" & echo early; wait' > out; od -c out
$RUN dd if=/dev/zero bs=1000 count=70 2>/dev/null > out; wc -c < out
printf 0123456789 > out; $RUN sh -c 'echo ab; sleep 0.1; dd bs=1 seek=2 count=2 conv=notrunc 2>/dev/null <in; echo cd' 1<> out; od -c out
$RUN sh -c 'exec 3>&1; echo three >&3; exec 4>>out2; echo four >&4; echo five' > out; cat out
$RUN sh -c 'cat; echo status $?' < /dev/null > out; cat out
$RUN sh -c 'echo both ends | cat; echo err >&2' 2>&1 >out | cat; cat out
{ $RUN sh -c 'echo to a pipe; exec >&-; echo lost 2>/dev/null || exit 3'; echo "status $?"; } | cat
$RUN sh -c 'ls -l /proc/self/fd/1 >/dev/null && stat -L -c "%F %s" /dev/fd/1 >&2' 2>&1 > out
