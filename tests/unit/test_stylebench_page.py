"""StyleBench's page: whole, read without a network, and of the numbers that were computed."""

import csv
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from stylebench_records import record, study

from benchmarks.stylebench.analysis import analyse
from benchmarks.stylebench.page import report
from nsync.errors import InputError

ARMS = {"plain": 0.0, "plain wide": 0.02, "good": 0.15, "bad <b>": -0.1}


def write_study(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(one) + "\n" for one in records)
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    return folder


def write_strip(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (512, 64), colour).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two adapters with pictures of one style, and its page."""
    root = tmp_path_factory.mktemp("study")
    records = study(ARMS, steps=(50, 100), seeds=2)
    twin = [one | {"adapter": "LoRA and embedding"} for one in study(ARMS, seeds=2, rng=5)]
    folder = write_study(root / "in", records + [one for one in twin if one["arm"] != "base"])
    place = folder / "pictures" / "s3" / "1"
    write_strip(place / "reference.png", "red")
    for arm in ("base", "plain"):
        write_strip(place / "LoRA" / f"{arm}.png", "blue")
    write_strip(place / "LoRA" / "plain wide.png", "lime")
    write_strip(place / "LoRA" / "good.png", "yellow")
    write_strip(folder / "pictures" / "s3" / "0" / "LoRA" / "good.png", "black")  # of a clone
    return folder, report(folder, root / "out" / "page")


class Tags(HTMLParser):
    """What a page has: its tags, what it links to, and whether every tag is closed."""

    _VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.strips = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found[name] for name in ("src", "href") if name in found]
        if tag == "img" and found["src"].startswith("data:image/jpeg"):
            self.strips.append(found["alt"])
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(made):
    page = Tags(made[1].read_text(encoding="utf-8"))
    assert page.open == []
    assert len(page.links) >= 3
    assert all(link.startswith("data:image/") for link in page.links)


def test_the_answer_comes_first_and_is_that_of_the_analysis(made):
    text = html.unescape(made[1].read_text(encoding="utf-8"))
    found = json.loads((made[1].parent / "result.json").read_text(encoding="utf-8"))
    assert found["answers"][0]["headline"] == "good beats plain on style at no worse drift."
    told = [line for one in found["answers"] for line in (one["headline"], *one["details"])]
    places = [text.index(line) for line in (told[0], "160 trainings", "What each arm has over")]
    assert places == sorted(places)
    assert all(line in text for line in told)
    assert all(note in text for note in found["notes"])


def test_the_budget_is_told(made):
    text = made[1].read_text(encoding="utf-8")
    assert "160 trainings (10 styles, 2 seeds, 4 arms, 2 adapters) of 100 steps" in text
    assert "26.7 minutes of training in all, 112,000 passes" in text
    assert "of training in all on" not in text


def test_cores_are_told_where_records_have_them(tmp_path):
    records = [one | {"cores": 2, "seconds": 360} for one in study({"plain": 0, "new": 0}, seeds=1)]
    page = report(write_study(tmp_path / "in", records), tmp_path / "out")
    assert "2.0 hours of training in all on 2 cores each" in page.read_text(encoding="utf-8")


def test_names_are_text_and_never_markup(made):
    text = made[1].read_text(encoding="utf-8")
    assert "bad &lt;b&gt;" in text
    assert "<b>" not in text


def test_the_table_holds_the_numbers_of_the_analysis(made):
    text = (made[1].parent / "table.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["adapter"], row["arm"]) for row in rows[:3]] == [
        ("LoRA", "base"), ("LoRA", "plain"), ("LoRA", "plain wide"),
    ]  # fmt: skip
    assert len(rows) == 2 * 5
    folder = made[0] / "records.jsonl"
    found = analyse([json.loads(line) for line in folder.read_text(encoding="utf-8").splitlines()])
    row = next(row for row in rows if row["arm"] == "good")
    one = found.comparison("LoRA", "good", "plain wide", "style_hit")
    numbers = (one.difference.value, one.difference.low, one.difference.high, one.p, one.p_holm,
               one.effect, one.detectable)  # fmt: skip
    ends = ("", " low", " high", " p", " p_holm", " d", " detectable")
    assert [float(row[f"style_hit - plain wide{end}"]) for end in ends] == pytest.approx(numbers)
    mean = found.mean("LoRA", "good", "drift").value
    assert [float(row[f"drift{end}"]) for end in ends[:3]] == [mean.value, mean.low, mean.high]
    assert (row["wins"], row["styles"], row["cells"]) == ("True", "10", "20")
    assert (rows[0]["wins"], rows[0]["style_hit - plain"], rows[1]["removed"]) == ("", "", "")


def test_the_result_is_all_of_the_analysis(made):
    lines = (made[0] / "records.jsonl").read_text(encoding="utf-8").splitlines()
    expected = json.loads(json.dumps(analyse([json.loads(line) for line in lines]).as_dict()))
    assert json.loads((made[1].parent / "result.json").read_text(encoding="utf-8")) == expected


def test_pictures_that_are_there_are_shown_in_order(made):
    text = made[1].read_text(encoding="utf-8")
    assert Tags(text).strips == ["true renders", "base", "plain", "plain wide", "good"]
    assert re.findall(r"<summary>(.*?)</summary>", text) == ["s3"]


def test_the_sheet_has_the_leading_arm_below_plain_training_of_as_many_pictures(made):
    with Image.open(made[1].parent / "sheet.jpg") as sheet:
        colours = [sheet.getpixel((sheet.width - 9, 68 * row + 30)) for row in range(3)]
        expected = [(255, 0, 0), (0, 255, 0), (255, 255, 0)]
        assert np.abs(np.subtract(colours, expected)).max() < 5  # JPEG
        assert sheet.height == 3 * 68
        assert sheet.width > 512


def test_plots_are_pictures(made):
    for name in ("forest", "curves", "exchange"):
        with Image.open(made[1].parent / f"{name}.png") as plot:
            assert min(plot.size) > 200
            assert len(plot.convert("RGB").getcolors(1 << 20)) > 10


def test_a_study_of_one_style_without_pictures_has_a_page(tmp_path):
    records = [record("neon", arm, 0, style_hit=0.5) for arm in ("plain", "new")]
    page = report(write_study(tmp_path / "in", records), tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "No arm beats plain." in text
    assert "1 style: no intervals below 5" in text
    assert "2 trainings (1 style, 1 seed, 2 arms, 1 adapter) of 100 steps" in text
    assert "<h2>Pictures</h2>" not in text
    assert Tags(text).open == []
    assert not (tmp_path / "out" / "sheet.jpg").exists()


def test_a_study_that_has_only_begun_says_so(tmp_path):
    folder = write_study(tmp_path / "in", study({"plain": 0}, styles=2, seeds=1))
    text = report(folder, tmp_path / "out").read_text(encoding="utf-8")
    assert "Nothing was measured that plain can be compared with." in text
    assert "beat" not in text.split("</h1>")[1].split("<h2>How")[0]
    assert "What each arm has over" not in text


def test_baselines_may_be_named(tmp_path):
    folder = write_study(tmp_path / "in", study({"old": 0, "new": 0.2}, seeds=1))
    with pytest.raises(InputError, match="`baselines`"):
        report(folder, tmp_path / "out")
    text = report(folder, tmp_path / "out", ["old"]).read_text(encoding="utf-8")
    assert "new<small>less old</small>" in text


def test_nothing_is_written_of_a_damaged_study(tmp_path):
    folder = write_study(tmp_path / "in", study({"plain": 0, "new": 0}, seeds=1))
    with (folder / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"study": "inv')
    with pytest.raises(InputError, match=r"records\.jsonl, line 31"):
        report(folder, tmp_path / "out")
    write_study(folder, study({"plain": 0, "new": 0}, seeds=1))
    broken = folder / "pictures" / "s0" / "0" / "LoRA" / "plain.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"`pictures`: expected a picture in .*plain\.png"):
        report(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
