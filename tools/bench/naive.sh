#!/bin/bash
# The host's part of one microVM as tutorials have it, up to the moment at which the guest would start: the reference
# of `make bench-lab`. `naive.sh snapshot|copy`: how the root disk comes about. Prints the milliseconds that it took,
# and takes everything away again. As root; in bench.env are ROOTFS, SEED, KERNEL, INITRAMFS, FIRECRACKER and BRIDGE.
set -eu
. "${0%/*}/bench.env"
here=$(mktemp -d /home/naive.XXXXXX) vm=naive0 tap=naive0 api=$here/api.sock

put() { curl -sS --fail --unix-socket "$api" -X PUT "http://localhost$1" -H 'Content-Type: application/json' -d "$2"; }

began=$EPOCHREALTIME
cp --sparse=always "$SEED" "$here/work.ext4"
if [ "$1" = snapshot ]; then
  truncate -s "$(stat -c %s "$ROOTFS")" "$here/cow"
  base=$(losetup --find --show --read-only "$ROOTFS")
  cow=$(losetup --find --show "$here/cow")
  dmsetup create $vm --table "0 $(($(stat -c %s "$ROOTFS") / 512)) snapshot $base $cow P 8"
  root=/dev/mapper/$vm
else
  cp --sparse=always "$ROOTFS" "$here/root.ext4"
  root=$here/root.ext4
fi
ip tuntap add dev $tap mode tap
ip link set $tap master "$BRIDGE"
ip link set $tap up
cat >"$here/rules.nft" <<RULES
table inet naive {
  chain nat { type nat hook postrouting priority srcnat; ip saddr 10.209.0.99 oifname != "$BRIDGE" masquerade; }
  chain forward { type filter hook forward priority filter; iifname "$tap" accept; }
}
RULES
nft -f "$here/rules.nft"
"$FIRECRACKER" --api-sock "$api" >"$here/console" 2>&1 </dev/null &
pid=$!
while [ ! -S "$api" ]; do sleep 0.1; done
put /machine-config '{"vcpu_count": 1, "mem_size_mib": 256}'
put /boot-source "{\"kernel_image_path\": \"$KERNEL\", \"initrd_path\": \"$INITRAMFS\", \"boot_args\": \"console=ttyS0\"}"
put /drives/root "{\"drive_id\": \"root\", \"path_on_host\": \"$root\", \"is_root_device\": false, \"is_read_only\": false}"
put /drives/work "{\"drive_id\": \"work\", \"path_on_host\": \"$here/work.ext4\", \"is_root_device\": false, \"is_read_only\": false}"
put /network-interfaces/eth0 "{\"iface_id\": \"eth0\", \"host_dev_name\": \"$tap\"}"
put /vsock "{\"guest_cid\": 3, \"uds_path\": \"$here/vsock.sock\"}"
ended=$EPOCHREALTIME
echo $(((${ended/./} - ${began/./}) / 1000))

kill $pid
wait $pid || true
nft delete table inet naive
ip link delete $tap
if [ "$1" = snapshot ]; then
  dmsetup remove --retry $vm
  losetup --detach "$base" "$cow"
fi
rm -r "$here"
