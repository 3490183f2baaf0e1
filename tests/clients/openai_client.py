"""Uses an API as a user of OpenAI's Python client does. Run: openai_client.py BASE_URL MODEL"""

import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import OpenAI

base_url, model = sys.argv[1:]
client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=120)
prompt = "Once upon a time there was"
chat = [{"role": "user", "content": prompt}]


def check(holds, what):
    if not holds:
        sys.exit(f"failed: {what}")
    print("ok", what)


models = client.models.list().data
check(model in [m.id for m in models], "models are listed")
check(client.models.retrieve(model).id == model, "a model is shown")

whole = client.completions.create(model=model, prompt=prompt, max_tokens=12, seed=7)
check(len(whole.choices) == 1 and whole.choices[0].finish_reason in ("length", "stop"), "a completion")
check(whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, "its usage")

again = client.completions.create(model=model, prompt=prompt, max_tokens=12, seed=7)
check(again.choices[0].text == whole.choices[0].text, "the same seed gives the same text")
check(again.system_fingerprint == whole.system_fingerprint, "under the same fingerprint")

chunks = list(
    client.completions.create(
        model=model, prompt=prompt, max_tokens=12, seed=7, stream=True,
        stream_options={"include_usage": True},
    )
)
text = "".join(c.choices[0].text for c in chunks if c.choices)
check(text == whole.choices[0].text, "the stream joins to the whole")
check(chunks[-1].choices == [] and chunks[-1].usage == whole.usage, "its last chunk counts tokens")
check(len([c for c in chunks if c.choices and c.choices[0].text]) > 1, "it comes in pieces")

several = client.completions.create(model=model, prompt=[prompt, "The cat"], n=2, max_tokens=4, seed=1)
check([c.index for c in several.choices] == [0, 1, 2, 3], "several prompts and answers")

logged = client.completions.create(model=model, prompt=prompt, max_tokens=3, logprobs=2, seed=7)
logprobs = logged.choices[0].logprobs
check(len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs), "log-probabilities")
check(all(value <= 0 for value in logprobs.token_logprobs), "they are at most 0")

greedy = client.completions.create(model=model, prompt=prompt, max_tokens=3, logprobs=1, temperature=0)
logprobs = greedy.choices[0].logprobs
best = [max(top.values()) for top in logprobs.top_logprobs]
check(best == logprobs.token_logprobs, "at temperature 0 the likeliest token is taken")

answer = client.chat.completions.create(model=model, messages=chat, max_completion_tokens=8, seed=3)
check(answer.choices[0].message.role == "assistant", "a chat answer")
content = ""
for chunk in client.chat.completions.create(
    model=model, messages=chat, max_tokens=8, seed=3, stream=True
):
    content += chunk.choices[0].delta.content or ""
check(content == answer.choices[0].message.content, "the chat stream joins to it")

logged = client.chat.completions.create(
    model=model, messages=chat, max_tokens=2, logprobs=True, top_logprobs=3, seed=3
)
first = logged.choices[0].logprobs.content[0]
check(len(first.top_logprobs) == 3 and first.bytes == list(first.token.encode()), "chat log-probabilities")

start = whole.choices[0].text
stop = next(c for c in start if not c.isspace())
stopped = client.completions.create(model=model, prompt=prompt, max_tokens=12, seed=7, stop=[stop])
check(stopped.choices[0].text == start[: start.index(stop)], "a stop string is not part of the answer")
check(stopped.choices[0].finish_reason == "stop", "and ends it")

raw = client.completions.with_raw_response.create(
    model=model, prompt=prompt, max_tokens=2, extra_headers={"x-r3mes-nonce": "ab" * 32}
)
url = base_url.removesuffix("/v1") + raw.headers["x-r3mes-receipt"]
raw.parse()
# The receipt is no JSON, which the client would expect, and here no proxy stands between.
body = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).read()
check(bytes.fromhex("ab" * 32) in body, "the receipt binds the nonce")

with ThreadPoolExecutor(8) as pool:
    texts = list(
        pool.map(
            lambda _: client.completions.create(model=model, prompt=prompt, max_tokens=12, seed=7)
            .choices[0]
            .text,
            range(8),
        )
    )
check(texts == [whole.choices[0].text] * 8, "eight at once give what one alone gives")

for error, arguments, param in [
    (openai.NotFoundError, {"model": "gpt-4", "prompt": "a"}, "model"),
    (openai.BadRequestError, {"model": model, "prompt": "a", "temperature": 9}, "temperature"),
    (openai.BadRequestError, {"model": model, "prompt": "a", "n": 100}, "n"),
]:
    try:
        client.completions.create(**arguments)
        check(False, f"{arguments} is refused")
    except error as refused:
        check(refused.param == param, f"{param} is refused by name")
