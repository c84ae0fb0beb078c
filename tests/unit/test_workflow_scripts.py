"""The scripts that write the workflows and turn them into prompts."""

from litegraph import Graph
from workflow_api import to_api

SCHEMA = {
    "Words": {
        "input": {"required": {"text": ["STRING", {"default": "a"}]}},
        "output": ["STRING"],
        "output_name": ["text"],
    },
    "Picture": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "text": ["STRING", {"default": "b"}],
                "seed": ["INT", {"default": 0}],
            }
        },
        "output": ["IMAGE"],
        "output_name": ["image"],
    },
}


def test_a_widget_can_be_connected() -> None:
    graph = Graph("test", SCHEMA, ("1", "2"))
    words = graph.node("Words", (0, 0), text="hello")
    graph.node("Picture", (0, 0), text=words["text"], seed=3)
    drawn = graph.json()
    assert drawn["nodes"][1]["inputs"] == [
        {"name": "model", "type": "MODEL", "link": None},
        {"name": "text", "type": "STRING", "widget": {"name": "text"}, "link": 1},
    ]
    assert drawn["links"] == [[1, 1, 0, 2, 1, "STRING"]]
    prompt = to_api(drawn, SCHEMA)
    assert prompt["2"]["inputs"] == {"text": ["1", 0], "seed": 3}


def test_a_widget_that_is_not_connected_has_no_socket() -> None:
    graph = Graph("test", SCHEMA, ("1", "2"))
    graph.node("Picture", (0, 0), text="c")
    drawn = graph.json()
    assert [entry["name"] for entry in drawn["nodes"][0]["inputs"]] == ["model"]
    assert to_api(drawn, SCHEMA)["1"]["inputs"] == {"text": "c", "seed": 0}
