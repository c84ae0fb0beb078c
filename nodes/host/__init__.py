"""Where ComfyUI's own objects are touched: MODEL, CLIP, VAE, LoRAs, devices."""
