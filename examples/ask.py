#!/usr/bin/env python3
"""Asks an Outpost agent something and prints its answer and the tools that it called.

    pip install paho-mqtt
    examples/ask.py --host localhost --device desk "turn on the kitchen light"

Ends with 0 after an answer, 1 after an error, 2 if the agent stays busy, 3 if nobody answers in time. With --mqtt 5 (broker and agent
have to speak it) the answer comes on the response topic reply/USER/DEVICE; with 3.1.1, as the embedded broker speaks it, on the
agent's `answer`, where everybody's answers are and ours is the one with our transaction.
"""

import argparse
import json
import queue
import socket
import sys
import time
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Busy(Exception):
    """The agent took nothing: the same can be asked again."""


class Agent:
    """A connection to an agent."""

    def __init__(self, options):
        self.base = f"outpost/{options.device}"
        self.is_5 = options.mqtt == "5"
        self.reply = f"reply/{options.user}/{options.device}" if self.is_5 else f"{self.base}/answer"
        self.answers = queue.Queue(maxsize=100)
        self.subscribed = queue.Queue(maxsize=1)
        version = mqtt.MQTTv5 if self.is_5 else mqtt.MQTTv311
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=version)
        self.client.username_pw_set(options.user, options.password)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = lambda *_: self.subscribed.put(True)
        self.client.on_message = lambda _client, _userdata, message: self.answers.put(message)
        self.client.connect(options.host, options.port)
        self.client.loop_start()
        self.subscribed.get(timeout=options.seconds)

    def on_connect(self, client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            sys.exit(f"the broker refuses: {reason}")
        client.subscribe(self.reply, qos=1)

    def ask(self, text, transaction, seconds):
        """The answer to a question. Under the same transaction nothing is done twice."""
        properties = None
        if self.is_5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic = self.reply
        question = json.dumps({"prompt": text, "transaction": transaction})
        self.client.publish(f"{self.base}/ask", question, qos=1, properties=properties)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = json.loads(self.answers.get(timeout=left).payload)
            except queue.Empty:
                break
            if answer.get("transaction") != transaction:
                continue
            if "busy" in answer.get("error", ""):
                raise Busy(answer["error"])
            return answer
        raise TimeoutError(f"no answer on {self.reply} within {seconds} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--device", default=socket.gethostname())
    parser.add_argument("--user", default="program")
    parser.add_argument("--password")
    parser.add_argument("--mqtt", choices=["3.1.1", "5"], default="3.1.1")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()

    agent = Agent(options)
    transaction = str(uuid.uuid4())
    fault = None
    for pause in [1, 2, 4, 0]:
        try:
            answer = agent.ask(options.text, transaction, options.seconds)
        except Busy as busy:
            fault = busy
            time.sleep(pause)
            continue
        except TimeoutError as late:
            print(late, file=sys.stderr)
            return 3
        if "error" in answer:
            print(answer["error"], file=sys.stderr)
            return 1
        print(answer["text"], *answer["calls"])
        return 0
    print(fault, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
