#!/usr/bin/env python3
"""Records the answers of a running vLLM to the trainer's requests: tests/golden/vllm-answers.json.

The server serves an untied SmolLM2-135M-Instruct with VLLM_SERVER_DEV_MODE=1. OTHER is a folder, on the server's
machine, with other weights of the same shape. A missing folder crashes vLLM 0.32. No package is needed.

    record_vllm.py http://127.0.0.1:8000 MODEL_FOLDER OTHER >tests/golden/vllm-answers.json
"""
import json
import sys
import urllib.error
import urllib.request

URL, MODEL, OTHER = sys.argv[1:4]
# "The capital of France is" in the tokenizer of SmolLM2.
PROMPT = [504, 3575, 282, 4649, 314]


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = text.decode()
    return {"method": method, "path": path, "body": body, "status": status, "answer": answer}


NAME = call("GET", "/v1/models")["answer"]["data"][0]["id"]


def turn(**settings):
    body = {
        "model": NAME, "prompt": PROMPT, "max_tokens": 12, "temperature": 0.0, "top_p": 1.0, "top_k": 0,
        "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": 7,
        "n": 1, "stream": False, "logprobs": 0, "return_token_ids": True, "stop": [], "stop_token_ids": [],
        "include_stop_str_in_output": True, "skip_special_tokens": False, "spaces_between_special_tokens": False,
    }
    return call("POST", "/v1/completions", body | settings)


def update(folder, name):
    return [
        call("POST", "/pause?mode=abort"),
        call("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}}),
        call("POST", "/reset_prefix_cache"),
        call("POST", "/update_weight_version", {"new_version": name}),
        call("POST", "/resume"),
    ]


length = turn()
first = length["answer"]["choices"][0]["token_ids"]
recorded = {
    "version": call("GET", "/version")["answer"],
    "served": call("GET", "/v1/models"),
    "weights_at_first": call("GET", "/weight_info"),
    "length": length,
    "stop_string": turn(stop=[length["answer"]["choices"][0]["text"][9:16]]),
    "stop_token": turn(stop_token_ids=[first[2]]),
    "sampled": turn(temperature=1.0, seed=11),
    "sampled_again": turn(temperature=1.0, seed=11),
    "cooler": turn(temperature=0.5, seed=11),
    "update": update(OTHER, "run-1"),
    "weights_after": call("GET", "/weight_info"),
    "after_update": turn(),
    "update_back": update(MODEL, "run-2"),
    "after_update_back": turn(),
    "too_long": turn(max_tokens=100000),
    "unknown_model": turn(model="another"),
}
json.dump(recorded, sys.stdout, indent=1)
print()
