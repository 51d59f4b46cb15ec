"""Spoken commands of a home and the tool calls they mean, as random sentences.

A phrasing is a pattern with slots; `|` separates alternatives inside brackets, an empty one makes it optional.
Sentences are split for good into training and held-out ones by a hash of their words, so that an evaluation never
meets a sentence of the training set, whatever the seed.
"""

import json
import random
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from small_talk import small_talk

TOOLS = json.loads((Path(__file__).parent.parent / "tools.json").read_text())
TOOL_NAMES = [tool["name"] for tool in TOOLS]
ROOMS = ["kitchen", "bedroom", "bathroom", "hallway", "garage", "office", "garden", "living room"]
DOORS = ["front", "back", "garage"]
COMMON_WORDS = 4000
_SHORT = "a i am an as at be by do go he if in is it me my no of oh on or so to up us we".split()
HELD_OUT_SHARE = 12  # one sentence in so many is never trained on

_UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""".split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()


@dataclass
class Utterance:
    text: str
    calls: list  # of {"name", "arguments"}; empty where no tool fits
    kind: str  # the tool's name, "double" or "none"


def number(n, rng=None):
    if n == 100:
        return "a hundred" if rng and rng.random() < 0.5 else "one hundred"
    if n < 20:
        return _UNITS[n]
    return _TENS[n // 10] + (f" {_UNITS[n % 10]}" if n % 10 else "")


# Commands ("turn on ...") take any politeness, fragments ("lights on") only a little, questions another kind.
COMMAND, FRAGMENT, QUESTION = "command", "fragment", "question"
_BEFORE = {
    COMMAND: """please;hey;could you;can you;would you;could you please;can you please;hey can you;ok;um;uh;well;now;so;
        hi could you;i would like you to;will you;okay now;hey please;i want you to;just;go ahead and;hello please""",
    FRAGMENT: "please;hey;um;uh;ok;well;now;hello;so",
    QUESTION: "please tell me;hey;um;uh;ok;can you tell me;tell me;so;excuse me;well",
}
_AFTER = {
    COMMAND: "please;now;thanks;thank you;right now;for me;please;right away;if you can;again",
    FRAGMENT: "please;now;thanks;thank you;right now",
    QUESTION: "please;there;now",
}
_BEFORE = {k: [s.strip() for s in v.split(";")] for k, v in _BEFORE.items()}
_AFTER = {k: [s.strip() for s in v.split(";")] for k, v in _AFTER.items()}

LIGHT = {
    COMMAND: """turn {state} the {room} light[|s]; turn the {room} light[|s] {state}; switch {state} the {room} light[|s];
        switch the {room} light[|s] {state}; turn {state} the light[|s] in the {room}; put the {room} light[|s] {state};
        turn the light[|s] {state} in the {room}; switch {state} the light[|s] in the {room};
        turn {state} the lamp in the {room}; turn the {room} lamp {state}; get the {room} light[|s] {state}""",
    FRAGMENT: """{room} light[|s] {state}; light[|s] {state} in the {room}; {room} lamp {state};
        [i want|i need] the {room} light[|s] {state}; the light[|s] in the {room} should be {state}""",
}
LIGHT_ON = {COMMAND: "light up the {room}; give me some light in the {room}; make it bright in the {room}"}
LIGHT_OFF = {COMMAND: "kill the light[|s] in the {room}; make it dark in the {room}; shut off the {room} light[|s]"}
BRIGHTNESS = {
    COMMAND: """set the {room} light[|s] to {n}; dim the {room} light[|s] to {n}; brighten the {room} light[|s] to {n};
        turn the {room} light[|s] [up|down] to {n}; set the light[|s] in the {room} to {n}; put the {room} light[|s] at {n};
        make the {room} light[|s] {n} bright; set the brightness in the {room} to {n}; change the {room} light[|s] to {n};
        dim the light[|s] in the {room} to {n}; turn {on} the {room} light[|s] at {n}""",
    FRAGMENT: "{room} light[|s] at {n}; {n} light in the {room}; {room} brightness {n}; i want the {room} light[|s] at {n}",
}
TEMPERATURE = {
    COMMAND: """set the temperature to {c}; set the thermostat to {c}; make it {c}; turn the heating to {c};
        change the temperature to {c}; put the thermostat on {c}; turn the temperature [up|down] to {c};
        heat the house to {c}; warm it up to {c}; cool it down to {c}""",
    FRAGMENT: "temperature {c}; thermostat {c}; {c} please; i want it {c}; heating to {c}; the temperature should be {c}",
}
ROOM_TEMPERATURE = {
    COMMAND: """make the {room} {c}; set the {room} to {c}; set the temperature in the {room} to {c}; heat the {room} to {c};
        set the {room} temperature to {c}; cool the {room} to {c}; warm the {room} up to {c}; make it {c} in the {room};
        change the {room} to {c}; turn the heating in the {room} to {c}; bring the {room} to {c}""",
    FRAGMENT: "{c} in the {room}; {room} {c}; {room} temperature {c}; i want the {room} at {c}; i want it {c} in the {room}",
}
TIMER = {
    COMMAND: """set a timer for {m}; start a timer for {m}; start a {mm} timer; set a {mm} timer; count down {m};
        remind me in {m}; wake me in {m}; give me {m} on the timer; set the timer to {m}; start the timer for {m};
        tell me when {m} are over; let me know in {m}; put {m} on the timer; make a timer for {m}; time {m}""",
    FRAGMENT: "timer {m}; timer for {m}; {m} timer; new timer {m}; a {mm} timer; i need a timer for {m}; i need a {mm} timer",
}
LOCK = {
    COMMAND: """lock the {door} door; lock up the {door} door; make sure the {door} door is locked; secure the {door} door;
        keep the {door} door locked; bolt the {door} door; get the {door} door locked; put the lock on the {door} door;
        have the {door} door locked""",
    FRAGMENT: "{door} door locked; i want the {door} door locked; the {door} door should be locked; lock {door} door",
}
UNLOCK = {
    COMMAND: """unlock the {door} door; make sure the {door} door is unlocked; leave the {door} door unlocked;
        unbolt the {door} door; get the {door} door unlocked; undo the lock on the {door} door; unlock the {door} door;
        take the lock off the {door} door""",
    FRAGMENT: "{door} door unlocked; i want the {door} door unlocked; the {door} door should be unlocked; unlock {door} door",
}
BLINDS_OPEN = {
    COMMAND: """open the blinds in the {room}; open the {room} blinds; raise the {room} blinds; raise the blinds in the {room};
        pull up the {room} blinds; pull the blinds up in the {room}; put the {room} blinds up; lift the {room} blinds;
        roll up the blinds in the {room}; let some sun into the {room}; open up the blinds in the {room}""",
    FRAGMENT: "{room} blinds [open|up]; blinds [open|up] in the {room}; i want the {room} blinds open; {room} blinds should be open",
}
BLINDS_CLOSED = {
    COMMAND: """close the blinds in the {room}; close the {room} blinds; lower the {room} blinds; lower the blinds in the {room};
        pull down the {room} blinds; pull the blinds down in the {room}; put the {room} blinds down; shut the {room} blinds;
        roll down the blinds in the {room}; draw the blinds in the {room}; shut the blinds in the {room}""",
    FRAGMENT: """{room} blinds [closed|down]; blinds [closed|down] in the {room}; i want the {room} blinds closed;
        {room} blinds should be closed""",
}
MEDIA = {
    "play": {
        COMMAND: """play the music; play some music; start the music; put on some music; play a song; resume the music;
            continue the music; keep playing; start playing music; turn on the music; turn the music on; let the music play""",
        FRAGMENT: "music on; i want to hear some music; some music; i would like some music; play",
    },
    "pause": {
        COMMAND: "pause the music; pause the song; pause the player; hold the music; pause this song; pause playback; pause this",
        FRAGMENT: "pause; music pause; pause now; pause it",
    },
    "next": {
        COMMAND: """skip this song; play the next song; go to the next song; skip to the next track; play another song;
            skip this track; skip this one; play the next track; go to the next track; move on to the next song""",
        FRAGMENT: "next song; next track; next; skip; another song; next one; the next song",
    },
    "previous": {
        COMMAND: """play the previous song; go back to the previous song; go back one song; play the previous track;
            go to the previous track; go back to the last song; skip back one song; play the song before this one""",
        FRAGMENT: "previous song; previous track; previous; back to the previous song; one song back; the previous song",
    },
    "stop": {
        COMMAND: """stop the music; stop the song; stop playing; turn off the music; turn the music off; end the music;
            stop playback; stop this song; shut off the music; switch off the music""",
        FRAGMENT: "music off; no more music; stop; stop it; i want the music to stop",
    },
}
VOLUME = {
    COMMAND: """set the volume to {n}; turn the volume [up|down] to {n}; make the volume {n}; change the volume to {n};
        put the volume at {n}; turn it [up|down] to {n}; set the sound to {n}; put the volume on {n}; bring the volume to {n};
        turn the music [up|down] to {n}""",
    FRAGMENT: "volume {n}; volume at {n}; volume to {n}; sound at {n}; i want the volume at {n}; music volume {n}; the volume should be {n}",
}
MUTE = {COMMAND: "mute the sound; mute the music; mute the volume; mute it", FRAGMENT: "mute; sound off; no sound"}
FULL_VOLUME = {COMMAND: "turn the volume all the way up; set full volume; go to full volume", FRAGMENT: "full volume; maximum volume"}
READ = {
    COMMAND: """read the {thing}; read this; read it; read the text; read this for me; read what is on the {thing};
        look at the {thing} and read it; read that {thing}; read out the {thing}; read this {thing} to me; read aloud the {thing}""",
    QUESTION: """what does the {thing} say; what does it say; what does that say; what is written there; what is written here;
        what is written on the {thing}; what does this {thing} say; what is on the {thing}; what text do you see;
        what can you read; what does the text say; what do you read on the {thing}; what does that {thing} say""",
}
THINGS = """sign;label;display;number plate;door plate;screen;note;box;package;plate;paper;card;bottle;poster;board;
    tag""".replace("\n    ", "").split(";")


def _patterns(table):
    return [(style, " ".join(p.split())) for style, text in table.items() for p in text.split(";")]


def _fill(rng, table, slots):
    """A sentence of the table with its slots filled; (text, style)."""
    style, pattern = rng.choice(_patterns(table))
    text = re.sub(r"\[([^]]*)\]", lambda m: rng.choice(m.group(1).split("|")), pattern)
    return re.sub(r"\{(\w+)\}", lambda m: slots[m.group(1)], text), style


def _percent(rng, n):
    if n == 50 and rng.random() < 0.15:
        return "half"
    return number(n, rng) + (" percent" if rng.random() < 0.85 else "")


def _light(rng):
    room, state = rng.choice(ROOMS), rng.choice(["on", "off"])
    arguments = {"room": room.replace(" ", "_"), "state": state}
    if rng.random() < 0.42:
        n = 10 * rng.randint(1, 10)
        arguments |= {"state": "on", "brightness": n}
        text = "half" if n == 50 and rng.random() < 0.15 else f"{number(n, rng)} percent"
        return _fill(rng, BRIGHTNESS, {"room": room, "n": text, "on": "on"}), arguments
    table = LIGHT
    if rng.random() < 0.12:
        table = LIGHT_ON if state == "on" else LIGHT_OFF
    return _fill(rng, table, {"room": room, "state": state}), arguments


def _temperature(rng):
    celsius, room = rng.randint(10, 30), rng.choice(ROOMS)
    words = number(celsius) + rng.choice([" degrees"] * 6 + ["", " celsius", " degrees celsius"])
    if rng.random() < 0.5:
        return _fill(rng, TEMPERATURE, {"c": words}), {"celsius": celsius}
    return _fill(rng, ROOM_TEMPERATURE, {"c": words, "room": room}), {"celsius": celsius, "room": room.replace(" ", "_")}


def _timer(rng):
    minutes = rng.randint(1, 60)
    spoken = number(minutes) + (" minutes" if minutes > 1 else " minute")
    if minutes in (15, 30, 60) and rng.random() < 0.4:
        spoken = {15: "a quarter of an hour", 30: "half an hour", 60: rng.choice(["an hour", "one hour"])}[minutes]
    return _fill(rng, TIMER, {"m": spoken, "mm": f"{number(minutes)} minute"}), {"minutes": minutes}


def _lock(rng):
    door, locked = rng.choice(DOORS), rng.random() < 0.5
    return _fill(rng, LOCK if locked else UNLOCK, {"door": door}), {"door": door, "locked": locked}


def _blinds(rng):
    room, is_open = rng.choice(ROOMS), rng.random() < 0.5
    arguments = {"room": room.replace(" ", "_"), "position": "open" if is_open else "closed"}
    return _fill(rng, BLINDS_OPEN if is_open else BLINDS_CLOSED, {"room": room}), arguments


def _media(rng):
    action = rng.choice(list(MEDIA))
    return _fill(rng, MEDIA[action], {}), {"action": action}


def _volume(rng):
    level, chance = 10 * rng.randint(0, 10), rng.random()
    if chance < 0.08:
        level, table = (0, MUTE) if chance < 0.05 else (100, FULL_VOLUME)
        return _fill(rng, table, {}), {"level": level}
    return _fill(rng, VOLUME, {"n": _percent(rng, level)}), {"level": level}


def _read(rng):
    return _fill(rng, READ, {"thing": rng.choice(THINGS)}), {}


_MAKERS = dict(zip(TOOL_NAMES, (_light, _temperature, _timer, _lock, _blinds, _media, _volume, _read)))
_WEIGHTS = dict(zip(TOOL_NAMES, (4, 3, 3, 2, 2.5, 2.5, 2, 1.7)))


def _polite(rng, text, style):
    before = rng.choice(_BEFORE[style]) if rng.random() < 0.4 else ""
    after = rng.choice(_AFTER[style]) if rng.random() < 0.2 else ""
    if after and text.endswith(after):
        after = ""
    return " ".join(f"{before} {text} {after}".split())


def command(rng, tool):
    """A sentence that means one call of the tool."""
    (text, style), arguments = _MAKERS[tool](rng)
    return Utterance(_polite(rng, text, style), [{"name": tool, "arguments": arguments}], tool)


def double(rng):
    """Two commands in one sentence."""
    parts = []
    while len(parts) < 2:
        tool = rng.choice(TOOL_NAMES[:-1])
        (text, style), arguments = _MAKERS[tool](rng)
        if style == COMMAND:
            parts.append((text, {"name": tool, "arguments": arguments}))
    joined = rng.choice([" and ", " and ", " and then ", " then "]).join(text for text, _ in parts)
    return Utterance(joined, [call for _, call in parts], "double")


def is_held_out(text):
    return zlib.crc32(text.encode()) % HELD_OUT_SHARE == 0


def utterances(seed, held_out=False, none_share=0.22, double_share=0.03, tools=None):
    """Endless random utterances of one side of the split."""
    rng, names = random.Random(seed), tools or TOOL_NAMES
    weights = [_WEIGHTS[name] for name in names]
    while True:
        chance = rng.random()
        if chance < none_share:
            item = Utterance(small_talk(rng), [], "none")
        elif chance < none_share + double_share:
            item = double(rng)
        else:
            item = command(rng, rng.choices(names, weights)[0])
        if is_held_out(item.text) == held_out:
            yield item


def word_strings(seed):
    """Endless utterances of common English words in no order: to be written down, not to be acted upon.

    They are for the ear: without them, words that are in no command are heard as those that are.
    """
    import wordfreq

    rng = random.Random(seed)
    words = [w for w in wordfreq.top_n_list("en", COMMON_WORDS) if w.isascii() and w.isalpha() and (len(w) > 2 or w in _SHORT)]
    weights = [(rank + 20) ** -0.5 for rank in range(len(words))]
    while True:
        item = Utterance(" ".join(rng.choices(words, weights, k=rng.randint(3, 8))), [], "words")
        if not is_held_out(item.text):
            yield item


def offered(rng):
    """The tools of a prompt: often all, else some, in the file's order; never none."""
    if rng.random() < 0.35:
        return list(TOOLS)
    count = rng.randint(1, len(TOOLS) - 1)
    kept = sorted(rng.sample(range(len(TOOLS)), count))
    return [TOOLS[i] for i in kept]


def expected(item, tools):
    """The calls that are right where only these tools are offered."""
    names = {tool["name"] for tool in tools}
    return [call for call in item.calls if call["name"] in names]
