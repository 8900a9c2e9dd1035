# Installs the cvl that comes on stdin, a zipapp, into $base/lib/$hash, and $base/bin/cvl to run it.
# Variables: nonce hash version base minimum ("3.11"); see cvl/host/request.py. May run twice, also at the same time.
# Exit status: 0, 76 (Python is too old), 77 (no Python), 1 (the host's own words say why).

umask 077
new=$base/lib/.$hash.$$

answer() { echo "cvl:$nonce $*" >&2; }
fail() { code=$1; shift; answer fail "$@"; exit "$code"; }

# A name on PATH proves nothing: version managers put shims there that run nothing.
probe='
import sys
minimum = tuple(map(int, sys.argv[1].split(".")))
print("ok" if sys.version_info >= minimum else "old", "%d.%d.%d" % sys.version_info[:3], sys.executable)
'
python= found=
for name in python3 python3.11 python3.12 python3.13 python3.14; do
    state=; there=; place=
    read -r state there place <<-END
	$("$name" -I -c "$probe" "$minimum" 2>/dev/null </dev/null)
	END
    case $state in
        ok) python=$place; break ;;
        old) found="${found:+$found, }$name is $there" ;;
    esac
done
if [ -z "$python" ]; then
    [ -n "$found" ] && fail 76 python-old "$found"
    fail 77 python-missing "there is no python3 on the PATH of \`ssh HOST COMMAND\`"
fi

trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$base/lib" "$base/bin" && mkdir "$new" || fail 1 readonly "cannot write to $base"
find "$base/lib" -maxdepth 1 -name '.*.*' -mtime +0 -exec rm -rf {} + 2>/dev/null
cat >"$new/cvl.pyz" || fail 1 space "cannot write to $base"
"$python" -I -m zipfile -e "$new/cvl.pyz" "$new/all" || fail 1 space "cannot unpack into $base"
said=$("$python" -I "$new/all" --version 2>&1) || fail 1 python-broken "$said"
case $said in
    *"$version"*) ;;
    *) fail 1 python-broken "what was sent is cvl $version, what runs there says $said" ;;
esac
find "$new/all" -type f -exec chmod a-w {} + # so that a job's `>file` fails

# rename(2) by Python: mv would move the folder *into* one that another set-up has just put there
"$python" -I - "$new/all" "$base/lib/$hash" "$base/bin/cvl" <<'END' || fail 1 readonly "cannot write to $base"
import os
import shlex
import sys

new, home, launcher = sys.argv[1:]
try:
    os.rename(new, home)
except OSError:
    if not os.path.isfile(os.path.join(home, "__main__.py")):
        raise
command = " ".join(map(shlex.quote, [sys.executable, "-I", home]))
draft = "%s.%d" % (launcher, os.getpid())
with open(draft, "w") as out:
    out.write("#!/bin/sh\n# Runs the cvl that was put here last.\nexec %s \"$@\"\n" % command)
os.chmod(draft, 0o700)
os.replace(draft, launcher)
END
answer ready "$python"
