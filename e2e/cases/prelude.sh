# What all cases share. Set by the runner: BASE (the run's directory), RT (the runtime), N (a name of
# this case with this runtime), ENGINE, CGROUPS (who makes cgroups: cgroupfs, systemd), PARENT (cgroup of all containers:
# /NAME, or with systemd NAME.slice), PATIENCE (times that waiting may take longer than usual), CASES (this folder).

note() { echo "case: $*" >&2; }
# eq GOT WANTED
eq() { [ "$1" = "$2" ] || { note "got '$1', wanted '$2'"; return 1; }; }
# has TEXT PART
has() { case "$1" in *"$2"*) ;; *) note "no '$2' in '$1'"; return 1 ;; esac; }
hasnot() { case "$1" in *"$2"*) note "'$2' in '$1'"; return 1 ;; esac; }
# code NUMBER COMMAND…: the command's exit status must be that
code() {
    local want=$1 got=0
    shift
    "$@" || got=$?
    eq "$got" "$want"
}
# skip WHY: what the case needs is not here. In CI that is a failure.
skip() {
    echo "skipped: $*" >&2
    exit 77
}
# soon COMMAND…: succeeds within 20 seconds
soon() {
    local i
    for i in $(seq $((100 * PATIENCE))); do
        if "$@" > /dev/null 2>&1; then return 0; fi
        sleep 0.2
    done
    note "never: $*"
    return 1
}
# group NAME [PREFIX]: the cgroup of a container, below where its hierarchy is mounted. The prefix is what the engine puts
# before the name of a scope of systemd.
group() { if [ "$CGROUPS" = systemd ]; then echo "/$PARENT/${2:-}$1.scope"; else echo "$PARENT/$1"; fi; }
# limit GROUP FILE-OF-V1 FILE-OF-V2
limit() { cat "/sys/fs/cgroup/${2%%.*}$1/$2" "/sys/fs/cgroup$1/$3" 2> /dev/null | head -1; }
# Whether the engine may give all capabilities that there are.
all_capabilities() {
    local have
    have=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
    [ $((0x$have)) = $(((2 << $(cat /proc/sys/kernel/cap_last_cap)) - 1)) ]
}
# all_known CAPEFF-LINE…: all capabilities that even an old engine knows (to CAP_AUDIT_READ)
all_known() {
    local caps
    caps=$(echo "$1" | sed -n 's/^CapEff:[[:space:]]*//p')
    eq "$(printf %x $((0x$caps & 0x3fffffffff)))" 3fffffffff
}
is() { [ "$("${@:2}")" = "$1" ]; }
gone() { [ ! -e "/proc/$1" ] || grep -q '^State:.*[ZX]' "/proc/$1/status"; }

# once NAME COMMAND…: the first that asks runs it; others wait until it is done.
once() {
    (
        flock 9
        if [ ! -e "$BASE/$1.once" ]; then
            "${@:2}"
            touch "$BASE/$1.once"
        fi
    ) 9> "$BASE/$1.lock"
}

# A root file system of busybox.
busybox_root() { once busybox make_busybox_root; }
make_busybox_root() {
    local root=$BASE/busybox
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,root,var/lib,home/user}
    cp "$(command -v busybox)" "$root/bin/busybox"
    local applet
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    chmod 1777 "$root/tmp"
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\naudio:x:29:\n' > "$root/etc/group"
    chown 1000:1000 "$root/home/user"
    ln -s loop-b "$root/loop-a"
    ln -s loop-a "$root/loop-b"
}

# --- Docker

D() { docker -H "unix://$BASE/docker.sock" "$@"; }
# A container of this case; none of them talks to others unless it says so.
run() { D run --runtime="$RT" --label "case=$N" --network="${NET:-none}" "$@"; }
pid_of() { D inspect -f '{{.State.Pid}}' "$1"; }
field() { D inspect -f "{{$2}}" "$1"; }
docker_group() { group "$(field "$1" .Id)" docker-; }

# A command that daemons are to be run by.
INSIDE=()
docker_daemon() { # NAME ARGUMENTS…: a daemon with its own socket, in the background
    local name=$1 inside=("${INSIDE[@]}")
    shift
    # One without a bridge takes docker0 away from the other in its network namespace.
    case " $* " in *' --bridge none '*) inside=(unshare --net "${inside[@]}") ;; esac
    mkdir -p "$BASE/$name"
    [ -n "${KEEP_CONFIG:-}" ] || cat > "$BASE/$name/daemon.json" <<J
{"runtimes": {"runsc": {"path": "$BASE/runsc", "runtimeArgs": [${RUNSC_ARGS:-}]}}, "experimental": true,
 "cgroup-parent": "$PARENT"}
J
    setsid "${inside[@]}" dockerd --config-file "$BASE/$name/daemon.json" --data-root "$BASE/$name/data" \
        --exec-root "$BASE/$name/exec" -H "unix://$BASE/$name.sock" --pidfile "$BASE/$name/pid" \
        --exec-opt "native.cgroupdriver=$CGROUPS" "$@" \
        < /dev/null >> "$BASE/$name/log" 2>&1 9>&- &
    soon docker -H "unix://$BASE/$name.sock" version || { tail -5 "$BASE/$name/log"; return 1; }
}

start_docker() {
    busybox_root
    once docker start_shared_docker
}
start_shared_docker() {
    docker_daemon docker
    tar -C "$BASE/busybox" -c . | D import -c 'CMD ["sh"]' -c 'ENV PATH=/bin' - bb > /dev/null
}

end_docker() {
    local left
    left=$(D ps -aq --filter "label=case=$N")
    [ -z "$left" ] || D rm -fv $left > /dev/null
}
# A second daemon of a case: its data, its containers.
end_daemon() {
    local name=$1 left
    left=$(docker -H "unix://$BASE/$name.sock" ps -aq) || true
    [ -z "$left" ] || docker -H "unix://$BASE/$name.sock" rm -f $left > /dev/null || true
    kill "$(cat "$BASE/$name/pid")"
    soon gone "$(cat "$BASE/$name/pid")"
}

# --- Services: Debian's packages as Docker images

SERVICES=redis-server,redis-tools,nginx-light,postgresql,mariadb-server,memcached,nodejs,python3,openjdk-17-jdk-headless,apache2,libapache2-mod-php,curl,procps

start_services() {
    start_docker
    once services make_service_images
}
make_service_images() {
    local tar
    tar=$STORE/services-$(echo "$SERVICES" | sha256sum | head -c 12).tar
    mkdir -p "$STORE"
    if [ ! -e "$tar" ]; then
        # What a run that was killed has left.
        rm -rf "$tar.new"
        # From the runner's own network: the run's has no way out.
        nsenter --net="/proc/$RUNSC_E2E/ns/net" mmdebstrap --variant=minbase --quiet --format=tar --include="$SERVICES" \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' --essential-hook='mkdir -p "$1/usr/share/man/man1"' bookworm "$tar.new"
        mv "$tar.new" "$tar"
    fi
    D import "$tar" services > /dev/null
    # What an entry point needs is made here, as in the images of a registry.
    image redis 'USER redis' 'WORKDIR /var/lib/redis' \
        'CMD ["redis-server", "--protected-mode", "no", "--dir", "/var/lib/redis"]'
    image nginx 'RUN ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log && head -c 1024 /dev/zero | tr "\0" x > /var/www/html/1k' \
        'CMD ["nginx", "-g", "daemon off;"]' 'STOPSIGNAL SIGQUIT'
    image postgres 'RUN install -d -o postgres /run/postgresql' 'USER postgres' 'ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data' \
        'RUN initdb -A trust > /dev/null && echo "host all all all trust" >> $PGDATA/pg_hba.conf' \
        'CMD ["postgres", "-c", "listen_addresses=*"]' 'STOPSIGNAL SIGINT'
    image mariadb 'RUN install -d -o mysql /run/mysqld' 'CMD ["mariadbd", "--user=mysql", "--bind-address=0.0.0.0"]'
    image memcached 'USER memcache' 'CMD ["memcached", "-l", "0.0.0.0"]'
    image apache 'RUN echo "<?php echo PHP_OS, 6*7, \"\\n\";" > /var/www/html/a.php' \
        'CMD ["apachectl", "-D", "FOREGROUND"]' 'STOPSIGNAL SIGWINCH'
}
# image NAME LINES-OF-A-DOCKERFILE…
image() {
    local name=$1
    shift
    printf '%s\n' 'FROM services' "$@" | D build -q --network none --cgroup-parent "$PARENT" -t "$name" - > /dev/null
}

# --- containerd

containerd_daemon() {
    setsid containerd --config "$BASE/containerd/config.toml" < /dev/null >> "$BASE/containerd/log" 2>&1 9>&- &
    echo $! > "$BASE/containerd/pid"
    soon ctr -a "$BASE/containerd/sock" version || { tail -5 "$BASE/containerd/log"; return 1; }
}

start_containerd() {
    busybox_root
    once containerd start_shared_containerd
}
start_cri() { start_containerd; }
start_shared_containerd() {
    local systemd=false
    [ "$CGROUPS" != systemd ] || systemd=true
    mkdir -p "$BASE/containerd/cni"
    cat > "$BASE/containerd/config.toml" <<C
version = 2
root = "$BASE/containerd/root"
state = "$BASE/containerd/state"
[grpc]
  address = "$BASE/containerd/sock"
[ttrpc]
  address = "$BASE/containerd/ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/pause:latest"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$BASE/containerd/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = $systemd
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
      BinaryName = "$BASE/runsc"
      Root = "$BASE/containerd/runsc-state"
      SystemdCgroup = $systemd
C
    cat > "$BASE/containerd/cni/10-e2e.conflist" <<J
{"cniVersion": "0.4.0", "name": "e2e", "plugins": [{"type": "bridge", "bridge": "e2e0", "isGateway": true,
 "ipam": {"type": "host-local", "dataDir": "$BASE/cni", "ranges": [[{"subnet": "10.88.77.0/24"}]]}}]}
J
    # dockerd, in the same network namespace, has all else dropped that crosses bridges.
    iptables -I FORWARD -i e2e0 -j ACCEPT
    containerd_daemon
    local name
    for name in bb pause; do
        oci_image "$name" "$BASE/$name.tar"
        ctr -a "$BASE/containerd/sock" -n e2e image import "$BASE/$name.tar" > /dev/null
        ctr -a "$BASE/containerd/sock" -n k8s.io image import "$BASE/$name.tar" > /dev/null
    done
}

# oci_image NAME FILE: the busybox root as an image in OCI's layout; `pause` is one that sleeps.
oci_image() {
    local d=$BASE/oci.$1 command='["/bin/sh"]' layer config manifest
    [ "$1" = bb ] || command='["/bin/sleep","1000000"]'
    mkdir -p "$d/blobs/sha256"
    put() { local sum; sum=$(sha256sum "$1" | cut -d' ' -f1); mv "$1" "$d/blobs/sha256/$sum"; echo "$sum"; }
    tar -C "$BASE/busybox" -cf "$d/layer" .
    layer=$(put "$d/layer")
    echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"],\"Cmd\":$command},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}}" > "$d/config"
    local csize lsize msize
    csize=$(stat -c %s "$d/config")
    config=$(put "$d/config")
    lsize=$(stat -c %s "$d/blobs/sha256/$layer")
    echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$config\",\"size\":$csize},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$layer\",\"size\":$lsize}]}" > "$d/manifest"
    msize=$(stat -c %s "$d/manifest")
    manifest=$(put "$d/manifest")
    echo '{"imageLayoutVersion":"1.0.0"}' > "$d/oci-layout"
    echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$manifest\",\"size\":$msize,\"annotations\":{\"io.containerd.image.name\":\"docker.io/library/$1:latest\",\"org.opencontainers.image.ref.name\":\"latest\"}}]}" > "$d/index.json"
    tar -C "$d" -cf "$2" .
    rm -r "$d"
}

# --- Podman

start_podman() {
    busybox_root
    mkdir -p "$BASE/.config/containers" "$BASE/podman"
    cat > "$BASE/.config/containers/containers.conf" <<C
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[network]
network_backend = "netavark"
C
    RT=runc
    tar -C "$BASE/busybox" -c . | podman --root "$BASE/podman/root" --runroot "$BASE/podman/run" --tmpdir "$BASE/podman/tmp" --cgroup-manager cgroupfs \
        --events-backend file --storage-driver overlay import -c 'CMD ["sh"]' -c 'ENV PATH=/bin' - bb > /dev/null
}
