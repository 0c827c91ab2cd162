# Pipes, here-documents, substitutions, traps, background jobs: what scripts are made of.
set -u
cd "$(mktemp -d)"
echo one two three | tr ' ' '\n' | sort -r | sed -n 1,2p
cat <<END | wc -c
a here-document
of two lines
END
cat <<< "a here-string"
diff <(printf 'a\nb\n') <(printf 'a\nc\n') || { [ $? = 1 ]; echo differ; }
echo $(( $(seq 1 100 | paste -sd+) ))
( exit 7 ) || echo "status $?"
false | true || echo "pipe ${PIPESTATUS[*]}"
trap 'echo trapped' USR1; kill -USR1 $$; trap - USR1
sleep 10 & job=$!; kill $job; wait $job || echo "killed job $?"
for i in 1 2 3; do (sleep 0.0$i; echo "job $i" >> out) & done; wait; sort out
( ulimit -n 64; ulimit -n )
umask 027; touch f; stat -c '%A %s' f
ln -s f l; readlink l; mkdir -p a/b/c; find . | sort
printf '#!/bin/sh\necho "script $0 $1"\n' > s; chmod +x s; ./s arg
exec 3<>f; echo through >&3; cat f
timeout 0.2 sleep 5 || { [ $? = 124 ]; echo timeout; }
echo "pid is one: $(( $$ == 1 ))"
(yes || [ $? = 141 ]) | head -1000 | md5sum
dd if=/dev/zero bs=1k count=100 2>/dev/null | wc -c
