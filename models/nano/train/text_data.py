"""Prompts and answers, exactly as the runtime renders them."""

import json

SYSTEM = "You are a helpful assistant with some tools."
TRANSCRIBE = "Transcribe the audio clip into text."
READ_TEXT = "Read the text in the image."
SORRY = "Sorry, I can't help with that."
UNCLEAR = "I didn't catch that."
DONE = "Done."
FAILED = "That did not work."
ERRORS = ["timeout", "offline", "no answer", "the device is not reachable", "failed", "unknown room", "no camera"]
AUDIO, IMAGE = "<|endoftext11|>", "<|endoftext10|>"


def prefix(tools):
    """Everything before the user's words."""
    return f"<|system|>{SYSTEM}<|tool|>{json.dumps(tools, ensure_ascii=False)}<|/tool|><|end|><|user|>"


def call_text(calls):
    return f"<|tool_call|>{json.dumps(calls, ensure_ascii=False)}<|/tool_call|>"


def answer(calls):
    """The assistant's turn for a command: its calls, or the refusal."""
    return (call_text(calls) if calls else SORRY) + "<|end|>"


def response(rng, calls, sign):
    """(what follows the calls: a result for each, as a turn of its own; the assistant's reply: one sentence about them)."""
    turns, reply = "", DONE
    for call in calls:
        result = {"ok": True, "text": sign} if call["name"] == "read_camera" else {"ok": True}
        if rng.random() < 0.25:
            result, reply = {"ok": False, "error": rng.choice(ERRORS)}, FAILED
        elif "text" in result and reply == DONE:
            reply = f"It says {sign}."
        turns += f"<|tool_response|>{json.dumps(result, ensure_ascii=False)}<|end|>"
    return f"{turns}<|assistant|>", f"{reply}<|end|>"


def parse(text):
    """The calls of a generated answer (a list, empty for a plain reply), or None where it is malformed."""
    if "<|tool_call|>" not in text:
        return []
    try:
        return json.loads(text.split("<|tool_call|>")[1].split("<|/tool_call|>")[0])
    except (json.JSONDecodeError, IndexError):
        return None
