"""Requests and the calls that they want, made from phrases. The same every time.

Phrases, names, texts and things of the held-out requests occur in no training request; rooms, days and numbers are the same,
because the functions know no others.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

TOOLS = json.loads((Path(__file__).resolve().parents[1] / "tools.json").read_text(encoding="utf-8"))

ROOMS = ["kitchen", "living room", "bedroom", "office"]
MEETING_ROOMS = ["Aspen", "Birch", "Cedar"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday"]
HOURS = {"8 am": 8, "9": 9, "ten": 10, "10 am": 10, "11": 11, "noon": 12, "1 pm": 13, "2 pm": 14, "3 pm": 15, "4 pm": 16, "17": 17, "6 pm": 18}  # fmt: skip
PEOPLE = {"two": 2, "3": 3, "four": 4, "5": 5, "six": 6, "8": 8, "ten": 10, "12": 12}
MINUTES = {"3 minutes": 3, "five minutes": 5, "7 minutes": 7, "ten minutes": 10, "12 minutes": 12, "15 minutes": 15, "20 minutes": 20,
           "25 minutes": 25, "half an hour": 30, "45 minutes": 45, "an hour": 60, "90 minutes": 90, "two hours": 120}  # fmt: skip
LEVELS = {"10 percent": 10, "20%": 20, "30 percent": 30, "half": 50, "50%": 50, "60 percent": 60, "75%": 75, "80 percent": 80, "full": 100}
DEGREES = {"17": 17, "18 degrees": 18, "19.5": 19.5, "20": 20, "20.5 degrees": 20.5, "21": 21, "21.5": 21.5, "22 degrees": 22, "23": 23}

# (phrases of training requests, phrases of held-out requests)
PHRASES: dict[str, tuple[list[str], list[str]]] = {
    "on": (
        ["turn on the light in the {room}", "{room} light on", "switch the {room} lights on please", "it's too dark in the {room}",
         "could you put the light on in the {room}?", "lights on in the {room}", "I need light in the {room}"],
        ["please light up the {room}", "can you turn the {room} lamp on", "make it bright in the {room}"],
    ),
    "off": (
        ["turn off the light in the {room}", "{room} light off", "switch the {room} lights off please", "no more light in the {room}",
         "could you put the light out in the {room}?", "lights off in the {room}", "make the {room} dark"],
        ["kill the lights in the {room}", "can you turn the {room} lamp off", "nobody needs light in the {room} now"],
    ),
    "dim": (
        ["dim the {room} light to {level}", "set the {room} lights to {level}", "{room} light at {level} brightness",
         "put the light in the {room} to {level}", "I want the {room} light at {level}", "brightness {level} in the {room}"],
        ["bring the {room} lamp to {level}", "could the {room} be lit at {level}?", "make the lights in the {room} {level} bright"],
    ),
    "heat": (
        ["heat the {room} to {degrees}", "set the {room} heating to {degrees}", "make it {degrees} in the {room}", "{room} at {degrees} please",
         "I want {degrees} in the {room}", "can you warm the {room} to {degrees}?", "thermostat in the {room} to {degrees}",
         "the {room} should be {degrees}"],
        ["turn the {room} radiator to {degrees}", "it is cold, get the {room} up to {degrees}", "please keep the {room} at {degrees}",
         "change the temperature of the {room} to {degrees}"],
    ),
    "timer": (
        ["set a timer for {minutes}", "timer {minutes}", "start a {minutes} timer", "wake me in {minutes}", "count down {minutes} please",
         "let me know when {minutes} are over"],
        ["give me {minutes} on the clock", "remind me in {minutes}", "please time {minutes}"],
    ),
    "named timer": (
        ["set a timer for {minutes} for the {label}", "{label} timer, {minutes}", "start a {minutes} timer called {label}",
         "time the {label}, {minutes}", "the {label} needs {minutes}, set a timer"],
        ["remind me of the {label} in {minutes}", "put {minutes} on the clock for the {label}", "I need a timer for the {label}: {minutes}"],
    ),
    "message": (
        ["tell {name} {text}", "send {name} a message: {text}", "text {name} that {text}", "let {name} know that {text}",
         "message {name}: {text}", "write to {name} that {text}", "send a text to {name} saying {text}"],
        ["drop {name} a line: {text}", "inform {name} that {text}", "could you text this to {name}: {text}", "please say to {name} that {text}"],
    ),
    "meeting": (
        ["book {place} on {day} at {hour}", "reserve {place} for {day} {hour}", "I need {place} {day} at {hour}",
         "can we have {place} on {day}, {hour}?", "meeting in {place} on {day} at {hour}", "put us in {place}, {day} {hour}"],
        ["get me {place} for {day} at {hour}", "is {place} free {day} {hour}? if so book it", "on {day} at {hour} we want {place}"],
    ),
    "meeting of": (
        ["book {place} for {people} people on {day} at {hour}", "reserve {place}, {day} {hour}, {people} people",
         "I need {place} {day} at {hour} for {people}", "{people} of us want {place} on {day} at {hour}",
         "meeting of {people} in {place} on {day} at {hour}"],
        ["get {place} for {people} persons, {day} at {hour}", "on {day} at {hour} we are {people}, take {place}",
         "hold {place} for a group of {people} on {day} at {hour}"],
    ),
    "list": (
        ["add {items} to the {list} list", "put {items} on my {list} list", "{list} list: {items}", "write {items} on the {list} list",
         "{items} should go on the {list} list", "note {items} for {list}"],
        ["please include {items} in the {list} list", "I have to have {items} on the {list} list", "don't forget {items}, {list} list"],
    ),
}  # fmt: skip
NAMES = (
    ["Anna", "Bob", "mom", "Dr. Lee", "Fatima", "Jonas", "the landlord", "Priya", "Tom", "my boss", "Lucy", "uncle Max", "Chen", "the dentist"],
    ["Maria", "dad", "Olaf", "Mr. Brown", "Sara", "the plumber", "Ahmed", "grandma", "Kim"],
)
TEXTS = (
    ["dinner is ready", "I will be late", "the meeting is moved to three", "happy birthday", "the package has arrived", "I am on my way",
     "we need to talk", "the train is delayed", "I left the keys at the office", "thanks for the flowers", "the car is fixed",
     "see you on Sunday", "the door is open", "I cannot come today", "the report is finished"],
    ["lunch is at noon", "I missed the bus", "the game starts at eight", "good luck with the exam", "the dog is fine", "we are out of coffee",
     "the bill is paid", "I will call tonight", "the tickets are on the table"],
)  # fmt: skip
LABELS = (
    ["pasta", "laundry", "cake", "rice", "tea", "workout", "pizza", "nap", "call", "bread"],
    ["eggs", "oven", "meeting", "soup", "homework", "potatoes", "dishwasher"],
)
ITEMS = {
    "shopping": (["milk", "eggs", "butter", "apples", "brown bread", "coffee", "rice", "soap", "olive oil", "tomatoes", "cheese"],
                 ["bananas", "sugar", "paper towels", "yogurt", "onions", "orange juice", "salt"]),
    "packing": (["socks", "the passport", "a toothbrush", "two shirts", "sunglasses", "a charger", "a warm jacket"],
                ["swimming trunks", "an umbrella", "the camera", "a book", "hiking boots"]),
    "work": (["call the bank", "send the invoice", "review the contract", "fix the printer", "plan the offsite", "update the slides"],
             ["write the minutes", "order new chairs", "answer the auditors", "book the flight"]),
}  # fmt: skip


class Asked(NamedTuple):
    """A request, and what it wants: a call, or words."""

    prompt: str
    name: str | None
    arguments: dict[str, Any]
    words: str = ""

    def answer(self) -> str:
        """What the model has to write. Calls are in the generic form of `worker/src/tools`, for templates without tools."""
        if self.name is None:
            return self.words
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)


def joined(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def made(kind: str, held: int, rng: random.Random) -> Asked:
    """One request of a kind."""
    room, place, day = rng.choice(ROOMS), rng.choice(MEETING_ROOMS), rng.choice(DAYS)
    (level, brightness), (warm, degrees) = rng.choice([*LEVELS.items()]), rng.choice([*DEGREES.items()])
    (span, minutes), (time, hour), (count, people) = (rng.choice([*pairs.items()]) for pairs in (MINUTES, HOURS, PEOPLE))
    name, text, label = (rng.choice(words[held]) for words in (NAMES, TEXTS, LABELS))
    listed = rng.choice([*ITEMS])
    items = rng.sample(ITEMS[listed][held], rng.choice([1, 1, 2, 2, 3]))
    phrase = rng.choice(PHRASES[kind][held])
    prompt = phrase.format(
        room=room, level=level, degrees=warm, minutes=span, label=label, name=name, text=text, place=place, day=day.capitalize(),
        hour=time, people=count, list=listed, items=joined(items),
    )  # fmt: skip
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "on": ("set_light", {"room": room, "on": True}),
        "off": ("set_light", {"room": room, "on": False}),
        "dim": ("set_light", {"room": room, "on": True, "brightness": brightness}),
        "heat": ("set_heating", {"room": room, "degrees": degrees}),
        "timer": ("set_timer", {"minutes": minutes}),
        "named timer": ("set_timer", {"minutes": minutes, "label": label}),
        "message": ("send_message", {"to": name, "text": text}),
        "meeting": ("book_room", {"room": place, "day": day, "hour": hour}),
        "meeting of": ("book_room", {"room": place, "day": day, "hour": hour, "people": people}),
        "list": ("add_to_list", {"list": listed, "items": items}),
    }
    if rng.random() < 0.4:
        prompt = prompt[0].upper() + prompt[1:]
    return Asked(prompt, *calls[kind])


# How many requests of a kind, in training and held out.
COUNTS = {"on": (16, 10), "off": (16, 10), "dim": (28, 18), "heat": (40, 30), "timer": (22, 16), "named timer": (30, 16),
          "message": (64, 36), "meeting": (26, 16), "meeting of": (36, 16), "list": (62, 32)}  # fmt: skip


def calls(held: int, seed: int = 7) -> list[Asked]:
    """Requests that want a call, each one once."""
    rng = random.Random(seed + held)
    all_of: dict[str, Asked] = {}
    for kind, counts in COUNTS.items():
        wanted = len(all_of) + counts[held]
        while len(all_of) < wanted:
            asked = made(kind, held, rng)
            all_of.setdefault(asked.prompt.lower(), asked)
    return list(all_of.values())


# Requests that none of the functions can do.
TALK: list[tuple[str, str]] = [
    ("What is the capital of France?", "The capital of France is Paris."),
    ("How does a timer work?", "A timer counts down from a set time and signals when it reaches zero."),
    ("Why is the sky blue?", "Air scatters blue light more than red light, so the sky looks blue."),
    ("Who invented the light bulb?", "Thomas Edison is best known for the first practical light bulb."),
    ("hello", "Hello! How can I help you?"),
    ("Good morning!", "Good morning! What can I do for you?"),
    ("How are you today?", "I am fine, thank you. How can I help?"),
    ("thank you", "You are welcome."),
    ("What is 12 times 3?", "12 times 3 is 36."),
    ("Tell me a joke", "Why did the scarecrow win a prize? He was outstanding in his field."),
    ("What does a thermostat do?", "A thermostat keeps a room at the temperature that you choose."),
    ("Is milk healthy?", "Milk has protein and calcium, which are good for most people."),
    ("how do I write a good message?", "Keep it short, say what matters first, and be polite."),
    ("Which month comes after June?", "July comes after June."),
    ("What is a meeting?", "A meeting is when people come together to discuss something."),
    ("Can you speak Spanish?", "I know some Spanish, but I am best at English."),
    ("Give me a name for a cat", "How about Whiskers?"),
    ("How many days are in a week?", "A week has seven days."),
    ("What is photosynthesis?", "Plants use light to make sugar from water and carbon dioxide."),
    ("Recommend a book", "You could read Pride and Prejudice by Jane Austen."),
    ("What is the largest ocean?", "The Pacific Ocean is the largest ocean."),
    ("how do I cook rice?", "Simmer one cup of rice in two cups of water until the water is gone."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
    ("What is a list?", "A list is a number of things written one after another."),
    ("Why do we sleep?", "Sleep lets the body and the brain rest and recover."),
    ("Translate good night into French", "Good night is bonne nuit in French."),
    ("What colour is a banana?", "A ripe banana is yellow."),
    ("Are you a person?", "No, I am a language model."),
    ("Explain gravity in one sentence", "Gravity is the force that pulls masses towards each other."),
    ("What can you do?", "I can switch lights, heat rooms, set timers, send messages, book rooms and keep lists."),
    ("How long is a marathon?", "A marathon is 42.195 kilometres long."),
    ("what is the opposite of hot?", "The opposite of hot is cold."),
    ("Do fish sleep?", "Yes, most fish rest, though they do not close their eyes."),
    ("What is a good breakfast?", "Oatmeal with fruit is a good breakfast."),
    ("Where is Mount Everest?", "Mount Everest is on the border of Nepal and China."),
    ("How do light switches work?", "A light switch closes or opens an electric circuit."),
    ("Say something nice", "You are doing a great job."),
    ("When was the first moon landing?", "The first moon landing was in July 1969."),
    ("What is an adjective?", "An adjective is a word that describes a noun."),
    ("I feel sad", "I am sorry to hear that. Do you want to talk about it?"),
]
# The same, held out.
HELD_TALK = [
    "What is the capital of Japan?", "How does an oven work?", "Why is grass green?", "Who painted the Mona Lisa?", "hi there", "Good evening",
    "How is it going?", "thanks a lot", "What is 9 plus 14?", "Tell me a story", "What does a light year measure?", "Is coffee bad for me?",
    "how do I learn to cook?", "Which day comes after Tuesday?", "What is a calendar?", "Can you sing?", "Give me a name for a dog",
    "How many hours are in a day?", "What is electricity?", "Recommend a film", "What is the longest river?", "how do I boil an egg?",
    "Who wrote Don Quixote?", "What is a message?", "Why do birds sing?", "Translate thank you into German", "What colour is the sun?",
    "Are you human?", "Explain magnets in one sentence", "What is the speed of light?", "How tall is the Eiffel Tower?",
    "what is the opposite of big?", "Do plants breathe?", "What is a healthy dinner?", "Where is the Sahara?", "How do heaters work?",
    "Wish me luck", "When did the Berlin Wall fall?", "What is a verb?", "I am bored",
]  # fmt: skip


def told(asked: Asked) -> str:
    """What is said when a call has done its work."""
    a = asked.arguments
    match asked.name:
        case "set_light":
            level = f" at {a['brightness']} percent" if "brightness" in a else ""
            return f"The light in the {a['room']} is {'on' if a['on'] else 'off'}{level}."
        case "set_heating":
            return f"The {a['room']} will be heated to {a['degrees']} degrees."
        case "set_timer":
            return f"The timer is set to {a['minutes']} minutes."
        case "send_message":
            return f"Your message to {a['to']} is sent."
        case "book_room":
            return f"{a['room']} is booked on {a['day'].capitalize()} at {a['hour']}:00."
        case _:
            return f"{joined(a['items'])} {'is' if len(a['items']) == 1 else 'are'} on the {a['list']} list."
