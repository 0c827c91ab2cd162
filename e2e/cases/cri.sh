# containerd's CRI plugin, as kubelet uses it: pods of several containers.
cri() { /usr/bin/python3 -B "$CASES/cri_client.py" "$@"; }

## pod-of-one
cri pod_of_one
## pod-of-three-with-a-volume
cri pod_of_three
## exit-codes-and-logs
cri exit_codes_and_logs
## exec-sync
cri exec_sync
## shared-pid-namespace
cri shared_pid
## own-pid-namespaces
cri own_pid
## stats
cri stats
## stop-with-timeout
cri stop_with_timeout
## crash-loop
cri crash_loop
## oom-kill
cri oom_kill
## update-resources
cri update_resources
## exec-with-terminal
cri exec_with_terminal
## consoles-of-their-own
cri consoles
## attach
cri attach
## network
cri network
## port-forward
cri port_forward
## privileges
cri privileges
## residue [alone]
cri residue
## chaos [alone]
cri chaos
## missing-program
cri missing_program
## pod-stopped-with-containers
cri pod_stopped
## many-pods [alone]
cri many_pods
