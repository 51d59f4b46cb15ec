#!/bin/sh
# Offers a tool to an Outpost agent with nothing but mosquitto's clients: how long this machine has been up.
#
#   examples/tools/uptime.sh HOST PORT DEVICE
#
# DEVICE is mqtt.device of the agent; left out, this machine's name.
# The agent's configuration needs the table [tools.mqtt], and a model that can call tools that it was not trained on. The bundled
# one is not offered this tool: call it by name ({"call": {"name": "uptime", ...}} on `ask`), or set capabilities = "any" in
# [model]. The tool goes when the script ends.
set -eu

host=${1:-localhost} port=${2:-1883} device=${3:-$(uname -n)}
topic="outpost/$device/tools/uptime"

say() {
    mosquitto_pub -h "$host" -p "$port" -q 1 "$@"
}

offer() {
    say -r -t "$topic" -m '{
        "description": "Tell how long a machine has been up.",
        "parameters": {"type": "object", "properties": {"unit": {"enum": ["minutes", "hours"]}}, "required": ["unit"]},
        "availability": "'"$topic"'/available",
        "timeout_seconds": 10,
        "idempotent": true
    }'
}

# The value of a text in a flat piece of JSON; enough for ids and names, and for nothing else.
text() {
    printf '%s' "$2" | sed -n 's/.*"'"$1"'" *: *"\([A-Za-z0-9_-]*\)".*/\1/p'
}

answer() {
    up=$(cut -d. -f1 /proc/uptime)
    case $(text unit "$1") in
        minutes) result="\"text\": \"up for $((up / 60)) minutes\"" ;;
        hours) result="\"text\": \"up for $((up / 3600)) hours\"" ;;
        *) result='"error": "use minutes or hours"' ;;
    esac
    say -t "$topic/result" -m "{\"call\": \"$(text call "$1")\", $result}"
}

withdraw() {
    kill "$listener" 2>/dev/null || true
    say -r -t "$topic" -n
    say -r -t "$topic/available" -n
    rm -rf "$folder"
}

folder=$(mktemp -d)
mkfifo "$folder/heard"
exec 3<>"$folder/heard"
# When the connection is lost, the broker says `offline` in our place, and the agent withdraws the tool.
mosquitto_sub -h "$host" -p "$port" -q 1 -t "$topic/call" -t "$topic/available" -F '%t %p' \
    --will-topic "$topic/available" --will-payload offline --will-qos 1 --will-retain >&3 &
listener=$!
trap withdraw EXIT
trap 'exit 0' INT TERM
say -r -t "$topic/available" -m online

# Our own `online` comes back once we are subscribed: only then calls can be heard.
while read -r from message <&3; do
    case "$from $message" in
        "$topic/available online") offer ;;
        "$topic/available offline") say -r -t "$topic/available" -m online ;;
        "$topic/call "*) answer "$message" ;;
    esac
done
