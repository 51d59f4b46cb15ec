"""Sentences that sound or look like commands and are none, and the English of everything else.

`near_miss`: the words of the home in talk, questions, denials and commands that lack what a call needs.
`jumble`: the words of the commands in no order. `english`: lines of the texts that Debian's package `fortunes` carries.
"""

import functools
import re
import zlib
from pathlib import Path

from grammar import _BEFORE, COMMON_WORDS, DOORS, FRAGMENT, ROOMS, THINGS, is_held_out, number
from small_talk import _WORDS

FORTUNES = Path("/usr/share/games/fortunes")
_FILES = """computers cookie education food fortunes kids law literature love medicine miscellaneous news people pets platitudes
    politics riddles science sports wisdom work""".split()

_NEAR = """
did you lock the {door} door; who locked the {door} door; is the {door} door locked; was the {door} door unlocked; {who} locked the {door} door;
i locked the {door} door {day}; the {door} door is locked; the {door} door is unlocked; the {door} door was open all night; do not lock the {door} door;
do not unlock the {door} door; never unlock the {door} door; why is the {door} door unlocked; the lock of the {door} door is {quality};
we need a new lock for the {door} door; there is no lock on the {door} door; how do i lock the {door} door; can you see the {door} door;
the {door} door; somebody knocked on the {door} door; meet me at the {door} door; paint the {door} door {colour}; lock the door; unlock the door;
the {room} light is {quality}; the {room} lights are {quality}; i like the {room} light; is the {room} light on; are the lights on in the {room};
is the light off in the {room}; did you turn off the {room} light; did you turn on the lights in the {room}; who turned on the {room} light;
{who} left the {room} light on; do not turn on the {room} light; do not turn off the lights in the {room}; the {room} light was on {day};
the light in the {room} is broken; why is the {room} light on; how bright is the {room} light; a {colour} light in the {room} would be {quality};
turn on; turn off the; turn it on; turn it off; turn on the light; turn off the lights; switch on; the {room} light; lights; light;
i turned off the {room} light; we turned the lights on in the {room}; what does the {room} light cost; buy a lamp for the {room};
it was {n} degrees in the {room}; the {room} is {n} degrees; the {room} was {n} degrees {day}; how warm is the {room}; is it {n} degrees in the {room};
why is it {n} degrees in the {room}; the temperature in the {room} was {n} degrees; the thermostat is {quality}; set the temperature;
the thermostat shows {n} degrees; water boils at one hundred degrees; it will be {n} degrees {day}; do not heat the {room}; who set the thermostat to {n};
the timer is over; who started the timer; the timer was for {n} minutes; is there a timer for {n} minutes; start a timer; set a timer; stop the timer;
cancel the {n} minute timer; do not start a timer; how many minutes are left; {n} minutes ago; it takes {n} minutes; {n} minutes is too long;
we waited {n} minutes; the egg timer is {quality}; that took {n} minutes; in {n} minutes {who} will be here; pause the timer;
the blinds in the {room} are {quality}; the {room} blinds are open; the {room} blinds are closed; are the {room} blinds open; did you close the blinds in the {room};
who opened the {room} blinds; do not open the blinds in the {room}; do not close the {room} blinds; {who} closed the blinds in the {room}; open the {room};
why are the {room} blinds closed; i opened the blinds {day}; the {room} blinds need cleaning; how do i open the {room} blinds; close the {room}; blinds;
the music is {quality}; who plays this song; is the music on; did you stop the music; do not stop the music; do not play this song again;
{who} stopped the music; the next song is {quality}; the previous song was {quality}; i played the song {day}; what is the next song; is this the last song;
the volume is {n} percent; the volume was at {n}; is the volume {n}; what is the volume; who turned the volume up; do not turn the volume up; set the volume;
turn up the; the volume; how loud is the music; i said the volume was {quality}; {n} percent of people like music; {n} percent; {n} degrees outside; {n};
the {thing} is {colour}; who wrote the {thing}; i lost the {thing}; is there a {thing}; the {thing} in the {room} is {quality}; where is the {thing};
do not read the {thing}; i read the {thing} {day}; {who} read the {thing} to me; buy a {thing}; put the {thing} in the {room}; give me the {thing};
{who} is in the {room}; {who} went to the {room}; go to the {room}; the {room}; the {room} and the {other}; between the {room} and the {other};
from the {room} to the {other}; there are {n} people in the {room}; clean the {room} {day}; i will be in the {room} in {n} minutes; the {room} is dark;
there was light in the {room}; {who} said turn on the {room} light; he said lock the {door} door; the manual says to set the volume to {n};
she asked me to open the {room} blinds {day}; i would never lock the {door} door; tomorrow we lock the {door} door; if only the {room} light was on
"""
NEAR = [" ".join(s.split()) for s in _NEAR.split(";")]
NEAR_HELD_OUT = [s for s in NEAR if zlib.crc32(s.encode()) % 8 == 0]  # whole patterns, never trained on
NEAR_TRAINED = [s for s in NEAR if s not in NEAR_HELD_OUT]
_COMMAND_WORDS = """turn on off switch light lights the the in set to dim temperature degrees make it timer for minutes start lock unlock front back
    door garage kitchen bedroom bathroom hallway office garden living room open close blinds play pause music song next previous stop volume
    percent read sign label what does say please could you twenty thirty five ten fifty one up down""".split()


def near_miss(rng, held_out=False):
    words = {name: (lambda name=name: rng.choice(_WORDS[name])) for name in ("quality", "day", "colour")}
    words |= {"room": lambda: rng.choice(ROOMS), "other": lambda: rng.choice(ROOMS), "door": lambda: rng.choice(DOORS)}
    words |= {"who": lambda: rng.choice(_WORDS["person"] + ["he", "she", "somebody", "my wife", "my husband", "the kids"])}
    words |= {"n": lambda: number(rng.randint(1, 60)), "thing": lambda: rng.choice(THINGS)}
    text = re.sub(r"\{(\w+)\}", lambda m: words[m.group(1)](), rng.choice(NEAR_HELD_OUT if held_out else NEAR_TRAINED))
    return f"{rng.choice(_BEFORE[FRAGMENT])} {text}" if rng.random() < 0.1 else text


def jumble(rng):
    """Words of the commands, and others, in no order."""
    words = [rng.choice(_COMMAND_WORDS if rng.random() < 0.65 else _common()) for _ in range(rng.randint(3, 9))]
    return " ".join(words)


@functools.cache
def _common():
    import wordfreq

    return [w for w in wordfreq.top_n_list("en", COMMON_WORDS) if w.isascii() and w.isalpha() and len(w) > 2]


@functools.cache
def _lines(held_out):
    """Clauses of 3 to 14 words."""
    out = set()
    for name in _FILES:
        text = (FORTUNES / name).read_text(errors="ignore")
        for entry in text.split("\n%\n"):
            entry = re.sub(r"\n\s+--.*", "", entry, flags=re.S)
            for clause in re.split(r"(?<=[.!?;:])\s+|\n\n|\s--\s", " ".join(entry.split())):
                clause = clause.strip(" \"'()*")
                if clause.isascii() and 3 <= len(clause.split()) <= 14 and re.fullmatch(r"[A-Za-z0-9 ,.!?;:'\"()-]+", clause):
                    out.add(clause)
    return sorted(c for c in out if is_held_out(c) == held_out)


def english(rng, held_out=False):
    """A clause as it is written, with its capitals and stops."""
    return rng.choice(_lines(held_out))


def spoken(text):
    """The words alone, small, as a recogniser gives them."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())
