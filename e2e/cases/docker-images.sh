trap 'status=$?; end_docker || true; exit $status' EXIT
# A container's changes as the engine sees them: cp, diff, commit, export, build.

## cp-directory-both-ways
run -d --name "$N" bb sleep 100 > /dev/null
mkdir -p "$BASE/$N.d/a/b"
echo one > "$BASE/$N.d/a/f"
ln -s f "$BASE/$N.d/a/l"
chmod 750 "$BASE/$N.d/a"
D cp -a "$BASE/$N.d/a" "$N:/root/"
eq "$(D exec "$N" sh -c 'cd /root/a; cat l; readlink l; stat -c %a .; test -d b && echo d' | tr '\n' ' ')" 'one f 750 d '
D exec "$N" sh -c 'echo two >> /root/a/f; echo three > /root/a/b/g'
D cp "$N:/root/a/." "$BASE/$N.back"
eq "$(cat "$BASE/$N.back/f" "$BASE/$N.back/b/g" | tr '\n' ' ')" 'one two three '
rm -r "$BASE/$N.d" "$BASE/$N.back"
## cp-keeps-owner-with-a
run -d --name "$N" bb sleep 100 > /dev/null
touch "$BASE/$N.f"
chown 12:34 "$BASE/$N.f"
D cp -a "$BASE/$N.f" "$N:/f"
eq "$(D exec "$N" stat -c '%u %g' /f)" '12 34'
D exec "$N" chown 56:78 /f
has "$(D cp "$N:/f" - | tar -tv --numeric-owner)" ' 56/78 '
rm "$BASE/$N.f"
## cp-replaces-what-is-open
# A program that waits for it sees it, and what it has open is still the old file.
run -d --name "$N" bb sh -c 'echo old > /f; exec 3< /f; echo ready; while [ "$(cat /f)" = old ] || [ ! -e /g ]; do sleep 0.1; done; cat <&3; cat /f /g' > /dev/null
soon sh -c "docker -H unix://$BASE/docker.sock logs $N | grep ready"
echo new > "$BASE/$N.f"
D cp "$BASE/$N.f" "$N:/f"
D cp "$BASE/$N.f" "$N:/g"
eq "$(timeout 20 docker -H "unix://$BASE/docker.sock" wait "$N")" 0
eq "$(D logs "$N" | tr '\n' ' ')" 'ready old new new '
rm "$BASE/$N.f"
## cp-into-a-volume
D volume create --label "case=$N" "$N" > /dev/null
run -d --name "$N" -v "$N:/v" bb sleep 100 > /dev/null
echo word > "$BASE/$N.f"
D cp "$BASE/$N.f" "$N:/v/f"
eq "$(D exec "$N" cat /v/f)" word
D exec "$N" sh -c 'echo back > /v/g'
eq "$(D cp "$N:/v/g" - | tar -xO)" back
D rm -f "$N" > /dev/null
D volume rm "$N" > /dev/null
rm "$BASE/$N.f"
## cp-large
run -d --name "$N" bb sleep 100 > /dev/null
head -c 30000000 /dev/urandom > "$BASE/$N.f"
D cp "$BASE/$N.f" "$N:/f"
eq "$(D exec "$N" sha256sum /f | cut -c1-64)" "$(sha256sum "$BASE/$N.f" | cut -c1-64)"
D exec "$N" cp /f /g
eq "$(D cp "$N:/g" - | tar -xO | sha256sum)" "$(sha256sum < "$BASE/$N.f")"
rm "$BASE/$N.f"
## cp-missing
run -d --name "$N" bb sleep 100 > /dev/null
D cp "$N:/nothing" "$BASE/$N.f" 2> /dev/null && exit 1
D cp "$BASE/prelude-is-not-here" "$N:/f" 2> /dev/null && exit 1 || true
## diff-while-running
run -d --name "$N" bb sleep 100 > /dev/null
D exec "$N" sh -c 'mkdir /d; echo x > /d/f; echo y >> /etc/group; rm -r /var; mv /bin/ls /bin/ls2; touch /tmp/t; ln /etc/passwd /etc/p2'
soon sh -c "docker -H unix://$BASE/docker.sock diff $N | grep 'A /d/f'"
out=$(D diff "$N" | sort | tr '\n' ',')
for line in 'A /d,' 'A /d/f,' 'C /etc,' 'C /etc/group,' 'D /var,' 'D /bin/ls,' 'A /bin/ls2,' 'A /tmp/t,' 'A /etc/p2,'; do has "$out" "$line"; done
## diff-of-nothing
run --name "$N" bb sh -c 'cat /etc/passwd > /dev/null; ls -l /bin > /dev/null'
eq "$(D diff "$N")" ''
## commit-kinds-of-files
run --cap-add MKNOD --name "$N" bb sh -c 'mkfifo /p; chmod 4755 /bin/busybox; mkdir -m 1777 /s; echo a > /h1; ln /h1 /h2; ln -s /none /dangling; touch -d "2001-02-03 04:05:06" /old; echo x > "/name with  blanks"; truncate -s 1000000 /sparse; ln -s x "$(printf "/n\303\244me")"'
D commit "$N" "$N:new" > /dev/null
cat > "$BASE/$N.sh" <<'S'
test -p /p && stat -c %a /bin/busybox /s
test /h1 -ef /h2 && stat -c %h /h1
readlink /dangling; stat -c %Y /old; cat "/name with  blanks"; stat -c %s /sparse; readlink "$(printf "/n\303\244me")"
S
eq "$(run --rm -i "$N:new" sh < "$BASE/$N.sh" | tr '\n' ' ')" '4755 1777 2 /none 981173106 x 1000000 x '
D rmi -f "$N:new" > /dev/null
rm "$BASE/$N.sh"
## commit-replaced-directory
# A directory that is removed and made again hides what the image has in it.
run --name "$N" bb sh -c 'rm -r /home/user; mkdir /home/user; echo a > /home/user/a; rm -r /var; echo file > /var; mkdir /etc/conf'
D commit "$N" "$N:one" > /dev/null
run --name "$N.2" "$N:one" sh -c 'rm /var; mkdir -p /var/x; rmdir /etc/conf; echo g > /etc/conf; rm -r /home; mkdir /home'
D commit "$N.2" "$N:two" > /dev/null
eq "$(run --rm "$N:one" sh -c 'ls /home/user; cat /var; test -d /etc/conf && echo d' | tr '\n' ' ')" 'a file d '
eq "$(run --rm "$N:two" sh -c 'ls /home /var; cat /etc/conf' | tr '\n' ' ')" '/home:  /var: x g '
D rmi -f "$N:two" "$N:one" > /dev/null
## commit-capabilities-of-files
# security.capability is part of the layer. busybox cannot set it; tar cannot either: cp is to keep it.
run -d --name "$N" bb sleep 100 > /dev/null
cp "$BASE/busybox/bin/busybox" "$BASE/$N.f"
setcap cap_net_raw+ep "$BASE/$N.f" || skip "no setcap here"
D cp -a "$BASE/$N.f" "$N:/bin/raw"
D commit "$N" "$N:new" > /dev/null
eq "$(D save "$N:new" | tar -xO --wildcards '*/layer.tar' 2> /dev/null | grep -ac 'SCHILY.xattr.security.capability' || true)" 1
D rmi -f "$N:new" > /dev/null
rm "$BASE/$N.f"
## commit-running-with-changes
run -d --name "$N" bb sh -c 'echo 1 > /f; exec sleep 100' > /dev/null
soon D exec "$N" test -s /f
D commit -c 'CMD ["cat", "/f"]' -c 'ENV Z=1' -c 'USER 7' "$N" "$N:new" > /dev/null
eq "$(run --rm "$N:new")" 1
eq "$(run --rm "$N:new" sh -c 'echo $Z; id -u' | tr '\n' ' ')" '1 7 '
code 0 D exec "$N" true
D rmi -f "$N:new" > /dev/null
## export-import
run --name "$N" bb sh -c 'echo kept > /kept; rm /bin/vi; ln /kept /linked; chown 3:4 /kept'
D export "$N" | D import - "$N:flat" > /dev/null
eq "$(run --rm "$N:flat" /bin/sh -c '/bin/cat /linked; /bin/stat -c "%u %g %h" /kept; /bin/test -e /bin/vi || echo gone' | tr '\n' ' ')" 'kept 3 4 2 gone '
D rmi -f "$N:flat" > /dev/null
## save-load
run --name "$N" bb sh -c 'echo kept > /kept'
D commit "$N" "$N:new" > /dev/null
D save "$N:new" > "$BASE/$N.tar"
D rmi "$N:new" > /dev/null
D load < "$BASE/$N.tar" > /dev/null
eq "$(run --rm "$N:new" cat /kept)" kept
D rmi "$N:new" > /dev/null
rm "$BASE/$N.tar"
## writes-survive-restart
run -d --name "$N" bb sh -c 'echo start >> /log; exec sleep 100' > /dev/null
soon D exec "$N" test -s /log
D exec "$N" sh -c 'rm /bin/vi; mkdir -p /a/b; echo x > /a/b/c; mv /a /z; chmod 700 /z'
D kill "$N" > /dev/null
D start "$N" > /dev/null
soon is 2 sh -c "docker -H unix://$BASE/docker.sock exec $N sh -c 'wc -l < /log'"
eq "$(D exec "$N" sh -c 'cat /z/b/c; stat -c %a /z; test -e /bin/vi || echo gone' | tr '\n' ' ')" 'x 700 gone '
## image-is-not-touched
run --rm bb sh -c 'rm -r /home /etc/passwd; echo x > /etc/group; rm /bin/vi'
eq "$(run --rm bb sh -c 'ls -d /etc/passwd /home/user /bin/vi; grep -c root /etc/group' | tr '\n' ' ')" '/bin/vi /etc/passwd /home/user 1 '
## build-stages [alone]
mkdir "$BASE/$N.ctx"
echo archived > "$BASE/$N.ctx/f"
tar -C "$BASE/$N.ctx" -czf "$BASE/$N.ctx/f.tgz" f
cat > "$BASE/$N.ctx/Dockerfile" <<'F'
FROM bb AS first
ARG WORD=none
ENV GREETING=hello
WORKDIR /made/deep
RUN echo "$GREETING $WORD" > greeting && echo "worker:x:1234:1234::/:/bin/sh" >> /etc/passwd
ADD f.tgz /unpacked
COPY --chown=1234:1234 f /owned
USER worker
RUN id -u > /tmp/who && touch /tmp/mine
FROM bb
COPY --from=first /made/deep/greeting /greeting
COPY --from=first /tmp /taken
COPY --from=first /unpacked/f /owned /etc/
LABEL made=by-a-build
VOLUME /data
HEALTHCHECK --interval=1s CMD test -e /greeting
SHELL ["/bin/sh", "-eu", "-c"]
RUN for i in $(seq 100); do echo $i > /bin/x$i; done; rm /bin/x50; ! cat /undefined 2> /dev/null
ENTRYPOINT ["cat"]
CMD ["/greeting"]
F
docker_daemon "$N" --default-runtime "$RT" --bridge none --iptables=false
d() { docker -H "unix://$BASE/$N.sock" "$@"; }
trap 'status=$?; end_daemon "$N"; rm -rf "$BASE/$N.ctx"; exit $status' EXIT
D save bb | d load > /dev/null
d build -q --network none --cgroup-parent "$PARENT" --build-arg WORD=there --tag built "$BASE/$N.ctx" > /dev/null
eq "$(d run --rm --network none built)" 'hello there'
eq "$(d run --rm --network none built /taken/who /etc/f | tr '\n' ' ')" '1234 archived '
eq "$(d run --rm --network none --entrypoint sh built -c 'ls /bin | grep -c "^x[0-9]"; stat -c %u /taken/mine; touch /data/x && echo data' | tr '\n' ' ')" '99 1234 data '
d run -d --name healthy --network none --entrypoint sleep built 100 > /dev/null
soon is healthy d inspect -f '{{.State.Health.Status}}' healthy
# All of it comes from the cache the second time.
eq "$(d build --network none --cgroup-parent "$PARENT" --build-arg WORD=there "$BASE/$N.ctx" | grep -c 'Using cache')" 18
