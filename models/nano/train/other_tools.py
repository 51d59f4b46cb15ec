"""The tools of a prompt as homes really have them: some of the bundled ones, in any order and wording, among others."""

from grammar import TOOLS

ROOM = {"description": "Room", "type": "str"}
_OTHERS = [
    ("raise_alert", "Raise an alert.", {"message": {"description": "What happened", "type": "str"}}),
    ("read_sensor", "Read a sensor of the board.", {"sensor": {"description": "Sensor", "type": "str", "enum": ["temperature", "humidity", "door"]}}),
    ("set_actuator", "Set an actuator of the board.", {"actuator": {"description": "Actuator", "type": "str"}, "value": {"description": "0 to 100", "type": "int"}}),
    ("remember", "Remember a fact.", {"key": {"description": "Name", "type": "str"}, "value": {"description": "Fact", "type": "str"}}),
    ("recall", "Recall a fact.", {"key": {"description": "Name", "type": "str"}}),
    ("schedule", "Call a tool later.", {"tool": {"description": "Tool", "type": "str"}, "at": {"description": "Time", "type": "str"}}),
    ("list_schedule", "List what is scheduled.", {}),
    ("publish", "Publish an MQTT message.", {"topic": {"description": "Topic", "type": "str"}, "payload": {"description": "Payload", "type": "str"}}),
    ("http_request", "Send an HTTP request.", {"url": {"description": "Address", "type": "str"}, "method": {"description": "Method", "type": "str", "enum": ["GET", "POST"]}}),
    ("set_fan", "Set the speed of a fan.", {"room": ROOM, "speed": {"description": "0 to 3", "type": "int"}}),
    ("make_coffee", "Make a coffee.", {"strength": {"description": "Strength", "type": "str", "enum": ["mild", "strong"], "optional": True}}),
    ("start_vacuum", "Start the robot vacuum cleaner.", {"room": ROOM | {"optional": True}}),
    ("dock_vacuum", "Send the robot vacuum cleaner home.", {}),
    ("open_gate", "Open the gate.", {}),
    ("close_gate", "Close the gate.", {}),
    ("set_alarm", "Set an alarm clock.", {"time": {"description": "HH:MM", "type": "str"}}),
    ("get_weather", "Weather forecast.", {"city": {"description": "City", "type": "str", "optional": True}}),
    ("get_time", "The time of day.", {}),
    ("send_message", "Send a message to a person.", {"to": {"description": "Person", "type": "str"}, "text": {"description": "Message", "type": "str"}}),
    ("water_plants", "Water the plants.", {"minutes": {"description": "Minutes", "type": "int"}}),
    ("set_scene", "Activate a scene.", {"scene": {"description": "Scene", "type": "str", "enum": ["evening", "movie", "party", "sleep"]}}),
    ("lock_car", "Lock or unlock the car.", {"locked": {"description": "True to lock", "type": "bool"}}),
    ("set_colour", "Set the colour of a lamp.", {"room": ROOM, "colour": {"description": "Colour", "type": "str"}}),
    ("take_picture", "Take a picture.", {}),
    ("play_radio", "Play a radio station.", {"station": {"description": "Station", "type": "str"}}),
    ("add_to_list", "Add something to the shopping list.", {"item": {"description": "Item", "type": "str"}}),
    ("turn_on_device", "Turn a device on.", {"device": {"description": "Device", "type": "str"}}),
    ("window_state", "Whether a window is open.", {"window": {"description": "Window", "type": "str"}}),
]
OTHERS = [{"name": n, "description": d, "parameters": p} for n, d, p in _OTHERS]
_WORDINGS = {
    "set_light": ["Turn a light on or off, or dim it.", "Control the lights of a room."],
    "set_temperature": ["Set the thermostat.", "Heat or cool, to so many degrees."],
    "start_timer": ["Count down a number of minutes.", "Set a timer."],
    "set_lock": ["Lock a door or unlock it.", "Control a door's lock."],
    "set_blinds": ["Raise or lower the blinds.", "Control the blinds of a room."],
    "play_media": ["Play, pause, skip or stop music.", "Control the player."],
    "set_volume": ["Set how loud the music is.", "Change the volume."],
    "read_camera": ["What the sign in front of the camera says.", "Read a sign or a label."],
}


def _made_up(rng):
    """A tool of a random name, so that none of the others is learnt by heart."""
    part = lambda: "".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))  # noqa: E731
    name, kinds = f"{rng.choice(['set', 'get', 'start', 'stop', 'open', 'run', 'toggle', 'read'])}_{part()}", ["str", "int", "bool"]
    parameters = {part(): {"description": part().capitalize(), "type": rng.choice(kinds)} for _ in range(rng.randint(0, 2))}
    return {"name": name, "description": f"{part().capitalize()} {part()} {part()}.", "parameters": parameters}


def offered(rng):
    """The tools of a prompt: in a third of the cases the bundled ones alone, as they are; never without any of these."""
    if (chance := rng.random()) < 0.34:
        return list(TOOLS)
    kept = list(TOOLS) if chance < 0.6 else [TOOLS[i] for i in sorted(rng.sample(range(len(TOOLS)), rng.randint(1, len(TOOLS) - 1)))]
    if rng.random() < 0.3:
        kept = [tool | {"description": rng.choice([tool["description"], *_WORDINGS[tool["name"]]])} for tool in kept]
    if rng.random() < 0.6:
        count = rng.choice([1, 1, 2, 3, 4])
        kept += [rng.choice(OTHERS) if rng.random() < 0.75 else _made_up(rng) for _ in range(count)]
        kept = list({tool["name"]: tool for tool in kept}.values())
    if rng.random() < 0.4:
        rng.shuffle(kept)
    return kept
