"""Sentences that must not become a tool call: talk, questions about the home, commands that no tool serves."""

import re

_WORDS = {
    "person": "my mother;my brother;anna;the neighbour;my boss;peter;the doctor;my friend;the children;grandma;john;maria;the team",
    "room": "kitchen;bedroom;bathroom;hallway;garage;office;garden;living room",
    "food": "pizza;soup;bread;coffee;tea;a sandwich;pasta;rice;fish;apples;cheese;eggs;milk;chocolate;salad;potatoes",
    "day": "monday;tuesday;wednesday;thursday;friday;saturday;sunday;tomorrow;tonight;next week;this morning;yesterday",
    "city": "london;berlin;paris;rome;boston;madrid;tokyo;new york;dublin;vienna",
    "object": "the car;my phone;the keys;the book;my jacket;the bag;the camera;the chair;the table;my shoes;the newspaper;the cup",
    "animal": "the dog;the cat;a bird;the horse;our rabbit;the fish;a mouse;the sheep",
    "machine": """the oven;the dishwasher;the washing machine;the television;the computer;the vacuum cleaner;the coffee machine;
        the toaster;the printer;the fan;the radio;the shower;the fridge;the robot;the alarm;the air conditioner;the kettle;the heater""",
    "quality": "nice;too small;very big;beautiful;a mess;clean;dirty;quite old;really cosy;empty;painted green;cold in winter",
    "topic": "football;politics;history;music theory;the election;space;gardening;cooking;physics;the market;your family;old films",
    "number": "two;three;four;five;six;seven;eight;nine;ten;twelve;fifteen;twenty;thirty;forty;fifty;a hundred",
    "weather": "rain;snow;wind;sunshine;fog;a storm",
    "language": "french;german;spanish;italian;polish;chinese;dutch",
    "colour": "red;green;blue;yellow;white;black;brown;orange",
    "feeling": "tired;happy;hungry;thirsty;a bit sick;bored;very busy;excited;late;ready;lonely;fine",
    "work": "finish the report;clean the windows;wash the car;pay the bill;write a letter;go for a run;paint the wall;do the dishes",
}
_WORDS = {key: [" ".join(w.split()) for w in text.split(";")] for key, text in _WORDS.items()}

_SENTENCES = """
what time is it; what day is it; what is the date today; how is the weather; how is the weather in {city};
what is the weather like {day}; will there be {weather} {day}; is it going to rain {day}; tell me a joke; tell me a story;
tell me something about {topic}; who are you; what is your name; how old are you; how are you; how are you today; good morning;
good night; good evening; hello; hello there; thank you very much; thanks a lot; never mind; forget it; that is all; sorry;
call {person}; call {person} please; send a message to {person}; write an email to {person}; read my messages; read my email;
order some {food}; order {food} for {day}; buy some {food}; add {food} to the shopping list; what is for dinner;
what should i cook {day}; how do i make {food}; i would like some {food}; do we have {food}; i ate {food} {day};
turn on {machine}; turn off {machine}; switch on {machine}; switch off {machine}; start {machine}; stop {machine}; is {machine} on;
can you start {machine}; please turn on {machine}; turn {machine} off; {machine} is broken; clean {machine}; who turned on {machine};
open the window; close the window; open the window in the {room}; open the door; open the front door; close the front door;
close the door please; open the garage door; shut the door; open the gate; open the fridge; close the curtains in the {room};
the {room} is {quality}; the {room} is really {quality}; i like the {room}; i am in the {room}; we are in the {room} now;
where is the {room}; the {room} looks {quality}; i left {object} in the {room}; {person} is in the {room}; clean the {room};
vacuum the {room}; who is in the {room}; is somebody in the {room}; go to the {room}; i painted the {room} {colour};
is the {room} light on; are the lights on; are the lights off in the {room}; who turned off the lights; the light is broken;
i need a new lamp for the {room}; the lamp in the {room} is {colour}; lights are expensive; i like the light in the {room};
the sun is so bright today; make the {room} light {colour}; change the light to {colour};
did you lock the door; is the front door locked; is the back door open; who locked the door; i lost the key of the front door;
somebody is at the front door; there is a package at the front door; ring the bell; knock on the back door;
how warm is it; how cold is it outside; what is the temperature; what is the temperature in the {room}; it is too warm in here;
it was {number} degrees {day}; it is so cold today; i am freezing; the heating is broken; how many degrees is it in {city};
how much time is left; is the timer running; how long is the timer; cancel the timer; stop the timer; set an alarm for {number};
set an alarm for {number} in the morning; wake me up at {number}; i will be there in {number} minutes; wait {number} minutes;
it took {number} minutes; the bus leaves in {number} minutes; the meeting is at {number}; give me a minute;
i love this song; who sings this song; what song is this; this music is {quality}; i do not like this music; what is playing;
do you like music; buy this song; the concert is on {day}; {person} plays the piano; record this song; sing a song;
how loud is it; it is too loud; the volume is fine; i can not hear you; speak louder; be quiet; repeat that; say that again;
the blinds are broken; are the blinds open; i want new blinds for the {room}; who closed the blinds; the blinds are {colour};
take a picture; take a photo of {object}; make a video; who is on the picture; what do you see; what colour is it; show me the camera;
where are you; where is {object}; have you seen {object}; i can not find {object}; give me {object}; bring me {object};
put {object} on the table; i lost {object}; {object} is on the table; {object} is {colour}; whose is {object};
feed {animal}; {animal} is in the {room}; {animal} is hungry; take {animal} for a walk; {animal} is sleeping; i saw {animal} {day};
where is {animal}; i am {feeling}; {person} is {feeling}; are you {feeling}; i was {feeling} {day}; we are {feeling};
i have to {work}; i have to {work} {day}; remind me to {work}; can you help me to {work}; i will {work} {day}; {person} must {work};
please {work}; let us talk about {topic}; i am reading about {topic}; do you know anything about {topic}; i hate {topic};
what do you think about {topic}; how far is it to {city}; the train to {city} leaves {day}; i am going to {city} {day};
book a flight to {city}; where is {city}; {person} lives in {city}; how do i get to {city}; is there a train to {city};
translate this into {language}; how do you say hello in {language}; do you speak {language}; i am learning {language};
what is {number} plus {number}; how much is {number} times {number}; count to {number}; add {number} and {number};
{person} has {number} cats; i bought {number} books; there are {number} chairs in the {room}; see you on {day}; see you {day};
my birthday is on {day}; what are you doing {day}; let us meet on {day}; i am busy {day}; {person} is coming {day};
i will call {person} {day}; did {person} call; {person} said hello; ask {person}; i talked to {person} {day}; wait for {person};
what is new; what is the news; play chess with me; search the internet; find a restaurant; find a hotel in {city};
how much does it cost; that is too expensive; i do not know; yes; no; maybe; maybe later; of course; all right; i think so;
yes i think so; no i do not think so; really; that is great; that is {quality}; wonderful; what a day; well done; good job; come here;
let us go; hurry up; come on; look at that; watch out; be careful; sit down; stand up; what happened; why is that; i am not sure;
nobody knows; it does not matter; see you later; have a nice day; goodbye; welcome home; i am home; we are leaving now; nobody is home;
water the plants; water the garden; mow the lawn; it is raining in the garden; the flowers in the garden are {colour};
lock the car; lock my phone; lock the window; unlock the car; unlock the safe; set the table; set the clock; set the table for {number};
turn left; turn right; turn around; turn the page; switch places with me; stop talking; stop the car; next week; next please;
play with {animal}; play football; play a game with {person}; pause the game; read a book; read the book to {person}; read my mind;
what does {person} say; what did you say; what did {person} say {day}; what does this mean; write this down; make a note;
the label is {colour}; i need a sign for the {room}; the screen is broken; raise your hand; lower your voice; close your eyes;
open your mouth; open a bottle of wine; open the box; shut up; make me laugh; make some {food}; make the bed; dim sum for dinner;
skip breakfast; skip school on {day}; the previous owner painted it {colour}; start the car; start cooking; mute your phone;
"""
SENTENCES = [" ".join(s.split()) for s in _SENTENCES.strip().rstrip(";").split(";")]
_FILLERS = ["um", "uh", "well", "so", "hey", "ok", "please", "oh", "you know", "i think", "actually", "listen"]


def small_talk(rng):
    text = rng.choice(SENTENCES)
    if "{" in text:
        text = re.sub(r"\{(\w+)\}", lambda m: rng.choice(_WORDS[m.group(1)]), text)
    if rng.random() < 0.15:
        text = f"{rng.choice(_FILLERS)} {text}"
    if rng.random() < 0.08:
        text = f"{text} and {small_talk(rng)}" if len(text) < 30 else text
    return text

# Frequent words that no sentence above has: they only give the tokenizer something to fill its rows with.
MORE_WORDS = """able above accept across action address afraid against agree allow alone along already although among amount answer
    anyone anything appear area arm around arrive art attack available away baby base beautiful become before begin behavior
    behind believe benefit better between beyond billion blood body both bottom break bridge brought budget build building
    business campaign cancer candidate capital career carry catch cause cell center central century certain certainly challenge
    chance character charge choice church citizen civil claim class clear coach college common community company compare
    concern condition conference congress consider consumer contain continue control corner country couple course court cover
    create crime culture current customer cut daily daughter deal death debate decade decision deep defense degree democrat
    describe design despite detail develop difference difficult dinner direction director discover discussion disease doubt
    dream drive during early economy edge education effect effort either else employee energy enjoy enough enter entire
    environment especially establish evening event ever every everybody evidence exactly example executive exist expect
    experience expert explain face factor fail fall father federal field fight figure final financial firm floor focus foot
    force foreign forget former forward free full fund future general generation girl glass goal government green ground group
    growth guess gun hair half hang hard health heart heavy herself himself hospital hour however huge human hundred husband
    identify image imagine impact important improve include increase indeed indicate individual industry information inside
    instead institution interest international interview investment involve issue item itself join kid kill kind knowledge
    language large laugh lawyer leader learn least legal less level likely list little local magazine main maintain major
    majority manage management marriage material matter measure media medical member memory mention method middle military
    million mission model modern moment money month mouth movement national natural nature nearly necessary network newspaper
    north nothing notice occur offer officer official often operation opportunity option order organization others outside
    owner painting pain parent particularly partner party patient pattern peace perform perhaps period personal phone physical
    picture piece place plan player point police policy political popular population position possible power practice prepare
    present president pressure pretty prevent private probably problem process produce product production professional""".split()
