# A database with 20 clients from outside, pipelined and not.
inside_bg redis-server --protected-mode no --save '' --bind 0.0.0.0
served 6379
outside redis-benchmark -h $GUEST -c 20 -n 20000 -t set,get -q | tail -n 4 | tr '\r' '\n' | grep 'per second'
outside redis-benchmark -h $GUEST -c 20 -n 50000 -t get -P 16 -q | tail -n 4 | tr '\r' '\n' | grep 'per second'
eq "$(outside redis-cli -h $GUEST set key value)" OK
eq "$(inside redis-cli get key)" value
