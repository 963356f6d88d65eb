"""Whether a route with `similarity` finds the expert of CLINC150's texts: `slm up`, asked over gRPC (Explain).

usage: similarity.py DATA_DIR MINILM_DIR [EXAMPLES [SEEDS [SLM_BINARY]]]

DATA_DIR has train.json and val.json, lists of [text, intent] with the intent `oos` for what is out of scope, and domains.json, the
intents of each domain (CLINC150, Larson et al. 2019, CC BY 3.0; not a part of this repository). MINILM_DIR is all-MiniLM-L6-v2. Each
domain is an expert with EXAMPLES texts of the training split (16 if not given), drawn over all of its intents; the texts of the
validation split are asked. The experts are copies of one adapter of the quickstart: nothing is generated. Run it with the Python of
`scripts/setup clients`. Prints, for each seed: the share of texts in scope that find their expert, the share of texts out of scope that
are found to be, the share of texts in scope that are taken for out of scope, and the time of a decision.
"""

import concurrent.futures
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

import grpc
from grpc_tools import protoc

root = pathlib.Path(__file__).resolve().parents[2]
data, minilm = sys.argv[1:3]
count, seeds, binary = [*sys.argv[3:], *("16", "3", str(root / "target/release/slm"))[len(sys.argv) - 3 :]]
count, seeds = int(count), int(seeds)
CLIENTS = 4

work = tempfile.TemporaryDirectory()
arguments = ["protoc", f"-I{root}/proto/proto", f"--python_out={work.name}", f"--grpc_python_out={work.name}", "slm/v1/generation.proto"]
assert protoc.main(arguments) == 0
sys.path.insert(0, work.name)

from slm.v1 import generation_pb2 as pb  # noqa: E402
from slm.v1 import generation_pb2_grpc  # noqa: E402


def read(name):
    return json.loads(pathlib.Path(data, name).read_text(encoding="utf-8"))


domains = read("domains.json")
domain_of = {intent: domain.replace("_", "-") for domain, intents in domains.items() for intent in intents}
train, asked = read("train.json"), read("val.json")


def examples(domain, chance):
    """Texts of every intent in turn."""
    pools = [[text for text, label in train if label == intent] for intent in domains[domain]]
    for pool in pools:
        chance.shuffle(pool)
    chance.shuffle(pools)
    return [pools[place % len(pools)].pop() for place in range(count)]


def manifests(chance):
    def manifest(kind, name, spec):
        return {"apiVersion": "slmswarm.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}

    quickstart = root / "examples/quickstart"
    base = {"source": {"uri": f"file://{quickstart}/models/SmolLM2-135M-Instruct.Q4_1.gguf"}, "adapters": {"slots": len(domains)}}
    yield manifest("SlmModel", "base", base)
    yield manifest("SlmModel", "encoder", {"task": "Embed", "source": {"uri": f"file://{minilm}"}, "runtime": {"precision": "F32"}})
    for domain in domains:
        spec = {"modelRef": {"name": "base"}, "source": {"uri": f"file://{quickstart}/adapters/banking"}}
        yield manifest("LoraAdapter", domain.replace("_", "-"), {**spec, "expert": {"examples": examples(domain, chance)}})
    targets = [{"kind": "LoraAdapter", "name": domain.replace("_", "-")} for domain in domains]
    similarity = {"encoder": {"kind": "SlmModel", "name": "encoder"}, "targets": targets}
    yield manifest("SwarmRoute", "finder", {"similarity": similarity, "fallback": {"kind": "SlmModel", "name": "base"}})


def run(seed):
    with tempfile.TemporaryDirectory() as folder:
        for index, manifest in enumerate(manifests(random.Random(seed))):
            pathlib.Path(folder, f"{index}.yaml").write_text(json.dumps(manifest), encoding="utf-8")
        command = [binary, "up", "-f", folder, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
        swarm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            address = next(found[1] for line in swarm.stdout if (found := re.search(r"grpc=(\S+)", line)))
            return ask(generation_pb2_grpc.SwarmStub(grpc.insecure_channel(address)))
        finally:
            swarm.terminate()
            swarm.wait(60)


def ask(stub):
    def one(case):
        text, intent = case
        begun = time.perf_counter()
        decision = stub.Explain(pb.GenerateRequest(model="finder", messages=pb.Messages(messages=[pb.Message(role="user", content=text)])))
        took = time.perf_counter() - begun
        assert decision.HasField("similarity"), decision
        is_out = decision.similarity.scope == pb.SCOPE_OUT
        return domain_of.get(intent), is_out, not is_out and decision.chosen.name == domain_of.get(intent), took

    one(asked[0])
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as threads:
        answers = list(threads.map(one, asked))
    inside = [answer for answer in answers if answer[0]]
    outside = [answer for answer in answers if not answer[0]]
    times = sorted(answer[3] for answer in answers)
    return {
        "found": statistics.mean(answer[2] for answer in inside),
        "out found": statistics.mean(answer[1] for answer in outside),
        "falsely out": statistics.mean(answer[1] for answer in inside),
        "p50 ms": 1e3 * times[len(times) // 2],
        "p99 ms": 1e3 * times[len(times) * 99 // 100],
    }


print(f"{len(asked)} texts, {len(domains)} experts, {count} examples of each, {CLIENTS} callers at a time")
rows = []
for seed in range(seeds):
    rows.append(run(seed))
    print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
print("mean:   " + ", ".join(f"{name} {statistics.mean(row[name] for row in rows):.3f}" for name in rows[0]))
