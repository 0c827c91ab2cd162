# Both are asleep when somebody looks.
sleep 20 & sleep 21 & sleep 0.5
# Each into a file first: what else of a pipeline runs already is a matter of luck.
ps aux > /tmp/all; awk 'NR == 1 || /sleep/ { print $1, substr($8, 1, 1), $11, $12 }' /tmp/all
# The shell has to be asleep by then.
(sleep 0.5; exec ps -eo ppid,stat,comm) > /tmp/list; awk 'NR > 1 { print ($1 > 0), substr($2, 1, 1), $3 }' /tmp/list | sort
pgrep -c sleep; pidof sleep | wc -w
top -bn1 > /tmp/top; awk '/^Tasks/ { print $2, "tasks" } /COMMAND/ { print "columns", NF }' /tmp/top
grep -c 'sleep$' /tmp/top
free | awk '{ print $1 }'
uptime | grep -c 'load average'
cat /proc/sys/kernel/random/uuid | wc -c
# The first `jobs` reports what ended before the wait.
pkill sleep; wait; jobs > /tmp/ended; jobs | wc -l
kill -l | sed -n 1,2p
