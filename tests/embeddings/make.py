"""Makes the fixtures of this folder: tiny encoders with random weights, LoRA adapters on some, and what sentence-transformers and
transformers make with them: vectors, scores of pairs, and probabilities of labels; and the vectors of a real model.

usage: make.py tiny OUT_DIR [NAME...]
       make.py real MODEL_DIR OUT_FILE [COUNT]

A NAME is a folder of OUT_DIR, such as bert or rerank/roberta; without any, all are made.

Needs torch, transformers, sentence-transformers, peft and safetensors; runs on a CPU in a minute.
"""

import json
import random
import sys
import zlib
from pathlib import Path

import peft
import sentence_transformers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
SHAPE = dict(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, pad_token_id=1)
SMALL = dict(SHAPE, hidden_size=32, intermediate_size=64, num_attention_heads=2)
DISTIL = dict(vocab_size=128, dim=64, hidden_dim=96, n_layers=2, n_heads=4, pad_token_id=1)
# Model type, configuration, pooling, whether vectors are normalised, and dense modules.
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
    "mpnet": ("mpnet", dict(SMALL, max_position_embeddings=82), "mean_tokens", True),
    "nomic_bert": (
        "nomic_bert", dict(SMALL, max_position_embeddings=80, rope_parameters={"rope_type": "default", "rope_theta": 1000.0}),
        "mean_tokens", True,
    ),
    # As embeddinggemma: a decoder whose tokens see each other, and two dense layers.
    "gemma3": (
        "gemma3_text",
        dict(SMALL, num_hidden_layers=3, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, sliding_window=16,
             layer_types=["sliding_attention", "sliding_attention", "full_attention"], max_position_embeddings=80,
             use_bidirectional_attention=True),
        "mean_tokens", True,
        [(96, "torch.nn.modules.linear.Identity", False), (24, "torch.nn.modules.activation.Tanh", True)],
    ),
}
# Models with a head for labels.
HEADED = {
    "bert": dict(SMALL, max_position_embeddings=80),
    "roberta": dict(SMALL, max_position_embeddings=82, type_vocab_size=1),
    "distilbert": dict(DISTIL, dim=32, hidden_dim=64, n_heads=2, max_position_embeddings=80),
    "modernbert": dict(SMALL, max_position_embeddings=80, local_attention=16, global_attn_every_n_layers=2),
    "mpnet": dict(SMALL, max_position_embeddings=82),
}
TEXTS = [
    "a", "hello world", "The quick brown fox jumps over the lazy dog.", "42 + 17 = 59!", "Ünïcödé and ASCII",
    "one two three four five six seven eight nine ten", "x y z", "to be or not to be",
]
QUERY = "to be or not to be?"
# The last one is cut.
DOCUMENTS = [*TEXTS, "to be or not to be, that is the question " * 4]


def tokenizer(pair_types=True):
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters)]
    words += [".", ",", "!", "+", "=", "the", "to", "be", "hello", "world", "one", "##er", "##ow", "##ing"]
    made = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", *(["token_type_ids"] if pair_types else []), "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=80, model_input_names=names,
    )


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")


def describe(folder, pooling, normalize, width, dense):
    """The files of sentence-transformers, as its version 2 wrote them. `dense` are outputs and activations of Dense modules."""
    kinds = ["Transformer", "Pooling"] + ["Dense"] * len(dense) + ["Normalize"] * normalize
    paths = ["" if i == 0 else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    write(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ])
    write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False})
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
    write(folder / "1_Pooling/config.json",
          {"word_embedding_dimension": width, **{f"pooling_mode_{mode}": mode == pooling for mode in modes},
           "pooling_mode_lasttoken": pooling == "lasttoken"})
    for index, (outputs, activation, bias) in enumerate(dense, start=2):
        module = folder / f"{index}_Dense"
        write(module / "config.json", {"in_features": width, "out_features": outputs, "bias": bias, "activation_function": activation})
        tensors = {"linear.weight": (torch.randn(outputs, width) * 0.2).half()}
        if bias:
            tensors["linear.bias"] = (torch.randn(outputs) * 0.2).half()
        save_file(tensors, module / "model.safetensors")
        width = outputs


def vectors(folder, texts, adapter=None):
    # Not in 16 bits and then wider, which would round what is computed when the model is made.
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32}).float()
    if adapter:
        model[0].auto_model = peft.PeftModel.from_pretrained(model[0].auto_model, adapter)
    made = [model.encode([text], convert_to_tensor=True)[0] for text in texts]
    return torch.stack(made).float().contiguous()


def randomized(model, std=0.2):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def embedder(folder, kind, fields, pooling, normalize, dense=()):
    config = transformers.AutoConfig.for_model(kind, **fields)
    randomized(transformers.AutoModel.from_config(config)).half().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    describe(folder, pooling, normalize, fields.get("hidden_size", fields.get("dim")), dense)
    save_file({"vectors": vectors(folder, TEXTS)}, folder / "vectors.safetensors")


def embedder_adapter(folder, base):
    lora = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION", r=4, lora_alpha=8, target_modules=["query", "key", "value", "dense"],
    )
    save_adapter(folder, peft.get_peft_model(transformers.AutoModel.from_pretrained(base).float(), lora))
    save_file({"vectors": vectors(base, TEXTS, folder)}, folder / "vectors.safetensors")


def save_adapter(folder, model):
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    settings = model.peft_config["default"]
    # Without the folder that this was made in.
    settings.base_model_name_or_path = "/".join(Path(settings.base_model_name_or_path).parts[-2:])
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def headed(folder, kind, labels, **also):
    """A model with a head for labels. Their names and number go into config.json."""
    config = transformers.AutoConfig.for_model(kind, **HEADED[kind], **also)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    # Large weights, so that scores lie far apart.
    model = randomized(transformers.AutoModelForSequenceClassification.from_config(config), std=0.5)
    model.half().save_pretrained(folder)
    # Models that know no token types are not given any.
    tokenizer(pair_types=kind == "bert").save_pretrained(folder)


def scores(folder, adapter=None):
    """What sentence-transformers makes of the query with each document."""
    encoder = sentence_transformers.CrossEncoder(str(folder), device="cpu")
    encoder.model.float()
    if adapter:
        encoder[0].auto_model = peft.PeftModel.from_pretrained(encoder[0].auto_model, adapter)
    return [float(encoder.predict([(QUERY, document)])[0]) for document in DOCUMENTS]


def reranker(folder, kind, **also):
    made = [0]
    # Scores that lie far apart tell a wrong one from a right one.
    while max(made) - min(made) < 0.1:
        headed(folder, kind, ["LABEL_0"], **also)
        made = scores(folder)
    write(folder / "scores.json", made)


def probabilities(folder, adapter=None):
    """What the pipeline of transformers makes of each text, in the order of labels."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).float().eval()
    order = list(model.config.id2label.values())
    if adapter:
        model = peft.PeftModel.from_pretrained(model, adapter)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=words, top_k=None, device="cpu")
    rows = [{item["label"]: item["score"] for item in classify([text])[0]} for text in TEXTS]
    return [[row[label] for label in order] for row in rows]


def classifier(folder, kind, labels, **also):
    headed(folder, kind, labels, **also)
    write(folder / "probabilities.json", probabilities(folder))


def headed_adapter(folder, base, outcome, reference, **also):
    """An adapter that changes the encoder and the head."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base).float()
    lora = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, **also)
    save_adapter(folder, peft.get_peft_model(model, lora))
    write(folder / outcome, reference(base, folder))


def tiny(out, wanted):
    write(out / "texts.json", TEXTS)
    write(out / "rerank/pairs.json", {"query": QUERY, "documents": DOCUMENTS})
    attention = ["query", "key", "value", "dense"]
    made = {name: (lambda folder, of=of: embedder(folder, *of)) for name, of in FAMILIES.items()}
    made["bert-adapter"] = lambda folder: embedder_adapter(folder, out / "bert")
    for kind in HEADED:
        # The other pooling of a head is in the classifier of the family.
        also = {"classifier_pooling": "mean"} if kind == "modernbert" else {}
        made[f"rerank/{kind}"] = lambda folder, kind=kind, also=also: reranker(folder, kind, **also)
    made["rerank/bert-adapter"] = lambda folder: headed_adapter(
        folder, out / "rerank/bert", "scores.json", scores, target_modules=attention)
    made["classify/bert"] = lambda folder: classifier(folder, "bert", ["no", "yes", "perhaps"])
    made["classify/roberta"] = lambda folder: classifier(
        folder, "roberta", ["long", "short"], problem_type="multi_label_classification")
    made["classify/modernbert"] = lambda folder: classifier(folder, "modernbert", ["bad", "good"])
    made["classify/roberta-adapter"] = lambda folder: headed_adapter(
        folder, out / "classify/roberta", "probabilities.json", probabilities, target_modules=["query", "value"])
    for name, make in made.items():
        if not wanted or name in wanted:
            torch.manual_seed(zlib.crc32(name.encode()))
            make(out / name)


def sentences(count):
    """Texts of 1 to 300 words: some in other scripts, then pieces of this repository's licence, each as its first word and its length."""
    words = licence()
    draw = random.Random(7)
    made = ["Grüße aus Köln, où l'été fut très chaud.", "東京は今日も暑い。", "🙂 emoji & <tags> [SEP] ###", "ПРИВЕТ мир"]
    pieces = count - len(made)
    for index in range(pieces):
        length = 1 + index * 299 // (pieces - 1)
        begin = draw.randrange(len(words) - length)
        made.append([begin, length])
    return made


def licence():
    return (HERE / "../../LICENSE").read_text().split()


def text(piece):
    """A text of `sentences`."""
    if isinstance(piece, str):
        return piece
    begin, length = piece
    return " ".join(licence()[begin:begin + length])


def real(model, out, count):
    pieces = sentences(count)
    out.with_suffix(".json").write_text(json.dumps(pieces, ensure_ascii=False) + "\n")
    save_file({"vectors": vectors(model, [text(piece) for piece in pieces]).half()}, out)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["tiny", out, *names]:
            tiny(Path(out), names)
        case ["real", model, out, *count]:
            real(Path(model), Path(out), int(count[0]) if count else 500)
        case _:
            sys.exit(__doc__)
