mkdir -p /tmp/bb; cd /tmp/bb
busybox seq 5 | busybox sort -rn | busybox xargs
busybox echo content > f; touch -d '2020-01-01 00:00Z' f; busybox cp -p f g; busybox cmp f g; busybox md5sum f g
busybox sh -c 'for i in a b c; do busybox echo $i; done | busybox wc -l'
busybox tar cf x.tar f g; busybox tar tf x.tar; busybox tar xOf x.tar f g; busybox gzip -k x.tar
busybox zcat x.tar.gz | busybox cmp - x.tar; echo same
busybox find . -type f | busybox sort
busybox awk 'BEGIN { for (i = 0; i < 3; i++) print i * 2 }'
busybox timeout 1 busybox sleep 5 || { [ $? = 143 ]; echo "timeout"; }
busybox stat -c '%s %a' f; busybox df / | busybox wc -l; busybox ls -la | busybox wc -l
