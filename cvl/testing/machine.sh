# A machine that can be switched on, cut off and rebooted, in three acts: chassis, hardware, system.
#
# The chassis holds what outlives a boot: the disk (a tmpfs in a mount namespace of its own) and
# the network card. It reads orders on stdin; when that ends, because whoever owns the machine has
# gone, in whatever way, it exits, and the kernel takes back everything: processes, mounts, cards.
# Nothing of it is ever visible in the file system of the computer that it runs on.
set -eu

chassis() { # DISK: the size of the disk, as tmpfs understands it
    mount -t tmpfs -o "mode=0755,size=$1" disk /mnt
    cd /mnt
    mkdir -p disk layers work seed state
    cp "$0" seed/machine.sh
    for part in usr etc var; do mkdir -p disk/$part layers/$part work/$part; done
    for link in bin sbin lib lib32 lib64 libx32; do
        if [ -L /$link ]; then cp -P /$link disk/; fi
    done
    mkdir -p disk/dev disk/proc disk/sys disk/run disk/tmp disk/home disk/mnt disk/opt disk/srv
    mkdir -m 0700 disk/root
    mkfifo power
    exec 2>log
    echo ready
    while read -r order; do
        case $order in
        on)
            exec 9<>power # whoever reads from it lives until we close it
            { run_system; rm -f state/up state/on; } <power 9>&- >&2 &
            system=$!
            ;;
        off) exec 9>&- ;;
        esac
        case $order in off | wait) wait "$system" || : ;; esac
        echo "$order"
    done
}

run_system() { # until it is shut down or cut off; new pids and clocks at every boot
    wish=reboot
    while [ "$wish" = reboot ]; do
        rm -f state/up state/wish
        cat /proc/sys/kernel/random/uuid >state/boot_id
        : >state/on
        uptime=$(cut -d. -f1 /proc/uptime)
        unshare --pid --fork --uts --ipc --mount --propagation private \
            --time --boottime "-$uptime" --monotonic "-$uptime" sh seed/machine.sh hardware || :
        wish=off
        [ ! -s state/wish ] || wish=$(cat state/wish)
    done
}

hardware() {
    cd /mnt/disk
    mount --bind . .
    cd /mnt/disk
    for part in usr etc var; do
        mount -t overlay overlay \
            -o "lowerdir=/$part,upperdir=/mnt/layers/$part,workdir=/mnt/work/$part" $part
    done
    mount -t sysfs -o ro sysfs sys
    mount -t proc proc proc
    [ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
    mount --bind proc/sys proc/sys
    mount -o remount,ro,bind proc/sys
    devices
    mount -t tmpfs -o mode=0755 run run
    mount -t tmpfs -o mode=1777 tmp tmp
    mkdir -p run/lock run/sshd run/machine run/old
    mount --bind /mnt/state run/machine
    mount --bind run/machine/boot_id proc/sys/kernel/random/boot_id
    mkdir -p var/lib/cloud/instance var/lib/cloud/scripts/per-boot
    cp -p /mnt/seed/* var/lib/cloud/instance/
    pivot_root . run/old
    # Root on the machine is not to set the clock of, or otherwise harm, what it runs on.
    exec setpriv --bounding-set=-sys_time,-sys_boot,-sys_module,-sys_rawio,-mknod \
        chroot . /bin/sh /var/lib/cloud/instance/machine.sh system
}

devices() {
    mount -t tmpfs -o mode=0755 dev dev
    mkdir dev/shm dev/pts
    for device in null zero full random urandom tty; do
        : >dev/$device
        mount --bind /dev/$device dev/$device
    done
    mount -t tmpfs -o mode=1777 shm dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    ln -s fd/0 dev/stdin
    ln -s fd/1 dev/stdout
    ln -s fd/2 dev/stderr
}

system() {
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
    unset PYTHONPATH TMPDIR CVL_LIFELINE
    umount -l /run/old
    cd /
    seed=/var/lib/cloud/instance
    . $seed/settings
    hostname "$HOSTNAME"
    ip link set lo up
    [ -e $seed/installed ] || install_system
    services 3<&- </dev/null &
    exec 3<&0 # a background command would not see our stdin
    cat <&3 >/dev/null & # ends with the power, or when `shutdown` ends it
    echo $! >/run/power.pid
    wait "$!" || : # and meanwhile reap orphans, as a pid 1 must
}

install_system() { # once, before the first boot goes on
    printf '%s\n' "$HOSTNAME" >/etc/hostname
    printf '127.0.0.1 localhost %s\n' "$HOSTNAME" >/etc/hosts
    front /etc/passwd "$USER_NAME:*:1000:1000:$USER_NAME:/home/$USER_NAME:/bin/bash"
    front /etc/group "$USER_NAME:x:1000:"
    home=/home/$USER_NAME
    mkdir -m 0700 "$home/" "$home/.ssh"
    cp $seed/authorized_keys "$home/.ssh/authorized_keys"
    cp -R /etc/skel/. "$home/"
    chmod 0755 "$home"
    chown -R 1000:1000 "$home"
    rm -rf /etc/ssh/ssh_host_* /var/tmp/*
    for name in shutdown poweroff halt reboot; do
        rm -f /usr/sbin/$name
        ln -s $seed/systemctl.sh /usr/sbin/$name
    done
    rm -f /usr/bin/systemctl
    ln -s $seed/systemctl.sh /usr/bin/systemctl
    [ -x /usr/bin/sudo ] || install_sudo
    : >$seed/installed
}

front() { # FILE LINE: the first match wins
    { printf '%s\n' "$2"; cat "$1"; } >"$1.new"
    mv "$1.new" "$1"
    chmod 0644 "$1"
}

install_sudo() { # cloud images let their user become root without a password
    install -m 4755 /usr/bin/setpriv /usr/lib/machine-root
    cat >/usr/bin/sudo <<'SUDO'
#!/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
while :; do
    case ${1-} in
    -u | -g) user=$2; shift 2 ;;
    -*) shift ;;
    *=*) export "$1"; shift ;;
    *) break ;;
    esac
done
[ "${user-root}" = root ] || exec /usr/lib/machine-root --reuid="$user" --regid="$user" --init-groups "$@"
exec /usr/lib/machine-root --reuid=0 --regid=0 --clear-groups "$@"
SUDO
    chmod 0755 /usr/bin/sudo
}

services() { # what a cloud image does at boot, in its order
    seed=/var/lib/cloud/instance
    [ -e $seed/initialised ] || sh $seed/first-boot.sh >/var/log/cloud-init.log 2>&1 || :
    sh $seed/every-boot.sh >>/var/log/cloud-init-output.log 2>&1 || :
    key=/etc/ssh/ssh_host_ed25519_key
    [ -e $key ] || ssh-keygen -q -t ed25519 -N '' -C '' -f $key
    ssh_server
    : >/run/machine/up
    {
        for script in /var/lib/cloud/scripts/per-boot/*; do
            [ ! -x "$script" ] || "$script" || :
        done
        systemctl machine-boot
        [ -e $seed/initialised ] || sh $seed/final.sh || :
        : >$seed/initialised
    } >>/var/log/cloud-init-output.log 2>&1
}

ssh_server() {
    case $SSH in
    no) return ;;
    other-key)
        ssh-keygen -q -t ed25519 -N '' -C '' -f /run/other_key
        sshd_with /run/other_key
        { sleep "$SSH_SECONDS"; kill "$(cat /run/sshd.pid)"; rm -f /run/sshd.pid; sshd_with $key; } &
        ;;
    late) { sleep "$SSH_SECONDS"; sshd_with $key; } & ;;
    *) sshd_with $key ;;
    esac
}

sshd_with() { # KEY: returns when it listens
    cat >/run/sshd_config <<CONFIG
HostKey $1
PidFile /run/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 100:30:200
MaxSessions 100
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
CONFIG
    for other in rsa ecdsa; do
        [ "$1" != "$key" ] || [ ! -e /etc/ssh/ssh_host_${other}_key ] ||
            echo "HostKey /etc/ssh/ssh_host_${other}_key" >>/run/sshd_config
    done
    /usr/sbin/sshd -f /run/sshd_config -E /var/log/sshd.log
    tries=0
    until [ -e /run/sshd.pid ] || [ $((tries += 1)) -gt 1000 ]; do sleep 0.01; done
}

"$@"
