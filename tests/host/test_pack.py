"""What the host sees of the pack as a whole."""

PICTURE = {
    "class_type": "EmptyImage",
    "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0},
}
PREVIEW = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}


def run_a_core_graph(host):
    outcome = host.run({"1": PICTURE, "2": PREVIEW})
    return [outcome.ok, outcome.error]


def test_a_graph_runs_inside_the_host(in_host):
    assert in_host(run_a_core_graph) == [True, ""]


def test_a_graph_runs_on_the_live_server(server):
    outcome = server.run({"1": PICTURE, "2": PREVIEW})
    assert outcome.ok, outcome.error
    assert server.image(outcome.outputs["2"]["images"][0])[:4] == b"\x89PNG"
