# A shell from outside, and a copy through it.
inside sh -c 'mkdir -p /run/sshd /root/.ssh && chmod 700 /root /root/.ssh && ssh-keygen -q -t ed25519 -N "" -f /root/.ssh/key && cat /root/.ssh/key.pub > /root/.ssh/authorized_keys'
inside cat /root/.ssh/key > "$WORK/key"
chmod 600 "$WORK/key"
inside_bg /usr/sbin/sshd -D -e -o UsePAM=no
served 22
login() { nsenter --net=/run/netns/$OUT unshare --mount --propagation private sh -c 'mount --bind "$1" "$0/mnt"; shift; exec chroot "$0" "$@"' "$ROOT" "$WORK" ssh -i /mnt/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@$GUEST "$@"; }
eq "$(login 'echo from $(hostname)')" 'from guest'
want=$(make_data 8 | sha256sum)
eq "$(make_data 8 | login sha256sum)" "$want"
