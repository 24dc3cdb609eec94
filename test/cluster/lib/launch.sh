# shellcheck shell=bash disable=SC2154  # sourced by up and reboot, after common.sh

# join_cgroups NAME: moves this process into a child of its cgroup, in every
# hierarchy, and notes the child for `down` to remove.
join_cgroups() {
	local mine hierarchy path dir setting
	mine=$(</proc/self/cgroup) # whole, as it changes with every move
	while IFS=: read -r _ hierarchy path; do
		hierarchy=${hierarchy#name=}
		dir=/sys/fs/cgroup/${hierarchy:-unified}$path
		[[ -d $dir ]] || continue
		dir=${dir%/}/${state##*/}
		echo "$dir" >>"$state/cgroups"
		for dir in "$dir" "$dir/$1"; do
			mkdir -p "$dir"
			for setting in cpuset.cpus cpuset.mems; do
				[[ $hierarchy != cpuset ]] || cat "${dir%/*}/$setting" >"$dir/$setting"
			done
		done
		echo "$BASHPID" >"$dir/cgroup.procs"
	done <<<"$mine"
}

# launch NAME COMMAND...: runs COMMAND as PID 1 of new namespaces, in cgroups
# of its own, and waits until it has recorded its PID.
launch() {
	local name=$1
	shift
	mkdir -p "$state/$name"
	rm -f "$state/$name/pid"
	(
		join_cgroups "$name"
		exec setsid unshare --fork --kill-child --cgroup --ipc --mount --net --pid --uts -- "$@"
	) </dev/null >>"$state/$name/init.log" 2>&1 &
	await 10 "$name" test -s "$state/$name/pid"
}

# start_node NUMBER NODES: launches a node whose configuration is laid down, and
# plugs it into the bridge of the control plane.
start_node() {
	local name=node-$1 ip pid control_plane j
	ip=$(node_ip "$1")
	control_plane=$(alive "$state/control-plane/pid") || die "not up"
	launch "$name" "$here/lib/node" "$name" "$ip"
	pid=$(alive "$state/$name/pid")
	nsenter --target "$control_plane" --net ip -batch - <<-END
		link add $name type veth peer name eth0 netns $pid
		link set $name master br0 up
		route replace $(pod_cidr "$1") via $ip
	END
	{
		echo "link set lo up"
		echo "addr add $ip/24 dev eth0"
		echo "link set eth0 up"
		echo "route add default via $control_plane_ip"
		for ((j = 1; j <= $2; j++)); do
			((j == $1)) || echo "route add $(pod_cidr "$j") via $(node_ip "$j")"
		done
	} | nsenter --target "$pid" --net ip -batch -
}

# containerd_answers NAME: waits for a node's containerd.
containerd_answers() {
	await 30 "containerd on $1" test -S "/proc/$(alive "$state/$1/pid")/root/run/containerd/containerd.sock"
}
