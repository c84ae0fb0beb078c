"""A CLIP of two layers, with a tokenizer of single letters and a few words."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel

from nsync.supcon.clip_encoders import ClipEncoders

WORDS = ("a", "red", "blue", "green", "dot", "dots", "line", "lines", "one", "two", "of")


def tokenizer() -> str:
    """Whole words, with a start and an end."""
    names = ["<start>", "<end>", "<other>", *WORDS]
    numbers = {name: place for place, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(numbers, unk_token="<other>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return made.to_str()


def clip_encoders() -> ClipEncoders:
    """Untrained, always the same."""
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    text = {"vocab_size": 20, "num_attention_heads": 2, "max_position_embeddings": 16}
    vision = {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config=layers | text, vision_config=layers | vision, projection_dim=24)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        clip = CLIPModel(config)
    return ClipEncoders(clip, tokenizer()).eval().requires_grad_(False)
