#!/usr/bin/env python3
"""Records chat templates as `transformers` renders them: tests/golden/chat-templates.json.

The templates are written for this file. Each uses the features of one model family's templates, or behaviour that is
specific to Jinja in Python. Needs `transformers` and jinja2. Run it from the root of the checkout.
"""

import datetime
import json
from pathlib import Path

import jinja2
import tokenizers
import transformers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

TODAY = datetime.datetime(2025, 3, 9)

# Headers before each message, the date in the system message, tools after a check for none.
HEADERS = """\
{{- bos_token }}
{%- if not date is defined %}
    {%- if strftime_now is defined %}
        {%- set date = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date = "long ago" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = "undefined" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" }}
{%- if tools is not none %}
    {{- "tools are " ~ tools }}
{%- endif %}
{{- "Date: " + date + "\\n" + system + "<|turn|>" }}
{%- for message in messages %}
    {%- if message.tool_calls is defined %}
        {{- message.tool_calls[0] | tojson(indent=4) }}
    {%- else %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' + message['content'] | trim + '<|turn|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

# A default system message, and conditions on the first and the last message.
MARKED = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nAnswer what is asked.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n' + message.content }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# A namespace filled by a loop over the reversed list, and thoughts removed from earlier answers.
THOUGHTFUL = """\
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and thought %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# No headers; the system message goes into the last question; roles must alternate.
BRACKETS = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles have to take turns, found " + message["role"] + " at " ~ ns.index) }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("only user and assistant roles are known, found " + message["role"]) }}
    {%- endif %}
{%- endfor %}
"""

# Generation marks around the assistant's text; the date comes only from the function.
GENERATED = """\
{# {% generation %} in a comment is none #}
{%- set today = strftime_now("%d %B %Y") -%}
{%- set mode = namespace(reasoning=reasoning_mode | default("/think")) -%}
{%- macro closed(text) -%}
{{ text | trim }}<|im_end|>
{% endmacro -%}
<|im_start|>system
Knowledge: {{ today }}; {{ strftime_now("%A %-d.%m.%y %j %H:%M %p %e|%I%%") }}
Mode: {{ mode.reasoning }}<|im_end|>
{% for message in messages %}
  {% if message.role == "user" %}
{{ "<|im_start|>user\\n" + message.content + "<|im_end|>\\n" -}}
  {% elif message.role == "assistant" %}
    {% generation %}
{{ "<|im_start|>assistant\\n" }}{% set inner = "seen" %}{{ closed(message.content) }}
    {% endgeneration %}
    {%- generation -%}   {{ inner | default("scoped") }}   {%- endgeneration -%}
  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ "<|im_start|>assistant\\n" -}}
{% endif %}
"""

# White space: a block removes its line unless it states otherwise.
SPACES = """\
  {% if true %}
    one
  {%+ if true %}two{% endif %}

  {%- if true -%}

    three
  {% endif +%}
  {% endif %}
{# a comment #}
  four {{ "five" -}}
   six
	{% for letter in ["a", "b", "c"] %}
	{% if loop.last %}{% break %}{% endif %}
  {{ letter }}{{ loop.cycle("-", "+") }}
	{% endfor %}
end

"""

# Values as Python prints them, and filters and methods of texts, lists and dicts.
VALUES = """\
{{ none }} {{ true }} {{ false }} {{ 1.5 }} {{ 7 // 2 }} {{ 2 ** 5 }} {{ 7 / 2 }} {{ missing }}|
{{- tools is none }} {{ documents is none }} {{ missing is defined }} {{ bos_token is defined }} {{ pad_token is defined }}
{{ "a-b-c".split("-") | join("+") }} {{ "Abc".upper() ~ "Abc".lower() }} {{ "  x ".strip() }} {{ "xaxbx".replace("x", "<&>") }}
{{ "title case".title() }} {{ "abc"[1:] }} {{ "abc"[::-1] }} {{ "abc"[-1] }} {{ "b" in "abc" }} {{ "abc".find("c") }}
{% for key, value in {"b": 1, "a": [2, none]}.items() %}{{ key }}={{ value | tojson }};{% endfor %}
{{ {"b": "<é\\"\\n\\u0001/>", "a": [], "c": {}} | tojson }}
{{ {"b": "é🙂", "a": [1, {"x": true}]} | tojson(ensure_ascii=true, sort_keys=true) }}
{{ {"b": [1, 2.5, []], "a": {}} | tojson(indent=2) }}
{{ [1, {"x": none}] | tojson(separators=(",", ":")) }}
{{ messages | selectattr("role", "equalto", "user") | map(attribute="content") | list | length }} {{ messages | map(attribute="role") | join(",") }}
{{ messages[0] | length }} {{ (messages | last).role }} {{ (messages | first)["content"] | upper }}
{% set text = "kept" %}{% for message in messages %}{% set text = "lost" %}{% if loop.first %}{% continue %}{% endif %}{{ loop.index }}/{{ loop.length }}{{ loop.previtem.role }} {% endfor %}{{ text }}
{{ "yes" if messages[0].role == "user" else "no" }} {{ messages[0].name is defined }} {{ range(3) | list | sum }} {{ "%s and %d" | format("a", 3) }}
{{ messages[0] is mapping }} {{ "x" is iterable }} {{ messages is sequence }} {{ 3 is odd }} {{ [3, 1, 2] | sort | join }} {{ ["a", "a"] | unique | list | length }}
"""

TEMPLATES = {
    "headers": HEADERS, "marked": MARKED, "thoughtful": THOUGHTFUL, "brackets": BRACKETS,
    "generated": GENERATED, "spaces": SPACES, "values": VALUES,
}


def message(role, content):
    return {"role": role, "content": content}


CONVERSATIONS = [
    [message("user", "Who wrote Hamlet?")],
    [message("system", " Be brief. \n"), message("user", "  é🙂 <b>&amp;</b> \"quoted\" {{ x }}\n")],
    [
        message("system", "One\nTwo"),
        message("user", "first"),
        message("assistant", "<think>\nhm\n</think>\n\nanswer "),
        message("user", "second"),
        message("assistant", "<think>\nagain\n</think>\n\nlast"),
    ],
    [message("user", "<tool>x</tool>"), message("tool", "passage"), message("tool", "other")],
    [message("user", "one"), message("user", "two")],
]


class Today(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return TODAY


def main():
    chat_template_utils.datetime = Today
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.BPE()),
        bos_token="<s>", eos_token="</s>",
    )
    cases = []
    for name, template in TEMPLATES.items():
        for messages in CONVERSATIONS:
            case = {"template": name, "messages": messages}
            try:
                case["text"] = tokenizer.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=True
                )
            except jinja2.exceptions.TemplateError as error:
                case["error"] = str(error)
            cases.append(case)
    value = {
        "origin": f"transformers {transformers.__version__}, jinja2 {jinja2.__version__}",
        "today": TODAY.strftime("%Y-%m-%d"),
        "tokens": {"bos_token": "<s>", "eos_token": "</s>"},
        "templates": TEMPLATES,
        "cases": cases,
    }
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    Path("tests/golden/chat-templates.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
