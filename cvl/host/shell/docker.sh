#!/bin/sh
# `docker` as the job sees it: labels what `run` and `create` make, makes the folders in our home
# that they mount, and is the real one otherwise. It lies at runs/<id>/bin/docker.

_own=${0%/*}
_run=${_own%/*}
true >"$_run/docker-used"

# The next docker on the PATH behind our folder: so two shims, one run within another, end too.
_path=$PATH:
case :$_path in *":$_own:"*) _path=:$_path _path=${_path##*":$_own:"} ;; esac
_real=
while [ -n "$_path" ]; do
    _real=${_path%%:*}
    _real=${_real:-.}/docker
    _path=${_path#*:}
    [ ! -f "$_real" ] || [ ! -x "$_real" ] || [ "$_real" = "$0" ] || break
    _real=
done
if [ -z "$_real" ]; then
    echo 'docker: not found' >&2
    exit 127
fi

# mounted SPEC: make the source of a `--mount type=bind,...`, a cache mostly: Docker refuses one
# that is not there.
mounted() {
    case ,$1, in *,type=bind,*) ;; *) return ;; esac
    case ,$1 in
        *,src=*) _source=,$1 _source=${_source##*,src=} ;;
        *,source=*) _source=,$1 _source=${_source##*,source=} ;;
        *) return ;;
    esac
    made "${_source%%,*}"
}

# made FOLDER: make what is mounted. Not what looks like a file, nor anything outside of our home,
# nor for an example that lies here anyway: it finds what it would find without us.
made() {
    [ ! -e "$_run/inplace" ] || return 0
    _source=$1
    case ${_source##*/} in ?*.*) return ;; esac
    case $_source in
        "$_run"/* | "${_run%/*/*}/jobs/${_run##*/}"/*) ;;
        "${HOME:-/}"/*) [ -e "$_source" ] || mkdir -p "$_source" ;;
    esac
}

_left=$# _expect=command
while [ "$_left" -gt 0 ]; do
    _word=$1
    shift
    _left=$((_left - 1))
    set -- "$@" "$_word"
    case $_expect:$_word in
        value:*) _expect=command ;;
        command:run | command:create | container:run | container:create)
            set -- "$@" --label "cvl.run=${_run##*/}"
            _expect=options
            ;;
        options:--mount) _expect=mount ;;
        options:--mount=*) mounted "${_word#*=}" ;;
        options:-v | options:--volume) _expect=volume ;;
        options:--volume=*) _word=${_word#*=} && made "${_word%%:*}" ;;
        mount:*)
            mounted "$_word"
            _expect=options
            ;;
        volume:*)
            made "${_word%%:*}" # Docker would make it for root
            _expect=options
            ;;
        command:container) _expect=container ;;
        command:compose)
            true >"$_run/compose-used"
            _expect=nothing
            ;;
        command:-H | command:-c | command:-l | command:-D[Hcl]) _expect=value ;;
        command:--host | command:--context | command:--config | command:--log-level) _expect=value ;;
        command:--tlscacert | command:--tlscert | command:--tlskey) _expect=value ;;
        command:-* | container:-* | options:* | nothing:*) ;;
        *) _expect=nothing ;;
    esac
done
exec "$_real" "$@"
