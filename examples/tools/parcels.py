#!/usr/bin/env python3
"""Offers two tools to an Outpost agent from Python: a counter of parcels that can be read and set.

    pip install paho-mqtt
    examples/tools/parcels.py --host localhost --device desk

The agent's configuration needs the table [tools.mqtt], and a model that can call tools that it was not trained on. The
bundled one is not offered these: call them by name ({"call": {"name": "count_parcels"}} on `ask`), or set
capabilities = "any" in [model]. The tools go when the program ends or its connection is lost.
"""

import argparse
import json
import socket

import paho.mqtt.client as mqtt

parcels = {"count": 0}


def count_parcels():
    return {"data": {"parcels": parcels["count"]}}


def set_parcels(count):
    parcels["count"] = count
    return {"text": f"there are {count} parcels now"}


TOOLS = {
    "count_parcels": (count_parcels, {
        "description": "Count the parcels at the door.",
        "parameters": {"type": "object", "properties": {}},
        "idempotent": True,
    }),
    "set_parcels": (set_parcels, {
        "description": "Correct the number of parcels at the door.",
        "parameters": {
            "type": "object",
            "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["count"],
        },
        "idempotent": True,
    }),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--device", default=socket.gethostname())
    options = parser.parse_args()
    base = f"outpost/{options.device}/tools"
    available = f"{base}/parcels/available"

    def on_connect(client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            raise SystemExit(f"the broker refuses: {reason}")
        for name, (_, definition) in TOOLS.items():
            client.subscribe(f"{base}/{name}/call", qos=1)
            definition = {**definition, "availability": available}
            client.publish(f"{base}/{name}", json.dumps(definition), qos=1, retain=True)
        client.publish(available, "online", qos=1, retain=True)

    def on_message(client, _userdata, message):
        name = message.topic.split("/")[-2]
        call = json.loads(message.payload)
        try:
            result = TOOLS[name][0](**call["arguments"])
        except Exception as fault:  # Whatever goes wrong, the agent is told.
            result = {"error": str(fault)}
        client.publish(f"{base}/{name}/result", json.dumps({"call": call["call"], **result}), qos=1)

    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_message = on_connect, on_message
    # When the connection is lost, the broker says so in our place.
    client.will_set(available, "offline", qos=1, retain=True)
    client.connect(options.host, options.port)
    try:
        client.loop_forever()
    except KeyboardInterrupt:
        for name in TOOLS:
            client.publish(f"{base}/{name}", b"", qos=1, retain=True).wait_for_publish(5)


if __name__ == "__main__":
    main()
