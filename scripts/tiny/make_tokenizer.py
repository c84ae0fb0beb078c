"""Make the tiny base's tokenizer: CLIP's byte-pair form over our own words."""

import json
from pathlib import Path

from common import draw_scenes
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from nsync.tiny.styles import GENERIC_WORDS
from nsync.tiny.world import PRETRAIN_STYLES

START, END = "<|startoftext|>", "<|endoftext|>"
GRAMMAR = (
    "in the style of a picture of not in the style of , a drawing of an and with by on over at"
)


def corpus() -> list[str]:
    """Every word of the grammar often enough to become one token."""
    words = [s.replace("_", " ") for s in PRETRAIN_STYLES] + list(GENERIC_WORDS)
    return [s.caption() for s in draw_scenes(600, seed=5)] + [GRAMMAR, *words] * 40


def make_tokenizer(folder: Path, window: int) -> CLIPTokenizer:
    """Write vocab.json and merges.txt to `folder`; unknown words fall apart into letters."""
    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1000, min_frequency=2, initial_alphabet=letters, end_of_word_suffix="</w>",
        special_tokens=[], show_progress=False,
    )  # fmt: skip
    model.train_from_iterator(corpus(), trainer)
    trained = json.loads(model.to_str())["model"]
    pieces = letters + [f"{c}</w>" for c in letters]
    pieces += [
        t for t in sorted(trained["vocab"], key=trained["vocab"].get) if t not in set(pieces)
    ]
    vocab = {t: i for i, t in enumerate([*pieces, START, END])}
    merges = [m if isinstance(m, str) else " ".join(m) for m in trained["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=window
    )
