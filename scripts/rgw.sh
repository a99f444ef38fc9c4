#!/usr/bin/env bash
# A real S3 server on loopback for the tests: one Ceph RADOS Gateway from Debian's packages, its objects in
# memory.
#
#   scripts/rgw.sh DIR S3_PORT MONITOR_PORT
#
# Everything it writes goes to DIR, which must be new or empty. Runs in the foreground, says "ready" on its
# output once it serves (some fifteen seconds), and ends, with all its daemons, when its standard input closes
# or on SIGTERM. Access key AK, secret key SK, region us-east-1, the bucket in the path, plain HTTP.
set -euo pipefail
dir=$(realpath "${1:?a folder}")
s3_port=${2:?the port of S3}
monitor_port=${3:?the port of the monitor}
readonly fsid=6f1c3c4e-0000-4000-8000-000000000001
readonly osd_id=6f1c3c4e-0000-4000-8000-0000000000aa
# Seconds for any one command of the set-up.
readonly limit=60

mkdir -p "$dir"/{mon,osd,rgw}
cd "$dir"
exec 2>"$dir/setup.log"

stop() {
    trap - EXIT TERM INT
    local file
    for file in "$dir"/*.pid; do
        [ -e "$file" ] && kill -KILL "$(cat "$file")" || true
    done
}
trap stop EXIT
trap 'exit 0' TERM INT

cat >ceph.conf <<CONF
[global]
fsid = $fsid
mon_host = v1:127.0.0.1:$monitor_port
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = $dir
admin_socket = $dir/\$name.asok
pid_file = $dir/\$name.pid
log_file = $dir/\$name.log
mon_cluster_log_file = $dir/cluster.log
mon_data = $dir/mon
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_data = $dir/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_max_object_name_len = 256
osd_class_load_list = *
osd_class_default_list = *
osd_op_num_shards = 2
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = false
osd_class_update_on_start = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
rgw_frontends = beast endpoint=127.0.0.1:$s3_port
rgw_data = $dir/rgw
CONF
export CEPH_CONF=$dir/ceph.conf
run() { timeout "$limit" "$@" >&2; }

run monmaptool --create --addv a "[v1:127.0.0.1:$monitor_port]" --fsid "$fsid" monmap
run ceph-mon --mkfs -i a --monmap monmap -c ceph.conf
run ceph-mon -i a -c ceph.conf
run ceph -c ceph.conf osd new "$osd_id"
run ceph-osd -i 0 --mkfs --osd-uuid "$osd_id" -c ceph.conf
run ceph -c ceph.conf osd crush add osd.0 1.0 root=default host=localhost
run ceph-osd -i 0 -c ceph.conf
run radosgw -n client.rgw -c ceph.conf
for _ in $(seq 200); do
    curl -s -o "$dir/first.xml" "http://127.0.0.1:$s3_port/" && break
    sleep 0.3
done
run radosgw-admin -c ceph.conf user create --uid=test --display-name=test --access-key=AK --secret-key=SK
echo ready
# Until whoever started this closes its end, or is gone.
cat >&2
