"""The inputs of a node that draws by the host's sampler."""

from comfy.samplers import KSampler
from comfy_api.latest import io


def sampling_inputs(steps: int) -> list[io.Input]:
    """Steps (so many by default), guidance, sampler and scheduler."""
    return [
        io.Int.Input("steps", default=steps, min=1, max=10000, tooltip="Sampling steps."),
        io.Float.Input(
            "guidance",
            default=7.5,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="How closely the pictures follow the prompt (CFG). Take the model's usual "
            "value; 1 for Flux, 3 for the tiny base.",
        ),
        io.Combo.Input(
            "sampler",
            options=list(KSampler.SAMPLERS),
            default="euler",
            tooltip="The host's sampler.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(KSampler.SCHEDULERS),
            default="normal",
            tooltip="The host's scheduler. 'simple' suits flow models.",
        ),
    ]
