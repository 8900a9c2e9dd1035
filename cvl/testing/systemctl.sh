#!/bin/sh
# As much of systemctl and shutdown as a cloud image's first hours need, for a machine of machine.sh.
set -eu

power() { # off | reboot: ends pid 1, as a kernel that halts would
    echo "$1" >/run/machine/wish
    kill "$(cat /run/power.pid)"
}

value() { # FILE KEY: the last of a unit's settings
    sed -n "s/^$2=-\{0,1\}//p" "$1" | tail -n 1
}

seconds() { # 90, 90s, 5min, 1h, 1h30min
    printf '%s\n' "$1" | sed 's/ //g; s/min/*60+/g; s/m\($\|[0-9]\)/*60+\1/g; s/h/*3600+/g; s/s\(ec\)\{0,1\}/+/g; s/$/+0/; s/++/+/g'
}

unit() { # NAME: where it lies
    for folder in /etc/systemd/system /run/systemd/system /usr/lib/systemd/system; do
        [ ! -f "$folder/$1" ] || { echo "$folder/$1"; return; }
    done
    echo "Unit $1 not found." >&2
    return 5
}

service() { # FILE: run it once, with its environment
    (
        for setting in $(sed -n 's/^EnvironmentFile=-\{0,1\}//p' "$1"); do
            [ ! -f "$setting" ] || { set -a; . "$setting"; set +a; }
        done
        exec sh -c "$(value "$1" ExecStart)"
    )
}

timer() { # FILE: wait for it, then run its service, again and again if it says so
    name=$(value "$1" Unit)
    [ -n "$name" ] || name=$(basename "$1" .timer).service
    target=$(unit "$name")
    first=$(value "$1" OnActiveSec)
    [ -n "$first" ] || first=$(value "$1" OnBootSec)
    again=$(value "$1" OnUnitActiveSec)
    [ -n "$again" ] || again=$(value "$1" OnUnitInactiveSec)
    sleep "$(($(seconds "${first:-0}")))"
    service "$target" || :
    while [ -n "$again" ]; do
        sleep "$(($(seconds "$again")))"
        service "$target" || :
    done
}

start() { # NAME
    file=$(unit "$1")
    case $1 in
    *.timer) timer "$file" >>/var/log/units.log 2>&1 </dev/null & ;;
    *) service "$file" >>/var/log/units.log 2>&1 </dev/null & ;;
    esac
    mkdir -p /run/units
    echo $! >"/run/units/$1"
}

each() { # VERB NAMES...
    verb=$1 now=
    shift
    for name; do
        case $name in
        --now) now=1; continue ;;
        -*) continue ;;
        *.*) ;;
        *) name=$name.service ;;
        esac
        case $verb in
        enable) unit "$name" >/dev/null && mkdir -p /etc/units && : >"/etc/units/$name" ;;
        disable) rm -f "/etc/units/$name" ;;
        start | restart) start "$name" ;;
        stop) [ ! -e "/run/units/$name" ] || kill "$(cat "/run/units/$name")" 2>/dev/null || : ;;
        is-active) kill -0 "$(cat "/run/units/$name" 2>/dev/null)" 2>/dev/null ;;
        is-enabled) [ -e "/etc/units/$name" ] ;;
        esac
        case $verb:$now in enable:1) start "$name" ;; esac
    done
}

case $(basename "$0"):${1-} in
reboot:* | shutdown:-r | *:reboot) power reboot ;;
shutdown:* | poweroff:* | halt:* | *:poweroff | *:halt) power off ;;
*:daemon-reload) ;;
*:enable | *:disable | *:start | *:restart | *:stop | *:is-active | *:is-enabled) each "$@" ;;
*:machine-boot) for name in /etc/units/*; do [ ! -e "$name" ] || start "$(basename "$name")"; done ;;
*)
    echo "System has not been booted with systemd as init system (PID 1). Can't operate." >&2
    exit 1
    ;;
esac
