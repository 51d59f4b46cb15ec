#!/bin/sh
# Asks an Outpost agent something with nothing but mosquitto's clients, and prints its answer.
#
#   examples/ask.sh [-h HOST] [-p PORT] [-d DEVICE] [-u USER] [-P PASSWORD] [-s SECONDS] TEXT
#
# Ends with 0 after an answer, 1 after an error, 2 if the agent stays busy, 3 if nobody answers in time.
#
# The answer comes on the response topic reply/USER/DEVICE, so that other people's answers are none of ours; broker and agent have to
# speak MQTT 5 for that (mqtt.version = "5"). examples/ask.py does without.
set -eu

host=localhost port=1883 device=$(uname -n) user=program password= seconds=60
while getopts h:p:d:u:P:s: option; do
    case $option in
        h) host=$OPTARG ;;
        p) port=$OPTARG ;;
        d) device=$OPTARG ;;
        u) user=$OPTARG ;;
        P) password=$OPTARG ;;
        s) seconds=$OPTARG ;;
        *) exit 64 ;;
    esac
done
shift $((OPTIND - 1))
text=$(printf '%s' "${1:?what to ask?}" | sed 's/[\\"]/\\&/g')

# Of its own for each question: when it is sent again, nothing is done twice.
transaction=$(cat /proc/sys/kernel/random/uuid)

ask() {
    mosquitto_rr -V 5 -h "$host" -p "$port" -u "$user" ${password:+-P "$password"} -q 1 -W "$seconds" \
        -t "outpost/$device/ask" -e "reply/$user/$device" \
        -m "{\"prompt\": \"$text\", \"transaction\": \"$transaction\"}"
}

# A text in the answer, which is JSON. Of its escapes only quotes and backslashes are undone.
text_of() {
    printf '%s\n' "$answer" | sed -n 's/.*"'"$1"'": *"\(\([^"\\]\|\\.\)*\)".*/\1/p' | sed 's/\\\(["\\]\)/\1/g'
}

for pause in 1 2 4 0; do
    answer=$(ask 2>/dev/null) || answer=
    if [ -z "$answer" ]; then
        echo "no answer from $device within $seconds s" >&2
        exit 3
    fi
    error=$(text_of error)
    case $error in
        '') text_of text; exit 0 ;;
        # Refused before anything was done: it can be sent again as it is.
        *busy*) sleep "$pause" ;;
        *) echo "$error" >&2; exit 1 ;;
    esac
done
echo "$error" >&2
exit 2
