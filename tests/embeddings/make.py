"""Makes the fixtures of this folder: tiny encoders with random weights, a LoRA adapter on one, and the vectors that
sentence-transformers makes with them; and the vectors of a real model for the texts of texts.json.

usage: make.py tiny OUT_DIR
       make.py real MODEL_DIR OUT_FILE [COUNT]

Needs torch, transformers, sentence-transformers, peft and safetensors; runs on a CPU in a minute.
"""

import json
import random
import sys
from pathlib import Path

import peft
import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
SHAPE = dict(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, pad_token_id=1)
DISTIL = dict(vocab_size=128, dim=64, hidden_dim=96, n_layers=2, n_heads=4, pad_token_id=1)
# Model type, configuration, pooling, and whether vectors are normalised.
FAMILIES = {
    "bert": ("bert", dict(SHAPE, max_position_embeddings=80), "cls_token", True),
    "roberta": ("roberta", dict(SHAPE, max_position_embeddings=82, type_vocab_size=1), "mean_tokens", False),
    "distilbert": ("distilbert", dict(DISTIL, max_position_embeddings=80), "max_tokens", True),
    "modernbert": (
        "modernbert", dict(SHAPE, num_hidden_layers=3, max_position_embeddings=80, local_attention=16), "mean_tokens", True
    ),
    # A decoder, saved without its head as sentence-transformers does.
    "qwen3": (
        "qwen3", dict(SHAPE, num_key_value_heads=2, head_dim=16, max_position_embeddings=80, tie_word_embeddings=True),
        "lasttoken", True,
    ),
}
TEXTS = [
    "a", "hello world", "The quick brown fox jumps over the lazy dog.", "42 + 17 = 59!", "Ünïcödé and ASCII",
    "one two three four five six seven eight nine ten", "x y z", "to be or not to be",
]


def tokenizer():
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    words += [".", ",", "!", "+", "=", "the", "to", "be", "hello", "world", "one", "##er", "##ow", "##ing"]
    made = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=80,
    )


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def describe(folder, pooling, normalize):
    """The files of sentence-transformers, as its version 2 wrote them."""
    kinds = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    paths = ["", "1_Pooling", "2_Normalize"]
    write(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ])
    write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
    write(folder / "1_Pooling/config.json",
          {"word_embedding_dimension": 64, **{f"pooling_mode_{mode}": mode == pooling for mode in modes},
           "pooling_mode_lasttoken": pooling == "lasttoken"})


def vectors(folder, texts, adapter=None):
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    model[0].auto_model.float()
    if adapter:
        model[0].auto_model = peft.PeftModel.from_pretrained(model[0].auto_model, adapter)
    made = [model.encode([text], convert_to_tensor=True)[0] for text in texts]
    return torch.stack(made).float().contiguous()


def tiny(out):
    torch.manual_seed(20)
    write(out / "texts.json", TEXTS)
    for name, (kind, fields, pooling, normalize) in FAMILIES.items():
        folder = out / name
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **fields))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.half().save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        describe(folder, pooling, normalize)
        save_file({"vectors": vectors(folder, TEXTS)}, folder / "vectors.safetensors")
    lora = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION", r=4, lora_alpha=8, target_modules=["query", "key", "value", "dense"],
    )
    adapted = peft.get_peft_model(transformers.AutoModel.from_pretrained(out / "bert").float(), lora)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapter = out / "bert-adapter"
    adapted.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)
    save_file({"vectors": vectors(out / "bert", TEXTS, adapter)}, adapter / "vectors.safetensors")


def sentences(count):
    """Texts of 1 to 300 words: pieces of this repository's licence, in turn with some in other scripts."""
    words = (HERE / "../../LICENSE").read_text().split()
    draw = random.Random(7)
    made = ["Grüße aus Köln, où l'été fut très chaud.", "東京は今日も暑い。", "🙂 emoji & <tags> [SEP] ###", "ПРИВЕТ мир"]
    pieces = count - len(made)
    for index in range(pieces):
        length = 1 + index * 299 // (pieces - 1)
        begin = draw.randrange(len(words) - length)
        made.append(" ".join(words[begin:begin + length]))
    return made


def real(model, out, count):
    texts = sentences(count)
    write(out.with_suffix(".json"), texts)
    save_file({"vectors": vectors(model, texts)}, out)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["tiny", out]:
            tiny(Path(out))
        case ["real", model, out, *count]:
            real(Path(model), Path(out), int(count[0]) if count else 40)
        case _:
            sys.exit(__doc__)
