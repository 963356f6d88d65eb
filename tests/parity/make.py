"""Makes the parity data of this folder: tiny models with random weights, PEFT adapters on them, and what
transformers and peft compute with both.

usage: make.py OUT_DIR [SEED [FAMILY,…]]

Needs torch, transformers, peft and safetensors; runs on a CPU in a minute. See README.md for the layout.
"""

import json
import sys
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

VOCABULARY = 128
PROMPT_LENGTHS = (1, 7, 40)
GREEDY_TOKENS = 24

SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
LLAMA3_ROPE = dict(
    rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=64,
)

# Model type and configuration by family. Sliding windows are shorter than the longest prompt.
FAMILIES = {
    "llama": ("llama", dict(tie_word_embeddings=False)),
    "llama3-rope": ("llama", dict(tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE)),
    # Three heads over one: an odd group, as SmolLM2 has it.
    "smollm2": (
        "llama",
        dict(tie_word_embeddings=True, hidden_size=48, num_attention_heads=3, num_key_value_heads=1,
             rope_parameters=dict(rope_type="default", rope_theta=100000.0)),
    ),
    "mistral": ("mistral", dict(tie_word_embeddings=False, sliding_window=16)),
}
# As FAMILIES; in f16 and with two adapters only, to keep the repository small.
MORE_FAMILIES = {
    "cohere2": ("cohere2", dict(sliding_window=16, sliding_window_pattern=2, logit_scale=0.25)),
    "ernie4_5": ("ernie4_5", dict(head_dim=32, tie_word_embeddings=True)),
    "exaone4": ("exaone4", dict(sliding_window=16, sliding_window_pattern=2)),
    "gemma2": (
        "gemma2",
        dict(head_dim=32, sliding_window=16, query_pre_attn_scalar=24, attn_logit_softcapping=5.0,
             final_logit_softcapping=3.0),
    ),
    "gemma3": ("gemma3_text", dict(head_dim=32, sliding_window=16, query_pre_attn_scalar=24, sliding_window_pattern=2)),
    "glm4": ("glm4", dict(head_dim=32, attention_bias=True)),
    "granite": (
        "granite",
        dict(embedding_multiplier=3.0, attention_multiplier=0.1, residual_multiplier=0.4, logits_scaling=2.0,
             tie_word_embeddings=True),
    ),
    "hunyuan": ("hunyuan_v1_dense", dict(head_dim=32)),
    "lfm2": ("lfm2", dict(layer_types=["full_attention", "full_attention"])),
    "ministral3": ("ministral3", dict(head_dim=32)),
    "nemotron": ("nemotron", dict(head_dim=32, partial_rotary_factor=0.5)),
    "olmo2": ("olmo2", dict()),
    "olmo3": ("olmo3", dict(sliding_window=16, layer_types=["sliding_attention", "full_attention"])),
    "phi2": ("phi", dict(num_key_value_heads=4)),
    "phi3": ("phi3", dict(sliding_window=None, partial_rotary_factor=1.0)),
    # Both factors: of the trained context, and of a longer one.
    "phi3-longrope": (
        "phi3",
        dict(sliding_window=None, original_max_position_embeddings=64, partial_rotary_factor=0.5,
             rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.5,
                                  original_max_position_embeddings=64,
                                  short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 2.0, 3.0, 4.0])),
    ),
    "qwen2": ("qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("qwen3", dict(head_dim=32)),
    "seed_oss": ("seed_oss", dict(head_dim=32, attention_bias=True)),
    "smollm3": ("smollm3", dict(no_rope_layers=[1, 0])),
    "stablelm": ("stablelm", dict(partial_rotary_factor=0.25, use_qkv_bias=True)),
    "starcoder2": ("starcoder2", dict(sliding_window=16)),
    # Rotary embeddings that any family may have.
    "rope-linear": ("llama", dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0))),
    "rope-yarn": (
        "llama",
        dict(rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0,
                                  original_max_position_embeddings=64)),
    ),
    # New ones last: a family's numbers depend on its place. One of three layers is dense.
    "qwen3_moe": (
        "qwen3_moe",
        dict(head_dim=32, num_hidden_layers=3, mlp_only_layers=[1], num_experts=6, num_experts_per_tok=2,
             moe_intermediate_size=32, norm_topk_prob=True),
    ),
    # The last two layers take keys and values of the first ones; where attention is full, values are keys.
    "gemma4": (
        "gemma4_text",
        dict(head_dim=32, global_head_dim=64, num_global_key_value_heads=1, attention_k_eq_v=True, num_hidden_layers=5,
             layer_types=["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
             num_kv_shared_layers=2, sliding_window=16, use_double_wide_mlp=True, hidden_size_per_layer_input=16,
             vocab_size_per_layer_input=VOCABULARY, final_logit_softcapping=3.0),
    ),
    # Short convolutions with biases, and a linear attention.
    "lfm2-conv": (
        "lfm2",
        dict(layer_types=["conv", "full_attention"], conv_bias=True, conv_L_cache=4, block_auto_adjust_ff_dim=False),
    ),
    "qwen3_5": (
        "qwen3_5_text",
        dict(head_dim=32, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
             linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=32,
             tie_word_embeddings=True),
    ),
}

ATTENTION = ["q_proj", "v_proj"]
LINEAR = "all-linear"
ADAPTERS = {
    "r4-all": dict(r=4, lora_alpha=8, target_modules=LINEAR),
    "r8-attn": dict(r=8, lora_alpha=16, target_modules=ATTENTION),
    "rslora": dict(r=6, lora_alpha=6, use_rslora=True, target_modules=LINEAR),
    "patterns": dict(
        r=4, lora_alpha=8, target_modules=LINEAR,
        rank_pattern={r"layers.1.*down_proj": 2, r"q_proj": 3}, alpha_pattern={"o_proj": 32},
    ),
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=LINEAR),
}
FEW_ADAPTERS = {name: ADAPTERS[name] for name in ("r4-all", "patterns")}
# PEFT takes names of dense blocks for those of experts, too.
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS_OF_EXPERTS = {name: settings | dict(target_modules=PROJECTIONS) for name, settings in FEW_ADAPTERS.items()}
ADAPTERS_OF_EXPERTS["experts"] = dict(r=1, lora_alpha=2, target_modules=LINEAR)
MUST_BE_REJECTED = {
    "dora": "DoRA is not plain LoRA: loading must fail with a message that names use_dora\n",
    "experts": "Experts cannot be adapted: loading must fail with a message that names target_parameters\n",
}


def randomise(model, seed):
    """Weights that give logits of ordinary size and keep every token in play."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("A_log"):
                # Heads that forget within a few tokens, and heads that remember the whole prompt.
                parameter.copy_(-3 + 1.5 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * noise)
            else:
                width = 0.5 if "embed" in name else 1.2
                parameter.copy_(width * noise / parameter.shape[-1] ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.copy_(1 + 0.2 * torch.randn(buffer.shape, generator=generator))


def randomise_adapter(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.6 * noise / parameter.shape[-1] ** 0.5)


@torch.no_grad()
def vectors(model, prompts):
    tensors = {}
    for index, prompt in enumerate(prompts):
        ids = prompt
        for _ in range(GREEDY_TOKENS):
            following = model(input_ids=ids[None]).logits[0, -1].argmax()
            ids = torch.cat([ids, following[None]])
        tensors[f"prompt.{index}"] = prompt
        tensors[f"logits.{index}"] = model(input_ids=prompt[None]).logits[0].float().contiguous()
        tensors[f"greedy.{index}"] = ids[len(prompt):].clone()
    return tensors


def make_adapter(base, folder, name, settings, prompts, seed):
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **settings)
    model = get_peft_model(load(base), config)
    randomise_adapter(model, seed)
    model.eval().save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes the targets as a set, in another order each time.
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text())
    for key in ("target_modules", "target_parameters"):
        if isinstance(saved.get(key), list):
            saved[key].sort()
    saved["base_model_name_or_path"] = base.name
    path.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    if name in MUST_BE_REJECTED:
        (folder / "MUST_BE_REJECTED").write_text(MUST_BE_REJECTED[name])
    else:
        save_file(vectors(model, prompts), folder / "vectors.safetensors")


def load(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def main():
    out, seed = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2026
    only = sys.argv[3].split(",") if len(sys.argv) > 3 else None
    for number, (name, (model_type, over)) in enumerate((FAMILIES | MORE_FAMILIES).items()):
        if only and name not in only:
            continue
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        config = transformers.CONFIG_MAPPING[model_type](**{**SHAPE, **over}, attn_implementation="eager")
        model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
        randomise(model, seed + number)
        (model.half() if name in MORE_FAMILIES else model).save_pretrained(folder)
        model = load(folder)
        generator = torch.Generator().manual_seed(seed + 100 + number)
        prompts = [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in PROMPT_LENGTHS]
        save_file(vectors(model, prompts), folder / "vectors.safetensors")
        adapters = ADAPTERS if name in FAMILIES else ADAPTERS_OF_EXPERTS if name == "qwen3_moe" else FEW_ADAPTERS
        for index, (adapter, settings) in enumerate(adapters.items()):
            target = folder / "adapters" / adapter
            make_adapter(folder, target, adapter, settings, prompts, seed + 1000 + 10 * number + index)
        print(name, sum(parameter.numel() for parameter in model.parameters()), "weights", flush=True)
    made = dict(seed=seed, torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__)
    (out / "MADE_WITH.json").write_text(json.dumps(made, indent=2) + "\n")


main()
