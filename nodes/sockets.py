"""The custom socket types of this pack, each declared once."""

from comfy_api.latest import io

StyleSetSocket = io.Custom("NSYNC_STYLE_SET")
TrainingOptionsSocket = io.Custom("NSYNC_TRAINING_OPTIONS")
EncodersSocket = io.Custom("NSYNC_STYLE_ENCODERS")
ArmsSocket = io.Custom("NSYNC_ARMS")
StyleWatchSocket = io.Custom("NSYNC_STYLE_WATCH")
SupConEncodersSocket = io.Custom("NSYNC_SUPCON_ENCODERS")
TextToImageGanSocket = io.Custom("NSYNC_T2I_GAN")

# The core's own types, so that its nodes read them.
LoraModelSocket = io.Custom("LORA_MODEL")
LossMapSocket = io.Custom("LOSS_MAP")
