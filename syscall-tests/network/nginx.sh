# A web server with 64 clients from outside; no error.
inside sh -c 'mkdir -p /run /var/log/nginx /tmp/www && head -c 1024 /dev/zero > /tmp/www/f && chmod -R a+rX /tmp/www'
inside sh -c 'printf "%s" "worker_processes 1; events { worker_connections 1024; } http { access_log off; server { listen 80; root /tmp/www; } }" > /tmp/nginx.conf'
inside_bg nginx -c /tmp/nginx.conf -g 'daemon off;'
served 80
outside wrk -c 64 -t 2 -d 2s http://$GUEST:80/f | tee "$WORK/out"
grep -q 'Requests/sec' "$WORK/out" || fail 'nothing was measured'
! grep -q 'Socket errors\|Non-2xx' "$WORK/out" || fail 'errors'
