#!/usr/bin/env bash
# Builds the image `cpu`, runs it, gets a transcript from it and stops it: without a registry and without Docker.
# Needs root, buildah, mmdebstrap, and runc or crun; on Debian: apt-get install buildah mmdebstrap runc uidmap.
#   deploy/containers/prove.sh            STATE=/var/tmp/proof keeps the images there
# The image that the Dockerfile starts from is replaced by Debian with the same Python, under the same name.
# pip in the build gets this machine's certificates, and PIP_INDEX_URL if it is set. The last line of the output is
# "proved", or the step that failed; what that step printed is above it.
set -euo pipefail
cd "$(dirname "$0")/../.."
state=${STATE:-$(mktemp -d /var/tmp/voxray-prove.XXXXXX)}
mkdir -p "$state"
certificates=/etc/ssl/certs/ca-certificates.crt
sentence="the weather in paris will be sunny and warm tomorrow"
key=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
step="find what is needed"
container= server= inside=

step() { step=$1; echo "== $1"; }

finish() {
  code=$?
  trap - EXIT
  [ -z "$inside" ] || kill -KILL "$inside" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  [ -z "$container" ] || image rm "$container" >/dev/null 2>&1 || true
  if [ -z "${STATE:-}" ]; then rm -rf "$state"; fi
  if [ "$step" = done ]; then echo "proved"; exit 0; fi
  echo "not proved: could not $step"
  exit $((code ? code : 1)) # a signal leaves the code of what it came after
}
trap finish EXIT

image() { buildah --root "$state/images" --runroot "$state/run" --storage-driver "$driver" "$@"; }

in_container() { # as `docker exec` does it
  nsenter --target "$inside" --mount --pid --net --ipc --uts --root --wd --setuid 10001 --setgid 10001 \
    env -i HOME=/data PATH=/opt/voxray/bin:/usr/bin:/bin VOXRAY_API_KEY="$key" "$@"
}

await() { # SECONDS COMMAND...
  local until=$((SECONDS + $1))
  while ! "${@:2}" >/dev/null 2>&1; do
    [ $SECONDS -lt $until ] && kill -0 "$server" 2>/dev/null || { "${@:2}" || true; return 1; }
    sleep 0.5
  done
}

container_process() { # the first process of the container: the one whose parent is not in its PID namespace
  local pid
  for pid in $(descendants "$server"); do
    if grep -q $'^NSpid:.*\t1$' "/proc/$pid/status" 2>/dev/null; then inside=$pid; return; fi
  done
  return 1
}

descendants() {
  local child
  for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do echo "$child"; descendants "$child"; done
}

step "find what is needed (root, buildah, mmdebstrap, nsenter, runc or crun)"
[ "$(id -u)" = 0 ] || { echo "this needs root"; exit 1; }
for tool in buildah mmdebstrap nsenter; do
  command -v $tool >/dev/null || { echo "$tool is missing"; exit 1; }
done

step "store images (overlay, else vfs)"
for driver in overlay vfs; do
  if container=$(image from scratch) && image mount "$container" >/dev/null; then break; fi
done
image rm "$container" >/dev/null
container=
echo "driver: $driver"

base=$(sed -n 's/^ARG PYTHON=//p' Dockerfile)
if ! image inspect "$base" >/dev/null 2>&1; then
  step "make $base of Debian"
  suite=${base##*-} # python:3.11-slim-bookworm
  mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$state/base.tar"
  container=$(image from scratch)
  image add --quiet "$container" "$state/base.tar" /
  image commit --quiet --format docker "$container" "$base"
  image rm "$container" >/dev/null
  container=
  rm "$state/base.tar"
fi

step "run a command in a container (runc, else crun, with namespaces)"
container=$(image from --pull-never --network none "$base")
for runtime in runc crun; do
  if command -v $runtime >/dev/null && image run --isolation oci --runtime $runtime "$container" -- true; then break; fi
  runtime=
done
image rm "$container" >/dev/null
container=
[ -n "$runtime" ] || { echo "neither runc nor crun can start a container here"; exit 1; }
echo "runtime: $runtime"

step "build the image"
options=(--isolation oci --runtime "$runtime" --network host --format docker --pull-never --layers)
[ ! -e $certificates ] || options+=(--volume "$certificates:$certificates:ro" --build-arg "PIP_CERT=$certificates")
[ -z "${PIP_INDEX_URL:-}" ] || options+=(--build-arg "PIP_INDEX_URL=$PIP_INDEX_URL")
image build --quiet "${options[@]}" --target cpu --tag voxray:cpu . >/dev/null
image images voxray:cpu

step "start the container"
container=$(image from --pull-never --network none --shm-size 512m --cap-drop ALL voxray:cpu)
mapfile -t command < <(image inspect --type image voxray:cpu | python3 -c '
import json, sys
config = json.load(sys.stdin)["Docker"]["config"]
assert config["User"] == "10001" and config["StopSignal"] == "SIGTERM" and config["Healthcheck"], config
print(*config["Entrypoint"], *config["Cmd"], sep="\n")')
echo "command: ${command[*]}"
image run --isolation oci --runtime "$runtime" --env VOXRAY__CHAT__ENGINE=sim --env VOXRAY_API_KEY="$key" \
  "$container" -- "${command[@]}" >"$state/server.log" 2>&1 &
server=$!
await 20 container_process || { cat "$state/server.log"; exit 1; }
container_process

step "wait until /v1/ready answers 200, with the command of HEALTHCHECK"
await 120 in_container python3 /opt/voxray/ready.py 8000 || { cat "$state/server.log"; exit 1; }
cat "$state/server.log"
echo "first process: $(in_container cat /proc/1/cmdline | tr '\0' ' '), user $(in_container id -u)"

step "find the setting of the environment in the server's status"
in_container voxray status --json | python3 -c '
import json, sys
engines = {it["kind"]: it["engine"] for it in json.load(sys.stdin)["engines"]}
print(engines)
assert engines["chat"] == "sim" and engines["transcriber"] == "pocketsphinx"'

step "get a transcript"
in_container voxray say "$sentence" -o /data/speech.wav
words=$(in_container voxray transcribe /data/speech.wav --hotword "$sentence")
echo "transcript: $words"
[ "$words" = "$sentence" ]

step "stop it with SIGTERM, exit code 0"
began=$SECONDS
kill -TERM "$inside"
code=0
wait "$server" || code=$?
server=
echo "exit code $code after $((SECONDS - began)) s"
[ $code = 0 ]
[ ! -e "/proc/$inside" ]
inside=
step=done
