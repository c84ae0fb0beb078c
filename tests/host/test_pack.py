"""What the host sees of the pack as a whole: schemas, help pages, workflows."""

import inspect
import json
import re
import urllib.request

import pytest
from comfy_host import PACK, PACK_NAME
from workflow_api import NOTES, inputs_of, is_widget, to_api, widget_slots

PICTURE = {
    "class_type": "EmptyImage",
    "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0},
}
PREVIEW = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
NAMES = ("nsync_embedding", "nsync_evaluate", "nsync_quickstart", "nsync_sd15", "supcon_gan")
WORKFLOWS = [PACK / "workflows" / f"{name}.json" for name in NAMES]


def facts_of_the_pack(host):
    """Everything below in one process: schemas as the host built them, workflows as it judges."""
    nodes = [_facts_of_node(node) for node in host.module("nodes").NODES]
    info = host.object_info()
    _provide_what_the_workflows_name(host, info)
    info = host.object_info()
    verdicts = {path.stem: host.validate(to_api(_read(path), info))[:2] for path in WORKFLOWS}
    return {"nodes": nodes, "object_info": info, "verdicts": verdicts}


def run_a_core_graph(host):
    outcome = host.run({"1": PICTURE, "2": PREVIEW})
    return [outcome.ok, outcome.error]


def _facts_of_node(node):
    schema = node.GET_SCHEMA()
    parameters = inspect.signature(node.execute).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return {
        "id": schema.node_id,
        "class": node.__name__,
        "category": schema.category,
        "display_name": schema.display_name,
        "description": schema.description,
        "inputs": [field.id for field in schema.inputs],
        "tooltips": {field.id: field.tooltip for field in schema.inputs},
        "parameters": named,
        "takes_rest": len(named) < len(parameters),
    }


def _provide_what_the_workflows_name(host, info):
    """The user's own files that a workflow names: an (empty) checkpoint, a folder of pictures."""
    for path in WORKFLOWS:
        for node in _read(path)["nodes"]:
            for model in node["properties"].get("models", []):
                place = host.base / "models" / model["directory"] / model["name"]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
    pictures = host.base / "input" / "my_style"
    pictures.mkdir(exist_ok=True)
    from PIL import Image

    Image.new("RGB", (64, 64)).save(pictures / "one.png")
    (pictures / "one.txt").write_text("a house")


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def facts(in_host):
    return in_host(facts_of_the_pack)


def test_node_ids_are_unique_and_prefixed(facts):
    ids = [node["id"] for node in facts["nodes"]]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(node["id"] == "NSYNC_" + node["class"] for node in facts["nodes"])


def test_every_node_has_a_name_a_description_and_the_category(facts):
    for node in facts["nodes"]:
        assert node["display_name"], node["id"]
        assert node["description"], node["id"]
        assert node["category"] == "NSYNC", node["id"]


def test_every_input_has_a_tooltip(facts):
    missing = [
        f"{node['id']}.{name}"
        for node in facts["nodes"]
        for name, text in node["tooltips"].items()
        if not (text or "").strip()
    ]
    assert missing == []


def test_execute_takes_exactly_the_inputs(facts):
    for node in facts["nodes"]:
        if node["takes_rest"]:
            assert set(node["parameters"]) <= set(node["inputs"]), node["id"]
        else:
            assert sorted(node["parameters"]) == sorted(node["inputs"]), node["id"]


def test_every_node_has_a_help_page_that_names_its_inputs(facts):
    for node in facts["nodes"]:
        page = PACK / "web" / "docs" / f"{node['id']}.md"
        text = page.read_text(encoding="utf-8")
        unnamed = [name for name in node["inputs"] if f"`{name}`" not in text]
        assert unnamed == [], page.name


def test_the_help_page_of_the_gan_trainer_tells_of_every_family(facts):
    inputs = facts["object_info"]["NSYNC_SupConGANTrainer"]["input"]["required"]
    families = inputs["family"][1]["options"]
    text = (PACK / "web" / "docs" / "NSYNC_SupConGANTrainer.md").read_text(encoding="utf-8")
    assert [name for name in families if f"| {name} |" not in text] == []


def test_there_is_no_help_page_without_a_node(facts):
    pages = {page.stem for page in (PACK / "web" / "docs").glob("*.md")}
    assert pages == {node["id"] for node in facts["nodes"]}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_host_accepts_the_workflow(facts, path):
    assert facts["verdicts"][path.stem] == [True, ""]


def test_no_two_trainers_of_the_workflows_have_one_name(facts):
    """The second one's run would be refused, as another one in the first one's folder."""
    prompts = [to_api(_read(path), facts["object_info"]) for path in WORKFLOWS]
    nodes = [node for prompt in prompts for node in prompt.values()]
    trainers = [n["inputs"]["name"] for n in nodes if n["class_type"].endswith("LoRATrainer")]
    assert len(trainers) == 4
    assert len(set(trainers)) == len(trainers)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_both_ends_of_every_link_agree(facts, path):
    workflow = _read(path)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    assert len({link[0] for link in workflow["links"]}) == len(workflow["links"])
    for number, source, out, target, slot, kind in workflow["links"]:
        assert number in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][slot]["link"] == number
        assert kind in (nodes[source]["outputs"][out]["type"], "*"), (source, target)
    ends = [link for node in workflow["nodes"] for out in node["outputs"] for link in out["links"]]
    assert sorted(ends) == sorted(link[0] for link in workflow["links"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_slots_and_widgets_agree_with_the_schemas(facts, path):
    for node in _read(path)["nodes"]:
        if node["type"] in NOTES:
            continue
        info = facts["object_info"][node["type"]]
        sockets = {n: kind for n, kind, options in inputs_of(info) if not is_widget(kind, options)}
        outputs = list(zip(info["output_name"], info["output"], strict=True))
        found = [(entry["name"], entry["type"]) for entry in node["outputs"]]
        widgets = {n: kind for n, kind, options in inputs_of(info) if is_widget(kind, options)}
        connected = [entry for entry in node["inputs"] if "widget" in entry]
        assert all(widgets[entry["name"]] == entry["type"] for entry in connected), node["type"]
        own = [entry for entry in node["inputs"] if entry not in connected]
        assert {entry["name"]: entry["type"] for entry in own} == sockets, node["type"]
        assert len(node["widgets_values"]) == len(widget_slots(info)), node["type"]
        # Older hosts lack some outputs of core nodes (Preview Image's); those are not connected.
        linked = max(
            (i + 1 for i, entry in enumerate(node["outputs"]) if entry["links"]), default=0
        )
        ours = node["type"].startswith("NSYNC_")
        assert found == outputs if ours else found[:linked] == outputs[:linked], node["type"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_workflow_is_tidy(path):
    workflow = _read(path)
    assert workflow["version"] == 0.4
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", workflow["id"])
    assert workflow["last_node_id"] == max(node["id"] for node in workflow["nodes"])
    assert workflow["last_link_id"] == max(link[0] for link in workflow["links"])
    for node in workflow["nodes"]:
        if node["type"].startswith("NSYNC_"):
            assert node["properties"]["cnr_id"] == PACK_NAME
        texts = [value for value in node["widgets_values"] if isinstance(value, str)]
        assert not [text for text in texts if re.match(r"/|~|[A-Za-z]:\\", text)], "absolute path"
        assert "randomize" not in texts


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_node_covers_another(path):
    boxes = [(*node["pos"], *node["size"], node["id"]) for node in _read(path)["nodes"]]
    overlaps = [
        (a[4], b[4])
        for index, a in enumerate(boxes)
        for b in boxes[:index]
        if a[0] < b[0] + b[2] and b[0] < a[0] + a[2]  # side by side
        and a[1] - 30 < b[1] + b[3] and b[1] - 30 < a[1] + a[3]  # 30: the title bar above pos
    ]  # fmt: skip
    assert overlaps == []


def test_templates_list_the_workflows(server):
    listed = server.get("/workflow_templates")[PACK_NAME]
    assert sorted(listed) == [path.stem for path in WORKFLOWS]


def test_the_live_server_has_the_nodes_and_serves_their_help(server, facts):
    info = server.get("/object_info")
    for node in facts["nodes"]:
        assert node["id"] in info
        page = f"{server.url}/extensions/{PACK_NAME}/docs/{node['id']}.md"
        with urllib.request.urlopen(page) as answer:
            assert answer.read() == (PACK / "web" / "docs" / f"{node['id']}.md").read_bytes()
    modules = server.get("/extensions")
    assert [name for name in modules if PACK_NAME in name] == [], "the pack has no script"


def test_a_graph_runs_inside_the_host(in_host):
    assert in_host(run_a_core_graph) == [True, ""]


def test_a_graph_runs_on_the_live_server(server):
    outcome = server.run({"1": PICTURE, "2": PREVIEW})
    assert outcome.ok, outcome.error
    assert server.image(outcome.outputs["2"]["images"][0])[:4] == b"\x89PNG"
