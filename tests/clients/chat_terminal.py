"""`slm chat` in a terminal, against a running quickstart swarm.

    chat_terminal.py SLM GRPC EXPECTED_JSON
"""

import json
import os
import pty
import re
import select
import sys
import time

slm, server = sys.argv[1:3]
case = json.load(open(sys.argv[3], encoding="utf-8"))["banking"][2]
LONG = "Write a long story about the sea, in a hundred sentences."
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execv(slm, [slm, "chat", "assistant", "--server", server, "--temperature", "0", "--explain"])

seen = ""


def read_until(words, seconds=60):
    """All that was written up to and with `words`."""
    global seen
    end = time.monotonic() + seconds
    while words not in seen:
        left = end - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], f"no {words!r} in {seen!r}"
        try:
            new = os.read(terminal, 65536).decode(errors="replace")
        except OSError:
            raise AssertionError(f"it ended before {words!r}: {seen!r}") from None
        seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", new)
    before, _, seen = seen.partition(words)
    return before + words


def type_in(text):
    os.write(terminal, text.encode())


read_until("Ctrl-D ends")
read_until("> ")
type_in(case["prompt"] + "\r")
told = read_until("first after")
assert case["answer"] in told and "banking: " in told and "label " in told, told
# Several lines are one message.
read_until("> ")
type_in("/model smollm2\r")
read_until("smollm2 answers from here on")
read_until("> ")
first, second = LONG.split(" in ")
type_in(first + "\\\r")
read_until("… ")
type_in(f"in {second}\r")
# Ctrl-C ends the answer, and not the program.
read_until("hundred sentences.")
read_until("\n")
while len(seen) < 40:
    assert select.select([terminal], [], [], 60)[0], seen
    seen += os.read(terminal, 65536).decode(errors="replace")
type_in("\x03")
read_until("stopped")
read_until("> ")
# A name that is not there is told, and the conversation goes on.
type_in("/model bankin\r")
read_until("did you mean `banking`?")
read_until("> ")
# Ctrl-C at the prompt discards the line.
type_in("half a line\x03")
read_until("> ")
type_in("\x04")
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
