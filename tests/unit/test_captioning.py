"""Captions by real models of three families (random weights): files, resuming, refusals."""

import gc
import json
import weakref

import pytest
import torch
from PIL import Image
from small_captioners import blip, florence, llava

from nsync.errors import InputError
from nsync.pictures import captioning
from nsync.pictures.captioning import DEFAULT_INSTRUCTION, caption_folder, captioner, trimmed
from nsync.sets.folder import read_folder
from nsync.style_set import StyleSet

FAMILIES = {"blip": blip, "llava": llava, "florence": florence}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {name: build(place / name) for name, build in FAMILIES.items()}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    (place / "inner").mkdir(parents=True)
    for count, name in enumerate(("a.png", "b.jpg", "inner/c.webp")):
        Image.effect_noise((60 + 10 * count, 50), 60).convert("RGB").save(place / name)
    return place


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_captions_a_folder(models, folder, family):
    captions, report = caption_folder(folder, models[family], max_words=6)

    assert report.written == ["a.png", "b.jpg", "inner/c.webp"]
    for name, caption in zip(("a", "b", "inner/c"), captions, strict=True):
        assert (folder / f"{name}.txt").read_text() == caption + "\n"
        assert 1 <= len(caption.split()) <= 6
        assert set(caption) <= set("word0123456789 ")  # no question, no special words
    style_set, _ = read_folder(folder, StyleSet((), "sks", resolution=64), skip=False)
    assert [item.caption for item in style_set.items] == captions


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_are_greedy_and_also_work_in_inference_mode(models, family):
    picture = Image.effect_noise((40, 40), 80).convert("RGB")
    said = []
    for _ in range(2):
        with torch.inference_mode(), captioner(models[family], "cpu", torch.float32) as model:
            said.append(model.caption("word1 word2", 8, picture))
    with captioner(models[family], "cpu", torch.float32) as model:
        said.append(model.caption("word1 word2", 8, picture))
    assert said[0] == said[1] == said[2] != ""


def _answers(model, *instructions):
    picture = Image.effect_noise((40, 40), 80).convert("RGB")
    with captioner(model, "cpu", torch.float32) as loaded:
        return [loaded.caption(instruction, 8, picture) for instruction in instructions]


def test_a_chat_heeds_the_instruction_and_the_number_in_it(models):
    questions = ("word1 word2", "word30 word40 word7", "word9 word8", "word9 word{max_words}")
    answers = _answers(models["llava"], *questions)
    assert answers[0] != answers[1]
    assert answers[2] == answers[3]
    for question, answer in zip(questions, answers, strict=True):
        assert question not in answer


def test_a_model_of_task_words_takes_one_or_captions(models):
    plain, task, detailed = _answers(
        models["florence"], DEFAULT_INSTRUCTION, "<CAPTION>", "<DETAILED_CAPTION>"
    )
    assert plain == task
    assert detailed != plain


def test_files_that_exist_are_never_written(models, folder):
    (folder / "a.txt").write_text("my own words")
    (folder / "b.txt").touch()
    (folder / "inner" / "c.txt").symlink_to(folder / "nowhere.txt")
    captions, report = caption_folder(folder, models["blip"])
    assert captions == ["my own words", "", ""]
    assert report.written == []
    assert report.kept == ["a.png", "b.jpg", "inner/c.webp"]
    assert (folder / "b.txt").read_bytes() == b""
    assert not (folder / "nowhere.txt").exists()
    assert "b.jpg: b.txt is empty" in report.text()


def test_an_interrupted_run_goes_on_and_frees_its_memory(models, folder, monkeypatch):
    loaded = []
    load = captioning._load

    def spy(place):
        model, processor = load(place)
        loaded.append(weakref.ref(model))
        return model, processor

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(captioning, "_load", spy)
    with pytest.raises(KeyboardInterrupt) as caught:
        caption_folder(folder, models["blip"], on_picture=stop)
    held = loaded[0]()  # by the traceback
    assert held is None or all(weight.is_meta for weight in held.parameters())
    del caught, held
    first = (folder / "a.txt").stat().st_mtime_ns
    assert sorted(path.name for path in folder.rglob("*.txt")) == ["a.txt"]

    told = []
    _, report = caption_folder(folder, models["blip"], on_picture=lambda *n: told.append(n))

    assert (folder / "a.txt").stat().st_mtime_ns == first
    assert report.kept == ["a.png"]
    assert report.written == ["b.jpg", "inner/c.webp"]
    assert told == [(0, 3), (1, 3), (2, 3)]
    gc.collect()
    assert [model() for model in loaded] == [None, None]


def test_no_model_is_loaded_when_nothing_is_missing(folder, tmp_path):
    for name in ("a", "b", "inner/c"):
        (folder / f"{name}.txt").write_text(f"words of {name}")
    captions, report = caption_folder(folder, tmp_path / "no_such_model")
    assert captions == ["words of a", "words of b", "words of inner/c"]
    assert report.text() == "0 captions written, 3 were there already."


def test_room_is_made_for_a_model_that_is_loaded_and_for_no_other(models, folder):
    asked = []
    for _ in range(2):
        caption_folder(
            folder, models["blip"], make_room=lambda: asked.append(sorted(folder.iterdir()))
        )
    [before] = asked
    assert folder / "a.txt" not in before


def test_bad_pictures_are_named_and_the_rest_is_captioned(models, folder, tmp_path):
    (folder / "a.png").write_bytes(b"")
    outside = tmp_path / "secret.png"
    Image.new("RGB", (40, 40)).save(outside)
    (folder / "link.png").symlink_to(outside)
    captions, report = caption_folder(folder, models["blip"])
    assert report.written == ["b.jpg", "inner/c.webp"]
    assert [bool(caption) for caption in captions] == [False, True, True, False]
    assert "a.png: an empty file (0 bytes)" in report.text()
    assert "link.png: a link that points out of the folder" in report.text()
    assert not (folder / "a.txt").exists()
    assert not (tmp_path / "secret.txt").exists()


def test_two_pictures_of_one_name_share_a_caption(models, folder):
    Image.effect_noise((64, 64), 60).save(folder / "a.webp")
    captions, report = caption_folder(folder, models["blip"])
    assert captions[0] == captions[1]
    assert "a.webp" not in report.written


def test_a_caption_that_someone_writes_meanwhile_is_kept(models, folder, monkeypatch):
    def slow(*_):
        (folder / "a.txt").write_text("typed by hand")
        return "from the model"

    monkeypatch.setattr(captioning.Captioner, "caption", slow)
    captions, report = caption_folder(folder, models["blip"])
    assert captions[0] == "typed by hand"
    assert "a.png" not in report.written


def test_a_model_that_says_nothing_writes_nothing(models, folder, monkeypatch):
    monkeypatch.setattr(captioning.Captioner, "caption", lambda *_: "")
    _, report = caption_folder(folder, models["blip"])
    assert list(folder.rglob("*.txt")) == []
    assert "a.png: the model said nothing" in report.text()


def _refused(folder, model):
    with pytest.raises(InputError, match=r"^`model`: expected a folder with a vision-lang") as no:
        caption_folder(folder, model)
    assert list(folder.rglob("*.txt")) == []
    assert repr(model.name) in str(no.value)
    return str(no.value)


def test_missing_and_empty_model_folders(folder, tmp_path):
    assert "no config.json" in _refused(folder, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in _refused(folder, tmp_path / "empty")


def _copied(model, place, **config):
    place.mkdir()
    for file in model.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    settings = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**settings, **config}))
    return place


def test_weights_that_can_carry_code_are_not_read(models, folder, tmp_path):
    pickled = _copied(models["blip"], tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    assert "carry code" in _refused(folder, pickled)


def test_code_of_a_model_is_not_run(models, folder, tmp_path):
    code = {"AutoConfig": "code.Config", "AutoModelForImageTextToText": "code.Model"}
    own = _copied(models["blip"], tmp_path / "own", model_type="own_kind", auto_map=code)
    (own / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert "variant made for transformers" in _refused(folder, own)
    assert not (tmp_path / "ran").exists()


def test_other_kinds_of_models_and_broken_files(models, folder, tmp_path):
    text = _copied(models["blip"], tmp_path / "text", model_type="bert", architectures=["Bert"])
    assert "does not load" in _refused(folder, text)
    cut = _copied(models["blip"], tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "does not load" in _refused(folder, cut)
    nonsense = _copied(models["blip"], tmp_path / "nonsense")
    (nonsense / "config.json").write_text("{")
    assert "does not load" in _refused(folder, nonsense)


def test_folder_without_pictures(models, tmp_path):
    with pytest.raises(InputError, match="`folder`: expected a folder with pictures"):
        caption_folder(tmp_path, models["blip"])


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a red  fox,\nrunning.", "a red fox, running"),
        ('"a fox."', "a fox"),
        ("one two three, four five six", "one two three, four five"),
        ("one two three four five, six", "one two three four five"),
        ("", ""),
    ],
)
def test_answers_are_trimmed_between_words(said, kept):
    assert trimmed(said, 5) == kept


def test_the_default_instruction_asks_for_content_in_so_many_words():
    assert "{max_words}" in DEFAULT_INSTRUCTION
    assert "nothing of style" in DEFAULT_INSTRUCTION
