"""Real vision-language models of three families with random weights, a few kilobytes each.

Made in place with transformers' own classes: tokenizer, image processor, model, all saved to a
folder in the form in which a downloaded model lies there.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>", "<image>")
WORDS = (*SPECIAL, *(f"word{number}" for number in range(55)))
PAD, CLS, SEP, BEGIN, END, IMAGE = (
    WORDS.index(word) for word in ("[PAD]", "[CLS]", "[SEP]", "<s>", "</s>", "<image>")
)
SIDE, PATCH = 32, 8
BODY = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
CHAT = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}"
)


def blip(folder: Path) -> Path:
    """BLIP: goes on from the picture alone; takes no question."""
    torch.manual_seed(0)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = BertTokenizer(vocab=vocabulary, extra_special_tokens=list(SPECIAL[5:]))
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    text = {
        **BODY,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 128,
        "bos_token_id": CLS,
        "pad_token_id": PAD,
        "eos_token_id": SEP,
        "sep_token_id": SEP,
    }
    vision = {**BODY, "image_size": SIDE, "patch_size": PATCH}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """LLaVA: a chat with a template, its question echoed before the answer."""
    torch.manual_seed(0)
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        _tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=CHAT,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    vision = CLIPVisionConfig(**BODY, image_size=SIDE, patch_size=PATCH)
    ids = {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD}
    text = LlamaConfig(**BODY, **ids, vocab_size=len(WORDS))
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE, vision_feature_layer=-1
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def florence(folder: Path) -> Path:
    """Florence-2: an encoder and a decoder, told by task words what to write."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    images = CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    images.image_seq_length = 5  # 2 x 2 patches and their mean
    Florence2Processor(images, tokenizer, num_additional_image_tokens=0).save_pretrained(folder)
    ones = [1]
    vision = {
        "depths": ones,
        "patch_size": [7],
        "patch_stride": [16],
        "patch_padding": [3],
        "patch_prenorm": [False],
        "embed_dim": [16],
        "num_heads": [2],
        "num_groups": [2],
        "window_size": 2,
        "projection_dim": 32,
        "drop_path_rate": 0.0,
        "max_position_embeddings": 8,
    }
    text = {
        "vocab_size": len(WORDS),
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 256,
        "pad_token_id": PAD,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "decoder_start_token_id": END,
        "forced_eos_token_id": None,
        "init_std": 1.0,  # with the usual one, a random decoder only repeats what it starts with
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=IMAGE)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
