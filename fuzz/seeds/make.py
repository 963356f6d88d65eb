"""Makes the seeds of the fuzz targets: one small input that is good, for each, and a few of other forms.

usage: make.py          writes beside itself; needs nothing but Python
"""

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
HIDDEN, INNER, VOCABULARY = 32, 32, 24
LAYER = "model.layers.0."
SHAPES = {
    "model.embed_tokens.weight": [VOCABULARY, HIDDEN],
    "model.norm.weight": [HIDDEN],
    LAYER + "input_layernorm.weight": [HIDDEN],
    LAYER + "post_attention_layernorm.weight": [HIDDEN],
    LAYER + "self_attn.q_proj.weight": [HIDDEN, HIDDEN],
    LAYER + "self_attn.k_proj.weight": [8, HIDDEN],
    LAYER + "self_attn.v_proj.weight": [8, HIDDEN],
    LAYER + "self_attn.o_proj.weight": [HIDDEN, HIDDEN],
    LAYER + "mlp.gate_proj.weight": [INNER, HIDDEN],
    LAYER + "mlp.up_proj.weight": [INNER, HIDDEN],
    LAYER + "mlp.down_proj.weight": [HIDDEN, INNER],
}
GGUF_NAMES = {
    "embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "blk.0.attn_norm",
    "post_attention_layernorm": "blk.0.ffn_norm", "q_proj": "blk.0.attn_q", "k_proj": "blk.0.attn_k",
    "v_proj": "blk.0.attn_v", "o_proj": "blk.0.attn_output", "gate_proj": "blk.0.ffn_gate", "up_proj": "blk.0.ffn_up",
    "down_proj": "blk.0.ffn_down",
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": VOCABULARY,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float16",
}
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}{{ bos_token }}{% endif %}"
    "<|im_start|>{{ message['role'] + '\\n' + message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS = ["<s>", "</s>", "<unk>", *"abcdefghijklmno", "ab", "bc", "\u0120a", "\u0120", "!", "\u2581"]


def seed(target, name, data):
    folder = HERE / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(shapes, dtype="F16", data=None):
    """Zeros of these shapes, except where `data` has bytes; a shape may be a pair of type and shape."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    sizes = {"F32": 4, "I32": 4, "F16": 2, "U8": 1, "I8": 1, "F8_E4M3": 1}
    for name, shape in shapes.items():
        kind, shape = shape if isinstance(shape, tuple) else (dtype, shape)
        length = sizes[kind]
        for side in shape:
            length *= side
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(body), len(body) + length]}
        body += (data or {}).get(name, bytes(length))
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + body


def quantized(settings, parts, data=None):
    """A line of settings, and the model with one packed projection of 32 x 32."""
    module = LAYER + "self_attn.q_proj."
    shapes = {name: shape for name, shape in SHAPES.items() if name != module + "weight"}
    shapes.update({module + name: part for name, part in parts.items()})
    data = {module + name: part for name, part in (data or {}).items()}
    return json.dumps(settings).encode() + b"\n" + safetensors(shapes, data=data)


def seed_quantized():
    seed("quantized", "fp8", quantized({"quant_method": "fp8", "weight_block_size": [16, 32]},
         {"weight": ("F8_E4M3", [32, 32]), "weight_scale_inv": ("F32", [2, 1])}))
    state = b'{"blocksize": 64, "shape": [32, 32], "nested_blocksize": 8, "nested_offset": 0.5}'
    key = "weight.quant_state.bitsandbytes__nf4"
    seed("quantized", "nf4", quantized({"quant_method": "bitsandbytes"},
         {"weight": ("U8", [512, 1]), "weight.absmax": ("U8", [16]), "weight.quant_map": ("F32", [16]),
          "weight.nested_absmax": ("F32", [2]), "weight.nested_quant_map": ("F32", [256]), key: ("U8", [len(state)])},
         {key: state}))
    seed("quantized", "int8", quantized({"quant_method": "bitsandbytes"}, {"weight": ("I8", [32, 32]), "SCB": ("F32", [32])}))
    seed("quantized", "gptq", quantized({"quant_method": "gptq", "bits": 3, "group_size": 16},
         {"qweight": ("I32", [3, 32]), "qzeros": ("I32", [2, 3]), "scales": ("F16", [2, 32]), "g_idx": ("I32", [32])}))
    seed("quantized", "awq", quantized({"quant_method": "awq", "bits": 4, "group_size": 16},
         {"qweight": ("I32", [32, 4]), "qzeros": ("I32", [2, 4]), "scales": ("F16", [2, 32])}))
    weights = {"num_bits": 4, "symmetric": False, "strategy": "group", "group_size": 16}
    group = {"group_0": {"targets": ["re:.*q_proj"], "weights": weights}}
    seed("quantized", "packed", quantized(
         {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"], "config_groups": group},
         {"weight_packed": ("I32", [32, 4]), "weight_scale": ("F16", [32, 2]), "weight_zero_point": ("I32", [4, 2]),
          "weight_shape": ("I32", [2])}, {"weight_shape": struct.pack("<ii", 32, 32)}))


def gguf_text(text):
    text = text.encode()
    return struct.pack("<Q", len(text)) + text


def gguf_value(value):
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_text(value)
    items = [gguf_value(item) for item in value]
    return struct.pack("<I", 9) + items[0][:4] + struct.pack("<Q", len(items)) + b"".join(item[4:] for item in items)


def gguf(tokenizer, matrix_type, block_bytes):
    """Vectors are F32. Each row of a matrix is one block of 32 values."""
    fields = {
        "general.architecture": "llama", "general.alignment": 32, "llama.context_length": 64,
        "llama.embedding_length": HIDDEN, "llama.block_count": 1, "llama.feed_forward_length": INNER,
        "llama.attention.head_count": 4, "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 8, "tokenizer.ggml.tokens": TOKENS, "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.token_type": [3, 3, 2] + [1] * (len(TOKENS) - 3), "tokenizer.chat_template": TEMPLATE, **tokenizer,
    }
    infos, at = b"", 0
    for name, shape in SHAPES.items():
        stored = next(to for part, to in GGUF_NAMES.items() if part in name) + ".weight"
        is_matrix = len(shape) == 2
        infos += gguf_text(stored) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", side) for side in reversed(shape))
        infos += struct.pack("<IQ", matrix_type if is_matrix else 0, at)
        length = shape[0] * block_bytes if is_matrix else 4 * shape[0]
        at += (length + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(SHAPES), len(fields))
    head += b"".join(gguf_text(key) + gguf_value(value) for key, value in fields.items()) + infos
    return head + bytes(-len(head) % 32) + bytes(at)


def byte_level():
    vocabulary = {token: at for at, token in enumerate(TOKENS)}
    added = [{"id": at, "content": TOKENS[at], "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for at in (0, 1, 2)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\s+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocabulary, "merges": [["a", "b"], ["b", "c"], ["\u0120", "a"]]},
    }


def metaspace():
    form = byte_level()
    form["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    form["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    form["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    form["model"] = {"type": "Unigram", "unk_id": 2, "byte_fallback": True,
                     "vocab": [[token, -float(at)] for at, token in enumerate(TOKENS)]}
    return form


def archive(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                tar.addfile(info)
    return out.getvalue()


def main():
    seed("model", "config.json", json.dumps(CONFIG, indent=1))
    pairs = {}
    for name in ("q_proj", "v_proj"):
        path = f"base_model.model.{LAYER}self_attn.{name}"
        pairs[path + ".lora_A.weight"] = [2, HIDDEN]
        pairs[path + ".lora_B.weight"] = [HIDDEN if name == "q_proj" else 8, 2]
    seed("model", "adapter_model.safetensors", safetensors(pairs))
    seed("safetensors", "model", safetensors(SHAPES))
    seed_quantized()

    bpe = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": ["a b", "b c", "\u0120 a"]}
    pieces = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [-float(at) for at in range(len(TOKENS))]}
    seed("gguf", "byte-level-q4_0", gguf(bpe, 2, 18))
    seed("gguf", "sentence-piece-q8_0", gguf(pieces, 8, 34))

    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none",
             "task_type": "CAUSAL_LM", "use_rslora": False}
    seed("adapter_config", "plain", json.dumps(plain))
    seed("adapter_config", "patterns", json.dumps({**plain, "target_modules": ".*\\.(q|v)_proj", "exclude_modules": "lm_head",
         "rank_pattern": {"^model.layers.0.*q_proj": 2}, "alpha_pattern": {"(?<!k)_proj": 8},
         "layers_to_transform": [0], "layers_pattern": "layers"}))

    seed("tokenizer_json", "byte-level", json.dumps(byte_level(), ensure_ascii=False))
    seed("tokenizer_json", "metaspace", json.dumps(metaspace(), ensure_ascii=False))

    seed("chat_template", "chatml", TEMPLATE)
    seed("chat_template", "features", "{%- set ns = namespace(n=0) %}{%- macro m(x) %}{{ x.rsplit(' ', 1) | join('-') }}"
         "{%- endmacro %}{%- for i in range(3) %}{% set ns.n = ns.n + i %}{{ '%05.2f|%s' % (ns.n, i) }}{%- endfor %}"
         "{{ m('a b c') }}{{ messages[0].content.index('B') }}{{ messages | tojson(indent=2) }}"
         "{{ 'x y'.title().center(9) | truncate(4) }}{{ strftime_now('%d %b %Y') }}{{ cycler('a', 'b').next() }}"
         "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}"
         "{% if x is defined %}{{ raise_exception('no') }}{% endif %}")

    seed("rules", "text", "text.lowerAscii().contains('refund') && size(text) < 400\nI want a refund, lang=de please")
    seed("rules", "messages", "messages.exists(m, m.role == 'user' && m.content.matches('^[a-z ]+$')) || "
         "metadata['lang'] in ['de', 'fr'] ? true : model == 'x'\nlang=de\nhello there")
    seed("rules", "macros", "[1, 2, 3].map(v, v > 1, v * 2).filter(v, v % 2 == 0).exists_one(v, v == 4) && "
         "has(metadata.lang) && {'a': 1u}['a'] == 1u && b'a' == bytes('a') && timestamp('2026-01-01T00:00:00Z') != null\nx")

    file, link, folder, hard = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE
    seed("tar", "model", archive(("model", folder, ""), ("model/config.json", file, b"{}"), ("model/tensors", file, b"abc")))
    seed("tar", "links", archive(("a", file, b"x"), ("b", link, "a"), ("c", hard, "a"), ("d", link, "../archive")))
    seed("tar", "long-name", archive(("n" * 120, file, b"x"), ("m/" * 60 + "f", file, b"y")))
    seed("tar", "gzip", gzip.compress(archive(("config.json", file, b"{}")), mtime=0))

    seed("tokens_yaml", "hash", "- name: team-a\n  sha256: " + "0a" * 32 + "\n  models: [smollm2, 'bank*']\n  group: blue\n  priority: 5\n")
    seed("tokens_yaml", "token", "- {name: b, token: \"0123456789abcdef\"}\n- name: c\n  token: &t fedcba9876543210\n")

    body = {"model": "m", "temperature": 0.5, "top_p": 1, "max_tokens": 9, "stop": ["a", None], "seed": 7, "stream": True,
            "stream_options": {"include_usage": True}, "metadata": {"lang": "de"}, "n": 1, "user": None}
    seed("http_bodies", "chat", json.dumps({**body, "logprobs": True, "top_logprobs": 2, "messages": [
        {"role": "system", "content": "s"}, {"role": "user", "name": "bob", "content": [{"type": "text", "text": "hi"}]}]}))
    seed("http_bodies", "completion", json.dumps({**body, "prompt": ["a", [1, 2]], "logprobs": 2, "echo": False}))
    tool = {"type": "function", "function": {"name": "clock", "description": "d", "parameters": {
        "type": "object", "properties": {"zone": {"enum": ["a", "b"]}}, "required": ["zone"]}}}
    seed("http_bodies", "tools", json.dumps({"model": "m", "tools": [tool], "tool_choice": "required", "messages": [
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "noon"}], "response_format": {"type": "json_schema", "json_schema": {
            "name": "s", "strict": True, "schema": {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": True}}}}}))
    seed("http_bodies", "responses", json.dumps({"model": "m", "instructions": "i", "max_output_tokens": 5, "stream": True,
        "tools": [{"type": "function", "strict": True, **tool["function"]}], "text": {"format": {"type": "json_object"}},
        "reasoning": {"effort": "low"}, "input": [{"role": "user", "content": [{"type": "input_text", "text": "t"}]},
            {"type": "function_call", "call_id": "c", "name": "clock", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "noon"}]}))
    seed("http_bodies", "anthropic", json.dumps({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}],
        "tools": [{"name": "clock", "input_schema": tool["function"]["parameters"]}], "tool_choice": {"type": "any"},
        "thinking": {"type": "enabled", "budget_tokens": 1024}, "stop_sequences": ["x"], "messages": [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "clock", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "noon"}]}]}))
    options = {"num_predict": 4, "temperature": 0, "stop": ["x"], "num_ctx": 2048, "seed": 1}
    seed("http_bodies", "ollama", json.dumps({"model": "m:latest", "stream": False, "options": options, "format": "json",
        "keep_alive": "5m", "tools": [tool], "messages": [{"role": "user", "content": "u"}]}))
    seed("http_bodies", "ollama-text", json.dumps({"model": "m", "prompt": "p", "raw": True, "options": options}))
    seed("http_bodies", "embeddings", json.dumps({"model": "m", "input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 8}))
    seed("http_bodies", "text-input", json.dumps({"text_input": "t", "parameters": {"max_tokens": 4, "temperature": 0.5}}))
    seed("http_bodies", "tokens", json.dumps({"model": "m", "prompt": [1, 2, 3], "logit_bias": {"5": -100}}))

    text = {"name": "text_input", "datatype": "BYTES", "shape": [1]}
    whole = {"id": "1", "inputs": [{**text, "data": ["t"]}, {"name": "max_tokens", "datatype": "INT32", "shape": [1], "data": [4]}],
             "outputs": [{"name": "text_output", "parameters": {"binary_data": True}}]}
    seed("tensors", "json", b"\xff\xff" + json.dumps(whole).encode())
    head = json.dumps({"inputs": [{**text, "parameters": {"binary_data_size": 7}},
                                  {"name": "temperature", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}],
                       "parameters": {"binary_data_output": True}}).encode()
    seed("tensors", "binary", struct.pack("<H", len(head)) + head + struct.pack("<I3sf", 3, b"abc", 0.5))

    for config in sorted(HERE.parent.parent.glob("tests/*/data/*/config.json")):
        seed("model_config", config.parent.name, config.read_bytes())
    modules = [{"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for at, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])]
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True, "include_prompt": True}
    seed("embedding_files", "mean", b"\0".join(json.dumps(file).encode() for file in [
        modules, {"max_seq_length": 32, "do_lower_case": False}, {"prompts": {"query": "q: "}, "default_prompt_name": "query"}, pooling]))

    labels, width = [("balance", "banking"), ("transfer", "banking"), ("flight", "travel")], 4
    measure = {"mean": 0.5, "deviation": 2.0}
    head = json.dumps({
        "format": "slm-head/1", "encoder": {"name": "minilm", "model": "sha256:0", "width": width},
        "labels": [{"name": name, "expert": expert} for name, expert in labels],
        "calibration": {"temperature": 1.0, "distance": measure, "energy": measure, "nonconformity": [-1.0, 0.0, 2.0], "texts": 30},
        "training": {"data": "sha256:0", "texts": 30, "folds": 5, "labelAccuracy": 1.0, "expertAccuracy": 1.0},
    }).encode()
    shapes = {"weight": [3, width], "bias": [3], "whitening": [width, width], "means": [3, width]}
    matrices = safetensors(shapes, "F32")
    seed("head", "head.json", head)
    seed("head", "head.safetensors", matrices)
    seed("head", "config", b"\0" + head)
    seed("head", "matrices", b"\1" + matrices)
    seed("labelled_texts", "lines", b'\0{"text": "my balance", "label": "balance", "expert": "banking"}\n{"text": "hamlet"}\n')
    seed("labelled_texts", "table", b'\1text,label,expert\nmy balance,balance,banking\n"a flight, please",travel,\nhamlet,,\n')


if __name__ == "__main__":
    main()
