"""Texts a second at 8 clients: `slm up` through HTTP, beside sentence-transformers and a plain ONNX Runtime pipeline in this process.

usage: embeddings.py MODEL_DIR TEXTS_JSON [SECONDS [SLM_BINARY]]

The peers get batches of 8 texts from a loop, without any network or client: more than a server around them could do. Rounds of all
are interleaved. Needs sentence-transformers, onnx, onnxruntime and torch; MODEL_DIR is a folder of sentence-transformers whose
vectors are normalised means, TEXTS_JSON a list of texts, or of pieces of the licence as ../embeddings/make.py writes them.
"""

import base64
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

CLIENTS, ROUNDS, THREADS = 8, 5, 2
LENGTH = 256
MANIFEST = """apiVersion: slmswarm.io/v1alpha1
kind: SlmModel
metadata: {{ name: {name} }}
spec:
  task: Embed
  source: {{ uri: "file://{model}" }}
  runtime: {{ precision: {precision}, threads: {threads} }}
"""


class Peer:
    """A pipeline in this process."""

    def __init__(self, name, embed):
        self.name, self.embed = name, embed

    def round(self, texts, seconds):
        begun, done, at = time.perf_counter(), 0, 0
        while time.perf_counter() - begun < seconds:
            self.embed([texts[(at + i) % len(texts)] for i in range(CLIENTS)])
            at, done = at + CLIENTS, done + CLIENTS
        return done / (time.perf_counter() - begun)


class Swarm:
    """A model of a running swarm, asked by as many clients over connections that stay open."""

    def __init__(self, name, port):
        self.name, self.port = name, port

    def ask(self, connection, text):
        body = json.dumps({"model": self.name, "input": text, "encoding_format": "base64", "truncate": True})
        connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(answer.decode())
        return answer

    def embed(self, texts):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        answers = [json.loads(self.ask(connection, text)) for text in texts]
        return [numpy.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4") for answer in answers]

    def round(self, texts, seconds):
        counts, begun = [0] * CLIENTS, time.perf_counter()

        def client(index):
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            at = index
            while time.perf_counter() - begun < seconds:
                self.ask(connection, texts[at % len(texts)])
                at, counts[index] = at + CLIENTS, counts[index] + 1

        threads = [threading.Thread(target=client, args=[index]) for index in range(CLIENTS)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return sum(counts) / (time.perf_counter() - begun)


def exported(model, folder):
    """The transformer as an ONNX file, and the same with 8-bit weights."""
    transformer = SentenceTransformer(str(model), device="cpu")[0].auto_model.eval().requires_grad_(False)
    transformer.config._attn_implementation = "eager"
    path, small = folder / "model.onnx", folder / "model-int8.onnx"
    one = torch.ones((1, 8), dtype=torch.int64)
    axes = {0: "batch", 1: "length"}

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = transformer

        def forward(self, ids, mask, types):
            return self.transformer(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    torch.onnx.export(Plain(), (one, one, one * 0), str(path), input_names=["ids", "mask", "types"],
                      output_names=["states"], dynamic_axes={"ids": axes, "mask": axes, "types": axes, "states": axes},
                      opset_version=17, dynamo=False)
    quantize_dynamic(str(path), str(small), weight_type=QuantType.QInt8)
    return path, small


def pipeline(model, path):
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(texts):
        encodings = tokenizer.encode_batch(texts)
        ids = numpy.array([encoding.ids for encoding in encodings])
        mask = numpy.array([encoding.attention_mask for encoding in encodings])
        states = session.run(None, {"ids": ids, "mask": mask, "types": ids * 0})[0]
        means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return means / numpy.linalg.norm(means, axis=1, keepdims=True)

    return embed


def started(binary, folder, models):
    for name, (model, precision) in models.items():
        manifest = MANIFEST.format(name=name, model=model, precision=precision, threads=THREADS)
        (folder / f"{name}.yaml").write_text(manifest)
    up = subprocess.Popen([binary, "up", "-f", str(folder), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
                          stdout=subprocess.PIPE, text=True)
    # The only line of its output, when every model is ready; none if one cannot be, of which it says why itself.
    line = up.stdout.readline()
    if not line.startswith("ready http="):
        raise SystemExit(f"the swarm did not get ready: {binary} ended with exit code {up.wait()}")
    port = int(line.split()[1].rpartition(":")[2])
    return up, [Swarm(name, port) for name in models]


def compare(title, systems, texts, seconds):
    rates = {system.name: [] for system in systems}
    for _ in range(ROUNDS):
        for system in systems:
            rates[system.name].append(system.round(texts, seconds))
    print(f"\n{title}: texts a second, median of {ROUNDS} rounds of {seconds} s (all)")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"  {name:24} {medians[name]:8.1f}   {' '.join(f'{rate:.1f}' for rate in found)}")
    for name in ("slm-f32", "slm-int8"):
        others = [f"{medians[name] / median:.2f} x {other}" for other, median in medians.items() if not other.startswith("slm")]
        print(f"  {name} is {', '.join(others)}")


def main(model, texts, seconds, binary):
    torch.set_num_threads(THREADS)
    words = (Path(__file__).parent / "../../LICENSE").read_text().split()
    texts = json.loads(Path(texts).read_text())
    texts = [text if isinstance(text, str) else " ".join(words[text[0]:text[0] + text[1]]) for text in texts]
    random.Random(3).shuffle(texts)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        path, small = exported(model, folder)
        reference = SentenceTransformer(str(model), device="cpu")
        peers = [Peer("sentence-transformers", lambda texts: reference.encode(texts, batch_size=CLIENTS)),
                 Peer("onnxruntime-f32", pipeline(model, path)), Peer("onnxruntime-int8", pipeline(model, small))]
        manifests = folder / "manifests"
        manifests.mkdir()
        up, swarms = started(binary, manifests, {"slm-f32": (model, "F32"), "slm-int8": (model, "Int8")})
        try:
            want = reference.encode(texts[:32])
            for system in swarms + peers[1:]:
                got = numpy.array(system.embed(texts[:32]))
                print(f"{system.name}: lowest cosine to sentence-transformers {(got * want).sum(1).min():.5f}")
            short = [" ".join(text.split()[: 1 + index % 30]) for index, text in enumerate(texts)]
            compare("texts of 1 to 300 words", swarms + peers, texts, seconds)
            compare("texts of 1 to 30 words", swarms + peers, short, seconds)
        finally:
            up.terminate()
            up.wait()


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    named = sys.argv[4] if len(sys.argv) > 4 else os.environ.get("SLM_BIN", "slm")
    main(Path(sys.argv[1]).resolve(), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 4.0, named)
