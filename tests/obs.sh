#!/usr/bin/env bash
# OBS Studio in a virtual screen publishes with the settings that `astral publish` prints,
# and a second node plays the stream. Needs root (a network namespace keeps OBS off the
# network) and: obs Xvfb ip ffmpeg, on Debian
#   apt-get install obs-studio obs-plugins xvfb libgl1-mesa-dri libegl1 iproute2 ffmpeg
# Not part of tests/run.sh: it takes half a minute and a core.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${ASTRAL_BIN:-target/debug}
for program in obs Xvfb ip ffmpeg; do
  command -v "$program" >/dev/null || { echo "SKIPPED: $program is not installed"; exit 0; }
done

ns=astral-obs-$$
home=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  ip netns del "$ns" 2>/dev/null || true
  rm -rf "$home"
}
trap finish EXIT
ip netns add "$ns"
ip -n "$ns" link set lo up
inside() { ip netns exec "$ns" "$@"; }
start() { ip netns exec "$ns" "$@" >"$home/$((${#pids[@]})).log" 2>&1 & pids+=($!); }
waits() { # waits SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then echo "FAILED: no $what" >&2; tail -20 "$home"/*.log >&2; exit 1; fi
    sleep 0.3
  done
}

start "$bin/astral-node" --data-dir "$home/a" --http 127.0.0.1:8000 --quic 127.0.0.1:8000
start "$bin/astral-node" --data-dir "$home/b" --http 127.0.0.1:8001 --quic 127.0.0.1:8001 \
  --rtmp off --peer 127.0.0.1:8000
waits 30 "first node" test -s "$home/a/node.json"
waits 30 "second node" test -s "$home/b/node.json"
recipe=$(inside "$bin/astral" --data-dir "$home/a" publish "From OBS")
server=$(awk '$1 == "Server" {print $2}' <<<"$recipe")
key=$(awk '$1 == "Stream" && $2 == "Key" {print $3}' <<<"$recipe")
echo "$recipe" | grep -A3 OBS

obs=$home/.config/obs-studio
mkdir -p "$obs/basic/profiles/Untitled" "$obs/basic/scenes" "$home/rt"
chmod 700 "$home/rt"
cat >"$obs/global.ini" <<INI
[General]
FirstRun=true
LastVersion=486539266
EnableAutoUpdates=false
[Basic]
Profile=Untitled
ProfileDir=Untitled
SceneCollection=Untitled
SceneCollectionFile=Untitled
INI
cat >"$obs/basic/profiles/Untitled/basic.ini" <<INI
[General]
Name=Untitled
[Video]
BaseCX=640
BaseCY=360
OutputCX=640
OutputCY=360
FPSCommon=30
[Output]
Mode=Simple
[SimpleOutput]
VBitrate=1000
StreamEncoder=x264
UseAdvanced=true
Preset=ultrafast
INI
cat >"$obs/basic/profiles/Untitled/service.json" <<JSON
{"type":"rtmp_custom","settings":{"server":"$server","key":"$key","use_auth":false}}
JSON
cat >"$obs/basic/scenes/Untitled.json" <<JSON
{"name":"Untitled","current_scene":"Scene","current_program_scene":"Scene",
 "scene_order":[{"name":"Scene"}],
 "sources":[{"id":"scene","name":"Scene","settings":{"items":[{"name":"Colour","id":1,"visible":true}]}},
            {"id":"color_source_v3","name":"Colour","settings":{"color":4278255360,"width":640,"height":360}}]}
JSON
export HOME=$home XDG_CONFIG_HOME=$home/.config XDG_RUNTIME_DIR=$home/rt LIBGL_ALWAYS_SOFTWARE=1
start Xvfb :96 -screen 0 1280x720x24
export DISPLAY=:96
start timeout -k 3 90 obs --startstreaming --minimize-to-tray --multi --disable-updater --disable-shutdown-check

api=http://127.0.0.1
live() { inside curl -sf "$api:8001/api/v1/streams/from-obs" | grep -q '"state":"live"'; }
waits 60 "live stream at the second node" live
play() { # as a viewer would: five seconds, decoded
  inside ffmpeg -nostdin -v error -t 5 -i "$api:8001/live/from-obs/$1" -f framecrc - |
    awk -F, '!/^#/ {n[$1]++} END {print n["0"]+0, n["1"]+0; exit !(n["0"] > 100 && n["1"] > 150)}'
}
for file in stream.mp4 stream.ts; do
  counts=$(play "$file") || { echo "FAILED: $file: $counts" >&2; exit 1; }
  echo "OBS → node → node → $file: $counts pictures and sounds decoded"
done
inside curl -sf "$api:8001/api/v1/streams/from-obs" | grep -o '"tracks":\[[^]]*\]'
echo "OBS: passed"
